"""Planner of the NFS export: facts in, steps out.

Each verb is one run of `scripts/export` on the storage host, behind the host gate, so that it is not half overtaken by
another controller. It is idempotent and leaves either nothing or the whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import MissingDependencyError
from openqrm.plugin_api.drivers import Cap, Placed
from openqrm.plugin_api.script_export import ScriptLender, address_of
from openqrm.plugins.storage.nfs.facts import parse_export
from openqrm.plugins.storage.nfs.plugin import NfsSettings
from openqrm.plugins.storage.nfs.servers.ganesha import state as ganesha

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.script_export import ExportFacts


class NfsExport(ScriptLender):
    """Hands a directory to exactly one client address, by nfs-ganesha or the kernel's NFS server."""

    package = "openqrm.plugins.storage.nfs"
    scripts = ("shell:say", "shell:durable", "shell:runs", "servers/ganesha/server", "servers/kernel/server", "export")
    seconds = 60

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """REVOKE_PROOF holds for nfs-ganesha, and for the kernel's server if it can expire a client (Linux 5.3)."""
        if capability is not Cap.REVOKE_PROOF:
            return True
        found = self.found(context, facts)
        server = _server(context, found)
        return server == "ganesha" or (server == "kernel" and "expires" in found.has)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """What the servers serve or will serve: ours, and by hand of the pool, in it and around it. ConflictError."""
        found = self.found(context, facts)
        ganesha.check_answers(context, found)
        place = context.pool.place if isinstance(context.pool, Placed) else "/"
        # Volumes of a volume group or a dataset are mounted somewhere below its own name.
        root = place if place.startswith("/") else f"/{place.partition('/')[0]}"
        return [one for one in found.grants if one.volume or _below(one.location, root) or _below(root, one.location)]

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The export path."""
        del context, volume
        return location

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs, and the image's line in /etc/fstab."""
        del volume, client
        options = _settings(context).mount_options
        return {
            "ROOT_SERVER": context.address,
            "ROOT_PATH": location,
            "ROOT_OPTIONS": options,
            "FSTAB": f"{context.address}:{location} / nfs4 rw,{options} 0 0",
        }

    def lent(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs to read it: at a path of its own by nfs-ganesha, which the kernel's cannot have."""
        return {
            "ROOT_SERVER": context.address,
            "ROOT_PATH": location,
            "ROOT_LENT_PATH": f"/openqrm-lent/{volume.id}/{self.known_as(client).replace(':', '-')}",
            "ROOT_OPTIONS": f"ro,{_settings(context).mount_options}",
        }

    def about_host(self, context: StorageContext) -> tuple[str, ...]:
        """The folders that the servers read when they start."""
        settings = _settings(context)
        return settings.ganesha_exports, settings.kernel_exports

    def known_as(self, client: Client) -> str:
        """Its address. InvalidError."""
        return address_of(client)

    def made_with(self, context: StorageContext, found: ExportFacts) -> tuple[str, ...]:
        """The server that grants."""
        return (_server(context, found),)

    def parse(self, output: str) -> ExportFacts:
        """Files that the servers read, and answers of those that run. ValueError."""
        return parse_export(output)

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        """There is a server whose exports outlive its restart. MissingDependencyError, UnsupportedError."""
        server = _server(context, found)
        if not server:
            raise MissingDependencyError(
                f"the host of storage {context.storage.name} has no NFS server",
                remedy="apt-get install nfs-ganesha nfs-ganesha-vfs (or nfs-kernel-server) on it",
            )
        if server == "ganesha":
            ganesha.check_ready(context, found, _settings(context).ganesha_exports)


def _settings(context: StorageContext) -> NfsSettings:
    assert isinstance(context.export, NfsSettings)  # noqa: S101  # the declaration's spec
    return context.export


def _server(context: StorageContext, found: ExportFacts) -> str:
    """The one that is to grant: one that runs before one that does not. Empty when the host has none."""
    if (wanted := _settings(context).server) != "auto":
        return wanted
    order = [(server, state) for state in ("running", "installed") for server in ("ganesha", "kernel")]
    return next((server for server, state in order if found.has.get(server) == state), "")


def _below(path: str, place: str) -> bool:
    """Whether a path is that directory or in it."""
    return f"{path.rstrip('/')}/".startswith(f"{place.rstrip('/')}/")
