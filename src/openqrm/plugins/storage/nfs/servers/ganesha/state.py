"""Whether the nfs-ganesha of a storage host can be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import ConflictError, MissingDependencyError, UnsupportedError

if TYPE_CHECKING:
    from openqrm.plugin_api.drivers import StorageContext
    from openqrm.plugin_api.script_export import ExportFacts


def check_answers(context: StorageContext, found: ExportFacts) -> None:
    """If it runs, it says what it serves. ConflictError."""
    if "silent" in found.has:
        raise ConflictError(
            f"nfs-ganesha on the host of storage {context.storage.name} runs and does not answer",
            remedy="try again; if it stays so, restart it",
        )


def check_ready(context: StorageContext, found: ExportFacts, directory: str) -> None:
    """It can be asked, and reads exports in `directory` when it starts. MissingDependencyError, UnsupportedError."""
    name = context.storage.name
    if "bus" not in found.has:
        raise MissingDependencyError(
            f"the host of storage {name} has nothing to ask nfs-ganesha with",
            remedy="apt-get install dbus-bin on it (or libglib2.0-bin, or systemd)",
        )
    if "persistent" not in found.has:
        raise UnsupportedError(
            f"exports would be lost when nfs-ganesha on the host of storage {name} restarts: "
            f"it does not read {directory}",
            remedy=f"add the line `%dir {directory}` to /etc/ganesha/ganesha.conf and restart nfs-ganesha",
        )
