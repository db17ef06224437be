"""The generated reference is what the declarations say now."""

from __future__ import annotations

from pathlib import Path

from openqrm.admin import reference
from openqrm.domain.resource import RESOURCE_PHASES
from openqrm.operations.registry import Registry

DIRECTORY = Path(__file__).parents[3] / "docs" / "reference"


def test_the_reference_is_not_stale() -> None:
    assert not reference.stale(DIRECTORY, reference.installed()), "run: openqrm reference write"


def test_a_stale_page_is_found(tmp_path: Path) -> None:
    assert reference.main(["write", "--directory", str(tmp_path)]) == 0
    assert reference.main(["check", "--directory", str(tmp_path)]) == 0
    (tmp_path / "errors.md").write_text("old")
    (tmp_path / "states.md").unlink()
    assert reference.stale(tmp_path, reference.installed()) == ["errors.md", "states.md"]
    assert reference.main(["check", "--directory", str(tmp_path)]) == 1


def test_pages_hold_what_operators_look_up() -> None:
    pages = reference.pages(Registry.of_installation())
    assert "## appliance.start" in pages["operations.md"]
    assert "for admins" in pages["operations.md"].split("## user.create")[1].split("##")[0]
    assert "for operators and above" in pages["operations.md"].split("## network.create")[1].split("##")[0]
    assert "| `no-capacity` | 409 |" in pages["errors.md"]
    assert "| 4 |" in pages["cli.md"]
    assert "-n, --name NAME -v, --version VERSION" in pages["cli.md"]
    assert "- `openqrm storage audit [STORAGE] [-f, --fix]`" in pages["cli.md"]
    assert "- `openqrm storage scan STORAGE`" in pages["cli.md"]
    assert "- `openqrm storage audit [STORAGE]`" in pages["operations.md"]
    assert "-s, --storage STORAGE " in pages["cli.md"]
    assert "`OPENQRM_STATE_DIR`" in pages["settings.md"]
    assert "password_hash" not in pages["operations.md"]


def test_plugins_have_a_page_with_what_they_provide_and_their_settings() -> None:
    page = reference.pages(Registry.of_installation())["plugins.md"]
    assert "| `nfs-storage` | `dir` | `nfs` | `nfs-root` | dir-storage, nfs-storage |" in page
    assert "### Pool `dir`\n\nOf medium tree. It can: `clone`" in page
    assert "| `directory` | `/srv/openqrm` | Directory: on the storage host" in page


def test_diagrams_have_every_row() -> None:
    text = reference.diagram(RESOURCE_PHASES)
    assert text.count(" --> ") == len(RESOURCE_PHASES.rows) + 1
    assert "note right of booting: at most 900 s, then boot-late" in text
