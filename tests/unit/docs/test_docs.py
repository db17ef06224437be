"""The documentation holds together: links lead somewhere, decisions are numbered, every dependency has its reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "src" / "openqrm" / "plugins").rglob("*.md")]
)
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PAGE_LINES = 50
"""A decision fits on one page."""
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)", re.DOTALL)
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_ABSOLUTE = re.compile(r"[a-z]+:")


def _text(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _links(page: Path) -> list[str]:
    text = _CODE.sub(lambda code: "x" * len(code[0]), _text(page))
    return [link for link in _LINK.findall(text) if not _ABSOLUTE.match(link)]


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", _text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _dead(page: Path) -> list[str]:
    dead = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert _dead(page) == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n\n[a](#a-title) [b](#b) [c](c.md) [d](page.md#a-title) [e](https://example.org) `[f](f)`\n"
    )
    assert _dead(page) == ["#b", "c.md"]


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in _links(index)}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page != index} <= linked


def test_decisions_are_numbered_one_by_one_and_short() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert lines[0].startswith(f"# {int(page.name[:4])}. "), page.name
        assert len(lines) <= PAGE_LINES, page.name


def _declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    packages = (ROOT / "apt-packages.txt").read_text(encoding="utf-8").splitlines()
    named = {line.strip() for line in packages if line.strip() and not line.startswith("#")}
    return named | {re.split(r"[\[<>=~!;, ]", requirement)[0] for requirement in python}


def test_every_dependency_has_its_reason_and_no_other_is_named() -> None:
    page = (ROOT / "docs" / "explanation" / "dependencies.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
    explained = {name for cell in first_cells for name in re.findall(r"`([^`]+)`", cell)}
    assert explained == _declared()


def test_coverage_names_only_what_is_there() -> None:
    page = (ROOT / "docs" / "reference" / "requirements-coverage.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d, ]+) \|.*?\| (met|in our way|part|later) \| (.*) \|$", page, re.MULTILINE)
    numbers = [int(number) for row in rows for number in row[0].split(",")]
    assert numbers[:81] == list(range(1, 82))
    roots = (ROOT / "src" / "openqrm", ROOT / "tests", ROOT)
    paths = [path for row in rows for path in re.findall(r"`([\w/.-]+/[\w.-]*)`", row[2])]
    missing = [path for path in paths if not any((root / path).exists() for root in roots)]
    assert len(paths) > 60
    assert missing == []
