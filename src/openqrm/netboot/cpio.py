"""Archives in the "newc" format, which the Linux kernel unpacks as an initramfs.

Source: the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`. The same files give the same bytes:
entries are sorted, times are zero, owners are root, inode numbers count up.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAGIC = "070701"
TRAILER = "TRAILER!!!"
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `mode` holds type and permission bits as in `stat.st_mode`; `data` is a link's target for a link."""

    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    @staticmethod
    def file(data: bytes, permissions: int = 0o644) -> Entry:
        """A regular file."""
        return Entry(stat.S_IFREG | permissions, data)

    @staticmethod
    def directory(permissions: int = 0o755) -> Entry:
        """A directory; parents of other entries need not be given."""
        return Entry(stat.S_IFDIR | permissions)

    @staticmethod
    def link(target: str) -> Entry:
        """A symbolic link."""
        return Entry(stat.S_IFLNK | 0o777, target.encode())

    @staticmethod
    def character_device(major: int, minor: int, permissions: int = 0o600) -> Entry:
        """A character device node."""
        return Entry(stat.S_IFCHR | permissions, device=(major, minor))


def _padded(data: bytes, to: int = 4) -> bytes:
    return data + b"\0" * (-len(data) % to)


def _record(inode: int, name: str, entry: Entry) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(encoded), 0)
    header = MAGIC + "".join(f"{field:08x}" for field in fields)
    return _padded(header.encode() + encoded) + _padded(entry.data)


def _complete(files: Mapping[str, bytes | Entry]) -> dict[str, Entry]:
    """`files` with plain bytes made regular files, and with every missing parent directory."""
    entries: dict[str, Entry] = {}
    for name, content in files.items():
        clean = str(PurePosixPath(name)).lstrip("/")
        if clean in ("", ".") or ".." in PurePosixPath(clean).parts:
            raise ValueError(f"not a path inside an archive: {name!r}")
        entries[clean] = content if isinstance(content, Entry) else Entry.file(content)
    for name in list(entries):
        for parent in PurePosixPath(name).parents:
            if str(parent) != ".":
                entries.setdefault(str(parent), Entry.directory())
    return entries


def archive(files: Mapping[str, bytes | Entry]) -> bytes:
    """A newc archive of `files` (path to content), padded to 512 bytes so that another archive can follow it.

    Raises ValueError for an empty path or one that climbs out with "..".
    """
    entries = _complete(files)
    # Sorting by parts puts each directory before what is in it, which the kernel needs.
    names = sorted(entries, key=lambda name: PurePosixPath(name).parts)
    records = [_record(number, name, entries[name]) for number, name in enumerate(names, start=1)]
    records.append(_record(0, TRAILER, Entry(0)))
    return _padded(b"".join(records), BLOCK)
