"""What code a conformance run was about: the plug-ins of a storage type and the parts that all of them share."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import openqrm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from openqrm.testing.storage_subject import Subject

SHARED = ("script_pool.py", "script_export.py", "scripts.py", "shell/*")
"""Below `plugin_api`: what drivers made of scripts are built on, and the parts that scripts name."""
_NAMED = re.compile(r"\bopenqrm\.plugins\.\w+\.\w+")


def named_by(subject: Subject) -> frozenset[str]:
    """The packages of its plug-ins and of its drivers."""
    sides = (subject.pool_declared, subject.export_declared)
    drivers = (side.driver.partition(":")[0].rpartition(".")[0] for side in sides if side)
    return frozenset((*subject.modules, *drivers))


def packages_of(packages: Iterable[str]) -> list[str]:
    """These packages and those of other plug-ins that they name."""
    found = set(packages)
    waiting = sorted(found)
    while waiting:
        texts = [file.read_text(encoding="utf-8") for file in _files(waiting.pop()) if file.suffix == ".py"]
        more = {name for text in texts for name in _NAMED.findall(text)} - found
        found |= more
        waiting += sorted(more)
    return sorted(name for name in found if _folder(name) is not None)


def fingerprint(packages: Iterable[str]) -> str:
    """Twelve digits that are others when a file of these packages, or a shared part, is another; pages do not count."""
    api = Path(openqrm.__file__).with_name("plugin_api")
    files = [(f"plugin_api/{file.name}", file) for pattern in SHARED for file in api.glob(pattern) if file.is_file()]
    for name in packages:
        folder = _folder(name)
        files += [(f"{name}/{file.relative_to(folder)}", file) for file in _files(name)] if folder else [(name, Path())]
    whole = hashlib.sha256()
    for name, file in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest() if file.name else 'gone'}\0".encode())
    return whole.hexdigest()[:12]


def _folder(package: str) -> Path | None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return None
    places = found.submodule_search_locations if found is not None else None
    return Path(next(iter(places))) if places else None


def _files(package: str) -> Iterator[Path]:
    folder = _folder(package)
    for file in folder.rglob("*") if folder is not None else ():
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md":
            yield file
