"""Kernel modules: which ones a machine needs, and the files a machine fetches them from.

The tables are those that depmod(8) writes: modules.dep(5), modules.alias, modules.softdep. All decisions here are
pure functions of their text.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import io
import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DepTable = Mapping[str, tuple[str, ...]]
"""Path of a module below lib/modules/VERSION to the paths it depends on, in modules.dep's order."""


class ModulesError(Exception):
    """A kernel's module tree cannot be used as it is; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Alias:
    """One line of modules.alias: hardware whose modalias matches `pattern` is driven by `module`."""

    pattern: str
    module: str


def name_of(path: str) -> str:
    """The module's name as the kernel spells it: `kernel/net/virtio-net.ko.xz` is `virtio_net`."""
    return re.sub(r"\.ko(\.\w+)?$", "", PurePosixPath(path).name).replace("-", "_")


def parse_dep(text: str) -> dict[str, tuple[str, ...]]:
    """The table in a modules.dep file."""
    table: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        path, colon, needs = line.partition(":")
        if colon:
            table[path.strip()] = tuple(needs.split())
    return table


def parse_alias(text: str) -> tuple[Alias, ...]:
    """The lines of a modules.alias file, comments left out."""
    rows = (line.split() for line in text.splitlines() if line.startswith("alias "))
    return tuple(Alias(row[1], row[2].replace("-", "_")) for row in rows if len(row) == 3)


def parse_softdep(text: str) -> dict[str, tuple[str, ...]]:
    """Module name to the names that must be loaded before it ("pre:"), from a modules.softdep file."""
    table: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or words[0] != "softdep" or "pre:" not in words:
            continue
        before = words[words.index("pre:") + 1 :]
        if "post:" in before:
            before = before[: before.index("post:")]
        table[words[1].replace("-", "_")] = tuple(word.replace("-", "_") for word in before)
    return table


def with_softdeps(deps: DepTable, softdeps: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """`deps` with soft dependencies made ordinary ones, for loaders that do not know them (busybox).

    A soft dependency that is built in, or absent, is left out; so is one that would make a circle.
    """
    by_name = {name_of(path): path for path in deps}
    result: dict[str, tuple[str, ...]] = {}
    for path, needs in deps.items():
        extra: list[str] = []
        for name in softdeps.get(name_of(path), ()):
            before = by_name.get(name)
            if before is None or before in needs or path in (before, *deps[before]):
                continue
            extra += [item for item in (before, *deps[before]) if item not in needs and item not in extra]
        # modules.dep lists what must be loaded first at the end.
        result[path] = (*needs, *extra)
    return result


def load_order(names: Iterable[str], deps: DepTable) -> tuple[str, ...]:
    """Paths to load for module `names`, each after what it needs; names without a file (built in) are left out."""
    by_name = {name_of(path): path for path in deps}
    ordered: dict[str, None] = {}
    for name in names:
        path = by_name.get(name.replace("-", "_"))
        if path is None:
            continue
        for item in (*reversed(deps[path]), path):
            ordered.setdefault(item)
    return tuple(ordered)


def needed(modaliases: Iterable[str], aliases: Iterable[Alias], deps: DepTable) -> tuple[str, ...]:
    """Paths of the modules that hardware with these `modaliases` needs, in load order, each once."""
    table = tuple(aliases)
    matched: dict[str, None] = {}
    for modalias in modaliases:
        for alias in table:
            if fnmatch.fnmatchcase(modalias, alias.pattern):
                matched.setdefault(alias.module)
    return load_order(matched, deps)


def render_dep(deps: DepTable) -> str:
    """The text of a modules.dep file."""
    return "".join(f"{path}:{''.join(' ' + need for need in deps[path])}\n" for path in sorted(deps))


def render_alias(aliases: Iterable[Alias]) -> str:
    """The text of a modules.alias file."""
    return "".join(f"alias {alias.pattern} {alias.module}\n" for alias in aliases)


@dataclass(frozen=True, slots=True)
class ModuleTree:
    """A kernel's modules below `root`/lib/modules/`version`, with its tables (soft dependencies merged in)."""

    root: Path
    version: str
    deps: Mapping[str, tuple[str, ...]]
    aliases: tuple[Alias, ...]

    @property
    def path(self) -> Path:
        """The directory that the paths in `deps` are relative to."""
        return self.root / "lib" / "modules" / self.version


def read_tree(root: Path, version: str) -> ModuleTree:
    """The modules of kernel `version` below `root`; runs depmod(8) first where its tables are missing.

    Raises ModulesError when there is no such tree, when depmod fails, or when modules are compressed with zstd, which
    busybox cannot load.
    """
    path = root / "lib" / "modules" / version
    if not path.is_dir():
        raise ModulesError(f"{path} does not exist: no modules for kernel {version}")
    if not (path / "modules.dep").exists():
        done = subprocess.run(["depmod", "-b", str(root), version], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ModulesError(f"depmod -b {root} {version} failed: {done.stderr.strip()}")
    deps = parse_dep((path / "modules.dep").read_text())
    if any(item.endswith(".ko.zst") for item in deps):
        raise ModulesError(f"modules in {path} are compressed with zstd; unpack them and run depmod")
    softdep = path / "modules.softdep"
    softdeps = parse_softdep(softdep.read_text()) if softdep.exists() else {}
    return ModuleTree(root, version, with_softdeps(deps, softdeps), parse_alias((path / "modules.alias").read_text()))


STAMP = "openqrm-stamp"


def stamp(tree: ModuleTree) -> str:
    """What lib/modules/VERSION/openqrm-stamp holds in an image that has all of these modules: SHA-256 of the table."""
    return hashlib.sha256(render_dep(tree.deps).encode()).hexdigest()


def _add(tar: tarfile.TarFile, name: str, content: bytes | None) -> None:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    member.mode = 0o755 if content is None else 0o644
    member.size = len(content or b"")
    tar.addfile(member, io.BytesIO(content or b""))


def write_archive(tree: ModuleTree, output: Path) -> None:
    """Write the whole tree to `output` as a gzipped tar of lib/modules/VERSION; the same tree gives the same bytes.

    The stamp comes last: a machine that finds it knows that everything before it was unpacked too.
    """
    partial = output.with_name(output.name + ".part")
    with (
        partial.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=3, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for item in (tree.path, *sorted(tree.path.rglob("*"))):
            if item.is_symlink() or item.name == STAMP:
                continue  # "build" and "source" point into the machine that packed the kernel
            content = None if item.is_dir() else item.read_bytes()
            _add(tar, str(item.relative_to(tree.root)), content)
        _add(tar, f"lib/modules/{tree.version}/{STAMP}", stamp(tree).encode() + b"\n")
    partial.replace(output)


def publish(root: Path, version: str, directory: Path) -> ModuleTree:
    """Write modules.tar.gz, modules.alias and modules.dep of kernel `version` to `directory`, as machines fetch them.

    Raises ModulesError as `read_tree` does, OSError when `directory` cannot be written.
    """
    tree = read_tree(root, version)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "modules.alias").write_text(render_alias(tree.aliases))
    (directory / "modules.dep").write_text(render_dep(tree.deps))
    write_archive(tree, directory / "modules.tar.gz")
    return tree
