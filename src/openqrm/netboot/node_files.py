"""Files handed to machines: the agent, what enabled plug-ins bring, programs, and the boot services of started ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from openqrm.api.node.context import BootServiceFile
from openqrm.netboot import agent, programs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from openqrm.plugin_api.plugin import BootService, Dependency
    from openqrm.plugin_api.records import Reader


class Offered(Protocol):
    """What plug-ins offer to machines; the catalogue implements it."""

    def node_file(self, reader: Reader, name: str) -> Path | None:
        """A file of an enabled plug-in."""

    def node_programs(self, reader: Reader) -> tuple[Dependency, ...]:
        """The programs of enabled plug-ins."""

    def boot_services(self, reader: Reader) -> tuple[tuple[BootService, Path], ...]:
        """The boot services of started plug-ins and their folders."""


@dataclass(frozen=True)
class PackedFiles:
    """Implements `NodeFiles`. A boot service is packed anew only when a file in its folder changes."""

    offered: Offered
    programs: programs.Programs
    _packed: dict[Path, tuple[float, BootServiceFile]] = field(default_factory=dict)

    def read(self, reader: Reader, name: str) -> bytes | None:
        """`agent` or a plug-in's file; None when there is none of that name."""
        if name == "agent":
            return agent.script()
        path = self.offered.node_file(reader, name)
        return path.read_bytes() if path is not None else None

    def program(self, reader: Reader, name: str) -> Path | None:
        """The archive of a program that machines may ask for. MissingDependencyError when the server has it not."""
        for one in (*programs.CORE, *self.offered.node_programs(reader)):
            if one.command == name:
                return self.programs.archive(one)
        return None

    def services(self, reader: Reader) -> Sequence[BootServiceFile]:
        """The boot services of started plug-ins."""
        return [self._service(entry.name, folder) for entry, folder in self.offered.boot_services(reader)]

    def _service(self, name: str, folder: Path) -> BootServiceFile:
        newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
        known = self._packed.get(folder)
        if known is None or known[0] != newest:
            content = packed(folder)
            digest = hashlib.sha256(content).hexdigest()
            known = (newest, BootServiceFile(name, digest[:12], digest, content))
            self._packed[folder] = known
        return known[1]


def packed(folder: Path) -> bytes:
    """A folder as a gzipped tar: the same files give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False, filter=_plain)
    return gzip.compress(buffer.getvalue(), mtime=0)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member
