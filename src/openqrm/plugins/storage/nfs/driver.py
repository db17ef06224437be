"""Planner of the NFS export: facts in, steps out.

Each verb is one command on the storage host: a short shell script, given as input, which is idempotent and leaves
either nothing or the whole. It runs behind the host gate, so that it is not half overtaken by another controller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import (
    ConflictError,
    InvalidError,
    MissingDependencyError,
    UnsupportedError,
)
from openqrm.domain.network import plain_ip
from openqrm.plugin_api.drivers import Cap, Grant, Placed, StorageContext
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.nfs.facts import ExportFacts, export_fact, script
from openqrm.plugins.storage.nfs.plugin import NfsSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

GRANT_SECONDS = 60


def gate_of(volume: Volume, generation: int) -> Gate:
    """One gate for everything about a volume, its data and its grants."""
    return Gate(volume=f"volume-{volume.id}", generation=generation)


class NfsExport:
    """Hands a directory to exactly one client address, by nfs-ganesha or the kernel's NFS server."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """The server software, and the grants there are."""
        return (export_fact(context, _export(context)),)

    def confirms(self, capability: Cap, context: StorageContext, facts: Facts) -> bool:
        """REVOKE_PROOF holds for nfs-ganesha, and for the kernel's server if it can expire a client (Linux 5.3)."""
        if capability is not Cap.REVOKE_PROOF:
            return True
        server = self._server(context, facts)
        return server == "ganesha" or (server == "kernel" and self._found(context, facts).expires)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """What the servers serve or will serve: ours, and by hand of the pool, in it and around it. ConflictError."""
        found = self._found(context, facts)
        if found.silent:
            raise ConflictError(
                f"nfs-ganesha on the host of storage {context.storage.name} runs and does not answer",
                remedy="try again; if it stays so, restart it",
            )
        place = context.pool.place if isinstance(context.pool, Placed) else "/"
        # Volumes of a volume group or a dataset are mounted somewhere below its own name.
        root = place if place.startswith("/") else f"/{place.partition('/')[0]}"
        return [
            Grant(one.volume, one.client, one.generation, one.path, writes=one.writes)
            for one in found.given
            if one.volume or _below(one.path, root) or _below(root, one.path)
        ]

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One client, read and write, root as root. Takes it from whoever had it. Undo revokes.

        InvalidError for a client without address, MissingDependencyError, ConflictError.
        """
        granted = Run(
            name="authorize",
            title=f"Export {location} to {client.name} ({client.address})",
            host=context.host,
            do=self._grant(context, volume, location, client, str(generation), facts),
            undo=self._revocation(context, volume, location),
            gate=gate_of(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (granted,)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No server of the host exports it any more, and each one said so."""
        del facts  # both servers are asked, whichever runs: the host's software may have changed since the grant
        revoked = Run(
            name="revoke",
            title=f"Take {location} back from {client.name}",
            host=context.host,
            do=self._revocation(context, volume, location),
            undo=Irreversible(reason="access that was taken back is granted anew, under a new lease"),
            gate=gate_of(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (revoked,)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """Out of the servers' configuration, and out of those that run."""
        del facts
        arguments = (*self._tables(context), grant.location, grant.client)
        withdrawn = Run(
            name="withdraw",
            title=f"Take {grant.location} back from {grant.client}",
            host=context.host,
            do=_shell(script("exports", "export-withdraw"), arguments),
            undo=Irreversible(reason="nobody knows why this access was given"),
            timeout=GRANT_SECONDS,
        )
        return (withdrawn,)

    def lend(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """One more client may read, root as root; nobody else notices. Undo reclaims. The errors of `authorize`."""
        lent = Run(
            name="lend",
            title=f"Export {location} to {client.name} ({client.address}) to read",
            host=context.host,
            do=self._grant(context, volume, location, client, "lent", facts),
            undo=self._revocation(context, volume, location, _address(client)),
            gate=gate_of(volume, volume.generation),
            timeout=GRANT_SECONDS,
        )
        return (lent,)

    def reclaim(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """It is no longer exported to this client to read; nobody else notices."""
        del facts
        reclaimed = Run(
            name="reclaim",
            title=f"Take {location} back from {client.name}, which read it",
            host=context.host,
            do=self._revocation(context, volume, location, _address(client)),
            undo=Irreversible(reason="it is lent anew when it is needed"),
            gate=gate_of(volume, volume.generation),
            timeout=GRANT_SECONDS,
        )
        return (reclaimed,)

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The export path."""
        del context, volume
        return location

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs, and the image's line in /etc/fstab."""
        del volume, client
        options = _export(context).mount_options
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
            "ROOT_LENT_PATH": f"/openqrm-lent/{volume.id}/{_address(client).replace(':', '-')}",
            "ROOT_OPTIONS": f"ro,{_export(context).mount_options}",
        }

    def _grant(
        self, context: StorageContext, volume: Volume, location: str, client: Client, kind: str, facts: Facts
    ) -> Command:
        server = self._server(context, facts)
        self._ready(context, facts, server)
        arguments = (*self._tables(context), str(volume.id), location, _address(client), kind, server)
        return _shell(script("exports", "export-grant"), arguments)

    def _revocation(self, context: StorageContext, volume: Volume, location: str, reader: str = "") -> Command:
        arguments = (*self._tables(context), str(volume.id), location, *([reader] if reader else []))
        return _shell(script("exports", "export-revoke"), arguments)

    @staticmethod
    def _tables(context: StorageContext) -> tuple[str, str]:
        settings = _export(context)
        return settings.ganesha_exports, settings.kernel_exports

    def _found(self, context: StorageContext, facts: Facts) -> ExportFacts:
        return facts.get(export_fact(context, _export(context)))

    def _server(self, context: StorageContext, facts: Facts) -> str:
        wanted = _export(context).server
        return self._found(context, facts).server if wanted == "auto" else wanted

    def _ready(self, context: StorageContext, facts: Facts, server: str) -> None:
        found = self._found(context, facts)
        name = context.storage.name
        if server == "none":
            raise MissingDependencyError(
                f"the host of storage {name} has no NFS server",
                remedy="apt-get install nfs-ganesha nfs-ganesha-vfs (or nfs-kernel-server) on it",
            )
        if server != "ganesha":
            return
        if not found.bus:
            raise MissingDependencyError(
                f"the host of storage {name} has nothing to ask nfs-ganesha with",
                remedy="apt-get install dbus-bin on it (or libglib2.0-bin, or systemd)",
            )
        if not found.persistent:
            directory = _export(context).ganesha_exports
            raise UnsupportedError(
                f"exports would be lost when nfs-ganesha on the host of storage {name} restarts: "
                f"it does not read {directory}",
                remedy=f"add the line `%dir {directory}` to /etc/ganesha/ganesha.conf and restart nfs-ganesha",
            )


def _export(context: StorageContext) -> NfsSettings:
    assert isinstance(context.export, NfsSettings)  # noqa: S101  # the declaration's spec
    return context.export


def _shell(text: str, arguments: tuple[str, ...]) -> Command:
    return Command(argv=("sh", "-s", "--", *arguments), input=text)


def _below(path: str, place: str) -> bool:
    """Whether a path is that directory or in it."""
    return f"{path.rstrip('/')}/".startswith(f"{place.rstrip('/')}/")


def _address(client: Client) -> str:
    """A single address and nothing else: what goes into a server's configuration names exactly one client."""
    try:
        return plain_ip(client.address)
    except ValueError:
        raise InvalidError(
            f"{client.name} has no address to export to", remedy=f"give resource {client.name} an address"
        ) from None
