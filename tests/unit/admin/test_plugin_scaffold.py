"""`openqrm plugin new` makes plug-ins that pass their own tests and the check, in a package or in the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.admin import plugin_scaffold, plugins
from openqrm.admin.plugin_renaming import Renaming, refusal
from openqrm.operations.core_plugins import installed
from openqrm.plugin_api.plugin import Family
from openqrm.plugin_api.script_pool import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

REPOSITORY = Path(__file__).parents[3]
MOST_LINES = 150
"""Of a scaffolded storage plug-in: declaration, driver, script, page, case files and tests."""
SURFACES = """
from openqrm.admin.reference import table
from openqrm.admin.reference_plugins import plugins_page
from openqrm.api.compact import compact
from openqrm.api.openapi import document
from openqrm.cli.options import operation_parser
from openqrm.engine.plugins.catalogue import of
from openqrm.operations.registry import Registry
from openqrm.plugins.storage.dir.plugin import PLUGIN as DIRECTORIES
from openqrm.plugins.storage.nfs.plugin import PLUGIN as NFS
from openqrm.plugins.storage.shelf.plugin import PLUGIN

plugins = [DIRECTORIES, NFS, PLUGIN]
registry = Registry.of_installation(plugins)
create = next(each for each in compact(registry)["operations"] if each["name"] == "storage.create")
print("API", "shelf-nfs" in str(document(registry)["components"]["schemas"]["StorageCreateArguments"]))
print("CLI", "shelf-nfs" in operation_parser(create).format_help())
print("docs", "| `shelf-nfs` | `shelf` | `nfs` |" in plugins_page(of(plugins), table))
"""


def run(directory: Path, *command: str, path: Path | None = None) -> str:
    """A module of Python in a directory, with `path` to import from; its output."""
    environment = os.environ | {"PYTHONPATH": str(path or directory / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def check_distribution(directory: Path, *tests: str) -> None:
    """Tidy and tested."""
    run(directory, "ruff", "check", "--select", "E,F,I,UP,B", ".")
    run(directory, "ruff", "format", "--check", ".")
    run(directory, "pytest", "-q", "-p", "no:cacheprovider", *tests)


def lines_of(files: Iterable[Path]) -> int:
    return sum(len(file.read_text().splitlines()) for file in files)


def test_a_new_storage_plugin_is_short_and_sound(tmp_path: Path) -> None:
    root = tmp_path / "new"
    layout = plugin_scaffold.of_its_own("shelf-storage", root)
    made = plugin_scaffold.new("shelf-storage", Family.STORAGE, layout)
    counted = [file for file in made if file.name not in ("pyproject.toml", "__init__.py")]
    assert lines_of(counted) < MOST_LINES
    for file in made:
        assert "sample" not in file.read_text().lower(), file
    check_distribution(root, "tests/cases")
    run(root, "mypy", "--strict", "--config-file", "/dev/null", "src")
    assert {file.name for file in made} >= {"test_shelf.py", "test_shelf_cases.py", "create.json", "pool", "README.md"}


def test_a_new_plugin_of_another_family(tmp_path: Path) -> None:
    root = tmp_path / "new"
    made = plugin_scaffold.new("say-hello", Family.MONITORING, plugin_scaffold.of_its_own("say-hello", root))
    check_distribution(root)
    (declaration,) = (file for file in made if file.name == "plugin.py")
    assert "family=Family.MONITORING" in declaration.read_text()


def test_a_name_that_has_the_skeletons_in_it(tmp_path: Path) -> None:
    root = tmp_path / "new"
    plugin_scaffold.new("free-sample", Family.STORAGE, plugin_scaffold.of_its_own("free-sample", root))
    text = (root / "src/openqrm_free_sample/plugin.py").read_text()
    assert 'name="free-sample",\n    family' in text
    assert '"/srv/free-sample"' in text


def test_a_copy_is_installed_beside_its_source(tmp_path: Path) -> None:
    source = installed().get("nfs-storage")
    root = tmp_path / "new"
    made = plugin_scaffold.copy("shelf-storage", source, plugin_scaffold.of_its_own("shelf-storage", root))
    check_distribution(root, "tests/cases/test_shelf_cases.py")
    text = (root / "src/openqrm_shelf/plugin.py").read_text()
    for name in ('"shelf-storage"', '"shelf"', '"shelf-root"', '"root-mount.shelf-root"'):
        assert name in text
    assert (root / "tests/test_shelf.py") in made
    for file in made:
        assert "openqrm.plugins.storage.nfs" not in file.read_text()
    # What the name also stands for stays as it is.
    assert "mount -t nfs4" in (root / "src/openqrm_shelf/node/root-mount").read_text()
    script = (
        "from openqrm.engine.plugins.catalogue import of; from openqrm_shelf.plugin import PLUGIN;"
        "from openqrm.plugins.storage.dir.plugin import PLUGIN as DIR;"
        "from openqrm.plugins.storage.nfs.plugin import PLUGIN as NFS;"
        "from openqrm.admin.plugin_check import faults;"
        "both = of([DIR, NFS, PLUGIN]); assert not both.broken, both.broken;"
        "print(*sorted(both.declared.types)); print([one for one in faults(PLUGIN, both) if 'README' not in one])"
    )
    (tmp_path / "look.py").write_text(script)
    shown = run(root, "look", path=Path(f"{tmp_path}{os.pathsep}{root / 'src'}"))
    assert shown.splitlines() == ["nfs-storage shelf-storage", "[]"]


def test_tests_are_those_of_the_plugin_that_they_import_as_theirs() -> None:
    """Others, which it is joined with, have other names there."""
    for name, mine, others in (
        ("nfs-storage", {"test_nfs.py", "test_nfs_cases.py", "revoke.json"}, {"test_btrfs.py", "test_dir_cases.py"}),
        ("btrfs-storage", {"test_btrfs.py", "test_btrfs_cases.py"}, {"test_nfs.py"}),
        ("file-storage", {"test_file_cases.py"}, {"test_aoe_cases.py", "test_iscsi.py"}),
        ("aoe-storage", {"test_aoe_cases.py", "authorize.json"}, {"test_file_cases.py", "test_lvm.py"}),
    ):
        found = {file.name for file in plugin_scaffold.own_tests(installed().get(name))}
        assert found >= mine
        assert not found & others


def test_what_cannot_be_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "service" in (refusal(installed().get("dhcpd")) or "")
    assert plugins.main(["new", "other-dhcpd", "--from", "dhcpd", "--directory", str(tmp_path / "x")]) == 1
    assert "dhcpd cannot be copied: its service" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    assert plugins.main(["new", "other", "--from", "no-such", "--directory", str(tmp_path / "x")]) == 1


def test_a_copy_whose_names_are_hidden_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Renaming, "_declared", lambda *given: iter(()))
    source = installed().get("nfs-storage")
    with pytest.raises(ValueError, match="cannot be copied: its code says nfs, nfs-storage in some other way"):
        plugin_scaffold.copy("shelf", source, plugin_scaffold.of_its_own("shelf", tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_a_wrong_name_or_an_existing_directory_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../up", "With Blank", "under_score", "", "9-storage", "9", "class-storage", "a\nb"):
        assert plugins.main(["new", name, "--family", "storage", "--directory", str(tmp_path / "x")]) == 1
        shown = capsys.readouterr().err
        assert shown.startswith(f"openqrm plugin (name): {name!r} is no plug-in name")
        assert "a letter first" in shown
        assert not (tmp_path / "x").exists()
    assert plugins.main(["new", "one", "--directory", str(tmp_path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert plugins.main(["new", "one", "--tree", str(tmp_path)]) == 1
    assert "no checkout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "more", "why"),
    [
        ("dir-storage", ["--family", "storage"], "a plug-in dir-storage is installed"),
        ("dir-storage", ["--from", "nfs-storage"], "a plug-in dir-storage is installed"),
        ("dhcpd", [], "a plug-in dhcpd is installed"),
        ("dir", ["--family", "storage"], "plug-in dir would provide pool dir, and dir-storage does already"),
        ("nfs", ["--from", "iscsi-storage"], "plug-in nfs would provide export nfs, and nfs-storage does already"),
    ],
)
def test_a_name_that_is_taken_is_refused(
    name: str, more: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plugins.main(["new", name, *more, "--directory", str(tmp_path / "x")]) == 1
    assert capsys.readouterr().err == (
        f"openqrm plugin (name): {why}\n  take another name; openqrm plugin check names what is installed\n"
    )
    assert not (tmp_path / "x").exists()


def test_a_family_may_share_a_name_with_a_pool(tmp_path: Path) -> None:
    assert plugins.main(["new", "dir", "--family", "monitoring", "--directory", str(tmp_path / "x")]) == 0


def test_directories_of_any_name_lie_in_the_pool(tmp_path: Path) -> None:
    """Somebody's: those that no volume can have for a name are none, and spoil no answer."""
    for name in ("web", "a\nvolume b", "a\\nb", "a b", "Big", "lost+found", "*", "-n", ".hidden", ".openqrm/x\\ny.new"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    script = Path(str(plugin_scaffold.__file__)).parent / "skeletons/storage/scripts/pool"
    done = subprocess.run(["sh", str(script), "facts", str(tmp_path)], capture_output=True, text=True, check=True)
    found = parse(done.stdout)
    assert set(found.volumes) == {"web"}
    assert found.leftovers == (f"{tmp_path}/.openqrm/x\\ny.new",)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """This tree's source, without its history."""
    for name in ("src", "tests"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_new_plugin_in_the_tree(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `make check` looks at, for what was added."""
    assert plugins.main(["new", "shelf-storage", "--family", "storage", "--tree", str(checkout)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown.pop() == "next: make setup docs check"
    made = [Path(line) for line in shown if not line.endswith("pyproject.toml")]
    code = checkout / "src/openqrm/plugins/storage/shelf"
    assert (code / "plugin.py") in made
    assert (checkout / "tests/cases/shelf/create.json") in made
    assert (checkout / "tests/integration/test_shelf.py") in made
    line = 'shelf-storage = "openqrm.plugins.storage.shelf.plugin:PLUGIN"'
    assert line in (checkout / "pyproject.toml").read_text()
    sources = [str(file) for file in made if file.suffix == ".py"]
    run(checkout, "ruff", "check", *sources)
    run(checkout, "ruff", "format", "--check", *sources)
    run(checkout, "mypy", "--follow-imports=silent", *sources)
    run(checkout, "pytest", "-q", "-p", "no:cacheprovider", "tests/cases/shelf")
    assert lines_of(made) < MOST_LINES
    (checkout / "surfaces.py").write_text(SURFACES)
    shown = run(checkout, "surfaces", path=Path(f"{checkout / 'src'}{os.pathsep}{checkout}")).splitlines()
    assert shown == ["API True", "CLI True", "docs True"]
    script = (
        "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command(['--no-cache']))"
    )
    (checkout / "contracts.py").write_text(script)
    assert "0 broken" in run(checkout, "contracts", path=Path(f"{checkout / 'src'}{os.pathsep}{checkout}"))
    assert plugins.main(["new", "shelf-storage", "--family", "storage", "--tree", str(checkout)]) == 1
    shutil.rmtree(code)
    assert plugins.main(["new", "ssh-storage", "--family", "storage", "--tree", str(checkout)]) == 1
    assert "tests/integration/test_ssh.py exists: nothing was written" in capsys.readouterr().err
    assert not (checkout / "src/openqrm/plugins/storage/ssh").exists()
    assert plugins.main(["new", "watch", "--family", "monitoring", "--tree", str(checkout)]) == 0
    assert (checkout / "src/openqrm/plugins/monitoring/__init__.py").is_file()
