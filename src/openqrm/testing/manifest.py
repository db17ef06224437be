"""What a file tree is, in lines to compare: contents, kinds, modes, owners, times, links, holes, extended attributes.

    python -m openqrm.testing.manifest DIRECTORY     # one line for each entry, by path

An image on storage that keeps no extended attributes has them in a file (`ATTRIBUTES`); they count as the entries' own.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ATTRIBUTES = ".openqrm-attributes"
"""See docs/explanation/node-protocol.md, *Transfers*."""
OURS = ("lost+found", ATTRIBUTES)
KEPT = ("user.", "trusted.", "security.", "system.posix_acl_")
"""Namespaces of extended attributes that belong to an image."""
_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}


def manifest(root: Path, *, times: bool = True, leave_out: Sequence[str] = ()) -> dict[str, str]:
    """A line for each entry below `root`, by path; `leave_out` names paths that are skipped with all below them.

    Raises OSError for what cannot be read. Times are whole seconds: some file systems keep no more.
    """
    listed = attributes_file(root / ATTRIBUTES)
    first: dict[tuple[int, int], str] = {}
    found: dict[str, str] = {}
    for path in _walk(root, {*OURS, *leave_out}):
        name = path.relative_to(root).as_posix()
        info = path.lstat()
        linked = first.setdefault((info.st_dev, info.st_ino), name) if not stat.S_ISDIR(info.st_mode) else name
        # Two names of one file have one set of attributes, whichever of them is listed.
        extended = listed.get(name, listed.get(linked, {})) if listed is not None else _extended(path)
        found[name] = " ".join(
            [
                _KINDS[stat.S_IFMT(info.st_mode)],
                f"{stat.S_IMODE(info.st_mode):04o}",
                f"{info.st_uid}:{info.st_gid}",
                str(int(info.st_mtime)) if times and not stat.S_ISLNK(info.st_mode) else "-",
                _content(path, info),
                f"same-as={linked}" if linked != name else "-",
                ",".join(f"{key}={value}" for key, value in sorted(extended.items())) or "-",
            ]
        )
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is not the same, one line for each path: what it was, and what it is."""
    names = sorted({*before, *after})
    return [
        f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def attributes_file(path: Path) -> dict[str, dict[str, str]] | None:
    """Extended attributes by path, in hexadecimal, as `getfattr -d -e hex` has written them; None without a file."""
    if not path.exists():
        return None
    found: dict[str, dict[str, str]] = {}
    name = ""
    for line in path.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        if line.startswith("# file: "):
            name = _unescaped(line.removeprefix("# file: "))
            name = name.removeprefix("./")
        elif "=" in line:
            key, _, value = line.partition("=")
            found.setdefault(name, {})[key] = value.removeprefix("0x")
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def _walk(root: Path, leave_out: set[str]) -> Iterator[Path]:
    yield root
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if (here / name).relative_to(root).as_posix() not in leave_out)
        for name in sorted([*folders, *files]):
            if (here / name).relative_to(root).as_posix() not in leave_out:
                yield here / name


def _extended(path: Path) -> dict[str, str]:
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith(KEPT)]
    return {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names}


def _content(path: Path, info: os.stat_result) -> str:
    """A checksum, a target or a device; a file that is mostly a hole says so."""
    if stat.S_ISLNK(info.st_mode):
        return f"to={path.readlink()}"
    if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
        return f"device={os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
    if not stat.S_ISREG(info.st_mode):
        return "-"
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            total.update(chunk)
    sparse = " sparse" if info.st_size >= _CHUNK and info.st_blocks * 512 < info.st_size // 2 else ""
    return f"{info.st_size} {total.hexdigest()}{sparse}"


def main() -> None:
    """Print a directory's manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    for name, line in manifest(parser.parse_args().directory).items():
        print(f"{name}: {line}")


if __name__ == "__main__":
    main()
