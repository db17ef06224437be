"""`openqrm plugin new`: a plug-in to begin with, copied from a skeleton or from an installed one under new names."""

from __future__ import annotations

import ast
import keyword
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from openqrm import __version__
from openqrm.admin import skeletons
from openqrm.admin.plugin_renaming import Renaming, package_of, refusal, stem_of
from openqrm.admin.skeletons.other.plugin import PLUGIN as OTHER_SKELETON
from openqrm.admin.skeletons.storage.plugin import PLUGIN as STORAGE_SKELETON
from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.model import NAME_PATTERN
from openqrm.engine.plugins.catalogue import path_in
from openqrm.plugin_api.plugin import Family, Plugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.engine.plugins.catalogue import Catalogue

TEST_IMPORTS = ("openqrm.plugin_api", "openqrm.domain", "openqrm.testing", "openqrm.admin.lab")
"""What of openqrm a plug-in's tests import, beside itself."""
_ENTRY_POINTS = '[project.entry-points."openqrm.plugins"]\n'
_DECLARED = """\
from {module}.plugin import PLUGIN
print(PLUGIN.name, PLUGIN.module, *(each.name for each in PLUGIN.provides))
"""
_HERE = Path(str(skeletons.__file__)).parent


@dataclass(frozen=True)
class Layout:
    """Where the parts of a new plug-in go."""

    root: Path
    module: str
    code: Path
    cases: Path
    tests: Path
    whole: bool
    """A distribution of its own, with its `pyproject.toml`; else a part of openQRM's tree."""


def of_its_own(name: str, directory: Path) -> Layout:
    """A distribution in a new directory. FileExistsError."""
    if directory.exists():
        raise FileExistsError(f"{directory} exists")
    module = f"openqrm_{package_of(stem_of(name))}"
    return Layout(directory, module, directory / "src" / module, directory / "tests/cases", directory / "tests", True)


def in_tree(name: str, family: Family, root: Path) -> Layout:
    """A checkout of openQRM. ValueError for another directory, FileExistsError."""
    package = package_of(stem_of(name))
    code = root / "src/openqrm/plugins" / str(family) / package
    if not (root / "src/openqrm/plugins").is_dir() or _ENTRY_POINTS not in _read(root / "pyproject.toml"):
        raise ValueError(f"{root} is no checkout of openQRM")
    if code.exists():
        raise FileExistsError(f"{code} exists")
    module = f"openqrm.plugins.{family}.{package}"
    return Layout(root, module, code, root / "tests/cases" / package, root / "tests/integration", False)


def skeleton(family: Family) -> Plugin:
    """What a new plug-in of a family begins as."""
    return STORAGE_SKELETON if family is Family.STORAGE else OTHER_SKELETON


def refuse_name(name: str) -> None:
    """InvalidError for what cannot be the name of a plug-in: its package and its classes are called after it."""
    package = package_of(stem_of(name))
    fits = re.fullmatch(NAME_PATTERN, name) and package.isidentifier() and not keyword.iskeyword(package)
    if not fits:
        raise InvalidError(
            f"{name!r} is no plug-in name: its package and its classes are called after it",
            field="name",
            remedy="take lower-case letters, digits and inner dashes, a letter first, no word of Python: shelf-storage",
        )


def refuse_taken(name: str, source: Plugin, catalogue: Catalogue) -> None:
    """ConflictError for a name that an installed plug-in has, or that its pools or exports would share with theirs."""
    wanted = Renaming(source, name, "").names
    mine = [(type(each), wanted[each.name]) for each in source.provides]
    theirs = {(type(each), each.name): plugin.name for plugin in catalogue.plugins for each in plugin.provides}
    clash = next((each for each in mine if each in theirs), None)
    if name in {each.name for each in catalogue.plugins} | {each.name for each in catalogue.broken}:
        why = f"a plug-in {name} is installed"
    elif clash:
        why = f"plug-in {name} would provide {clash[0].__name__.lower()} {clash[1]}, and {theirs[clash]} does already"
    else:
        return
    raise ConflictError(why, field="name", remedy="take another name; openqrm plugin check names what is installed")


def new(name: str, family: Family, layout: Layout) -> list[Path]:
    """Write a plug-in to begin with; the files made. InvalidError for a wrong name, FileExistsError."""
    source = skeleton(family)
    old, stem = stem_of(source.name), stem_of(name)
    words = {source.name: name, old: stem, "SamplePool": f"{_camel(stem)}Pool", "TestSample": f"Test{_camel(stem)}"}
    words |= {f"test_{old}": f"test_{package_of(stem)}", "Family.OTHER": f"Family.{family.name}"}
    return _write(Renaming(source, name, layout.module, words), layout)


