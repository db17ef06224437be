"""Programs that machines fetch when they need them: each with its libraries, as one archive to unpack into the runtime.

A program comes from the server's own installation and lies in a folder of its own on the machine, so that it may be
linked with another C library than the initramfs was built with.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from openqrm.domain.errors import MissingDependencyError
from openqrm.netboot import runtime
from openqrm.plugin_api.plugin import Dependency

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CORE = (
    Dependency("rsync", "rsync"),
    Dependency("blkid", "util-linux"),
    Dependency("mke2fs", "e2fsprogs"),
    Dependency("e2fsck", "e2fsprogs"),
    Dependency("resize2fs", "e2fsprogs"),
    Dependency("getfattr", "attr"),
    Dependency("setfattr", "attr"),
    Dependency("zstd", "zstd"),
)
"""What the initramfs itself asks for, and what any plug-in's hook may."""
OLD_SECONDS = 86_400
"""An archive that is no longer made may still be on its way to a machine for this long."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _Made:
    """An archive, and what it was made from: path, size and time of change of the program and its libraries."""

    path: Path
    seen: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Programs:
    """Archives of programs, kept in `directory` under the checksum of what is in them. Safe for threads."""

    directory: Path
    _made: dict[str, _Made] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def archive(self, wanted: Dependency) -> Path:
        """The archive of a program, made when the program or a library of it is new. Blocking.

        MissingDependencyError, with the package to install, when this server has no such program.
        """
        with self._lock:
            known = self._made.get(wanted.command)
            if known is None or not known.path.is_file() or known.seen != _seen(path for path, _, _ in known.seen):
                known = self._make(wanted)
                self._made[wanted.command] = known
        return known.path

    def _make(self, wanted: Dependency) -> _Made:
        program = _located(wanted)
        try:
            linked = runtime.libraries(program)
        except runtime.RuntimeBundleError as error:
            raise MissingDependencyError(f"{wanted.command}: {error}") from None
        files = {f"programs/{wanted.command}/{wanted.command}": program}
        if linked is not None:
            base = f"programs/{wanted.command}/lib"
            files[f"{base}/ld.so"] = Path(linked.loader)
            files |= {f"{base}/{name}": Path(path) for name, path in linked.files.items()}
        seen = _seen(str(path) for path in files.values())
        path = self.directory / f"{wanted.command}-{_digest(files)[:16]}.tar.gz"
        if not path.is_file():
            self.directory.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            _pack(partial, files, wanted.command)
            partial.replace(path)
            self._drop_old(wanted.command, path)
        return _Made(path, seen)

    def _drop_old(self, command: str, kept: Path) -> None:
        for path in self.directory.glob(f"{command}-????????????????.tar.gz"):
            if path != kept and path.stat().st_mtime < time.time() - OLD_SECONDS:
                path.unlink()


def _located(wanted: Dependency) -> Path:
    found = shutil.which(wanted.command, path=runtime.SEARCH)
    if found is None:
        raise MissingDependencyError(
            f"machines need {wanted.command}, which is not installed on the server",
            remedy=f"apt-get install {wanted.package}",
        )
    return Path(found).resolve()


def _seen(paths: Iterable[str]) -> tuple[tuple[str, int, int], ...]:
    """Empty when one of them is gone."""
    try:
        return tuple((path, (state := Path(path).stat()).st_size, state.st_mtime_ns) for path in paths)
    except OSError:
        return ()


def _digest(files: Mapping[str, Path]) -> str:
    total = hashlib.sha256()
    for name, path in sorted(files.items()):
        total.update(f"{name}\0".encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                total.update(chunk)
    return total.hexdigest()


def _pack(output: Path, files: Mapping[str, Path], command: str) -> None:
    """The same files give the same bytes; at most a chunk of them is in memory."""
    with (
        output.open("wb") as raw,
        gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        script = wrapper(command, dynamic=len(files) > 1)
        archive.addfile(_member(f"bin/{command}", len(script)), BytesIO(script))
        for name, path in sorted(files.items()):
            with path.open("rb") as file:
                archive.addfile(_member(name, path.stat().st_size), file)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o755
    return member


def wrapper(command: str, *, dynamic: bool) -> bytes:
    """The script at `rt/bin/COMMAND`, for what runs inside an image; `rt COMMAND` does the same by itself."""
    own = f"{runtime.PREFIX}/programs/{command}"
    loader = f"{own}/lib/ld.so --library-path {own}/lib " if dynamic else ""
    return f'#!{runtime.PREFIX}/bin/busybox sh\nexec {loader}{own}/{command} "$@"\n'.encode()