def copy(name: str, source: Plugin, layout: Layout) -> list[Path]:
    """Write a copy of an installed plug-in; the files made.

    InvalidError for a wrong name, ValueError for what cannot be copied, FileExistsError.
    """
    why = refusal(source)
    if why:
        raise ValueError(f"{source.name} cannot be copied: {why}")
    made = _write(Renaming(source, name, layout.module), layout)
    try:
        _beside(source, layout)
    except ValueError:
        for file in made:
            file.unlink(missing_ok=True)
        shutil.rmtree(layout.root if layout.whole else layout.code, ignore_errors=True)
        raise
    return made


def _write(renaming: Renaming, layout: Layout) -> list[Path]:
    refuse_name(renaming.name)
    code = path_in(renaming.plugin, ".").resolve()
    sources = {layout.code / file.relative_to(code): file for file in _files(code)}
    tests = {}
    for file in own_tests(renaming.plugin):
        folder = layout.cases if any(file.parent.glob("*.json")) else layout.tests
        tests[folder / (renaming.file_name(file.name) if file.suffix == ".py" else file.name)] = file
    there = next((target for target in (*sources, *tests) if target.exists()), None)
    if there is not None:
        raise FileExistsError(f"{there} exists: nothing was written")
    made = []
    family = layout.code.parent / "__init__.py"
    if not layout.whole and not family.exists():
        family.parent.mkdir(exist_ok=True)
        family.write_text('"""Plug-ins of one family."""\n', encoding="utf-8")
        made.append(family)
    for target, file in (sources | tests).items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(renaming.text(file.suffix, _read(file), test=target in tests), encoding="utf-8")
        if target in sources:
            target.chmod(file.stat().st_mode & 0o777)
        made.append(target)
    return [*made, _register(renaming, layout)]


def _register(renaming: Renaming, layout: Layout) -> Path:
    """The entry point by which the plug-in is found."""
    file = layout.root / "pyproject.toml"
    if layout.whole:
        words = {"name": renaming.name, "title": renaming.title, "module": layout.module, "version": __version__}
        file.write_text(Template(_read(_HERE / "distribution.toml")).substitute(words), encoding="utf-8")
    else:
        line = f'{renaming.name} = "{layout.module}.plugin:PLUGIN"\n'
        file.write_text(_read(file).replace(_ENTRY_POINTS, _ENTRY_POINTS + line, 1), encoding="utf-8")
    return file


def _files(code: Path) -> Iterator[Path]:
    """A plug-in's files without its tests and what Python keeps beside them."""
    for file in sorted(code.rglob("*")):
        parts = file.relative_to(code).parts
        if file.is_file() and "__pycache__" not in parts and parts[0] != "tests":
            yield file


def own_tests(plugin: Plugin) -> Iterator[Path]:
    """A plug-in's tests, with the case files beside them.

    They import what is public, and its declaration as `PLUGIN`; those of others, to join with, under other names.
    """
    for directory in _test_directories(path_in(plugin, ".").resolve()):
        for file in sorted(directory.rglob("test_*.py")):
            if _is_own(plugin, file):
                yield file
                yield from sorted(file.parent.glob("*.json"))


def _is_own(plugin: Plugin, file: Path) -> bool:
    imported = [node for node in ast.walk(ast.parse(_read(file))) if isinstance(node, ast.ImportFrom) and node.module]
    modules = [node.module or "" for node in imported]
    if not any(_within(module, (plugin.module,)) for module in modules):
        return False
    of_ours = [module for module in modules if module.partition(".")[0] == "openqrm"]
    others = [module for module in of_ours if not _within(module, (*TEST_IMPORTS, plugin.module))]
    declared = [node for node in imported if node.module == f"{plugin.module}.plugin"]
    main = any(alias.name == "PLUGIN" and alias.asname is None for node in declared for alias in node.names)
    return all(_within(module, ("openqrm.plugins",)) for module in others) if main else not others


def _test_directories(code: Path) -> Iterator[Path]:
    """Beside its code, or those of the distribution that it is a part of."""
    if (code / "tests").is_dir():
        yield code / "tests"
        return
    root = next((parent for parent in code.parents if (parent / "pyproject.toml").is_file()), None)
    if root is not None and (root / "tests").is_dir():
        yield root / "tests"


def _within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _beside(source: Plugin, layout: Layout) -> None:
    """ValueError unless the copy can be imported and declares nothing that its source declares."""
    command = [sys.executable, "-c", _DECLARED.format(module=layout.module)]
    environment = os.environ | {"PYTHONPATH": str(layout.root / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"{source.name} cannot be copied: {done.stderr.strip().splitlines()[-1]}")
    kept = {source.name, source.module, *(each.name for each in source.provides)} & set(done.stdout.split())
    if kept:
        raise ValueError(f"{source.name} cannot be copied: its code says {', '.join(sorted(kept))} in some other way")


def _camel(stem: str) -> str:
    return "".join(part.capitalize() for part in stem.split("-"))


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""
