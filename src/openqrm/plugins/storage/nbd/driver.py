"""Planner of the NBD export: facts in, steps out.

Every grant is one nbdkit process on the storage host, with a key that one machine knows. Short shell scripts, run
behind the host gate, write down what is granted, start the process and see that it serves, or end it and see that it
is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import InvalidError, MissingDependencyError
from openqrm.domain.network import plain_ip
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.nbd.facts import export_fact, script
from openqrm.plugins.storage.nbd.plugin import FEWEST_PORTS, NbdSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant, StorageContext
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

GRANT_SECONDS = 90
_STRIDE = 257
"""Apart from each other: volumes made one after the other do not compete for the same ports."""


def ports(volume: Volume, settings: NbdSettings) -> tuple[int, ...]:
    """Where a volume may be served: the host takes the first that is free, a machine tries all with its key."""
    count = settings.last_port - settings.first_port + 1
    found = dict.fromkeys((volume.id + number * _STRIDE) % count for number in range(FEWEST_PORTS))
    return tuple(settings.first_port + each for each in list(found)[: FEWEST_PORTS // 2])


class NbdExport:
    """Hands a block device or an image file to exactly one machine, which knows the key of the grant."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """The server software, and the grants there are."""
        return (export_fact(context),)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """What is written down, and whatever other NBD server runs on a file or device of the pool."""
        return facts.get(export_fact(context)).grants

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One key, read and write. Takes it from whoever had it. Undo revokes.

        InvalidError for a client without address or key, MissingDependencyError.
        """
        self._ready(context, facts)
        if "psk" not in client.secrets:
            raise InvalidError(f"there is no key for {client.name}")
        choice = " ".join(map(str, ports(volume, _export(context))))
        grant = (location, context.address, _address(client), str(generation))
        text = script("exports", "export-grant")
        words = (script("exporter"), f"volume-{volume.id}", choice, *grant)
        granted = Run(
            name="authorize",
            title=f"Export {location} to {client.name} ({client.address})",
            host=context.host,
            do=Command(argv=("sh", "-c", text, "export-grant", *words), input=client.secrets["psk"]),
            undo=_shell("export-revoke", (f"volume-{volume.id}", location)),
            gate=_gate(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (granted,)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No process of the host exports it any more."""
        del facts  # the host is asked when it is done, whatever software it had before
        revoked = Run(
            name="revoke",
            title=f"Take {location} back from {client.name}",
            host=context.host,
            do=_shell("export-revoke", (f"volume-{volume.id}", location)),
            undo=Irreversible(reason="access that was taken back is granted anew, under a new lease"),
            gate=_gate(volume, generation),
            timeout=GRANT_SECONDS,
        )
        return (revoked,)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """A grant that was written down is revoked; processes that somebody started are ended."""
        del facts
        name, first = ("export-revoke", grant.volume) if grant.volume else ("export-withdraw", grant.client)
        withdrawn = Run(
            name="withdraw",
            title=f"End the export of {grant.location} to {grant.client}",
            host=context.host,
            do=_shell(name, (first, grant.location)),
            undo=Irreversible(reason="no lease knows of this access"),
            timeout=GRANT_SECONDS,
        )
        return (withdrawn,)

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """The name of the NBD export."""
        del context, location
        return f"volume-{volume.id}"

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs beside the key, and the image's line in /etc/fstab."""
        del client
        return {
            "ROOT_SERVER": context.address,
            "ROOT_PORTS": " ".join(map(str, ports(volume, _export(context)))),
            "ROOT_EXPORT": self.root_device(context, volume, location),
            "FSTAB": "/dev/nbd0 / auto rw 0 0",
        }

    def _ready(self, context: StorageContext, facts: Facts) -> None:
        found = facts.get(export_fact(context))
        if not (found.nbdkit and found.tls):
            what = "an nbdkit without TLS" if found.nbdkit else "no nbdkit"
            raise MissingDependencyError(
                f"the host of storage {context.storage.name} has {what}", remedy="apt-get install nbdkit on it"
            )


def _export(context: StorageContext) -> NbdSettings:
    assert isinstance(context.export, NbdSettings)  # noqa: S101  # the declaration's spec
    return context.export


def _gate(volume: Volume, generation: int) -> Gate:
    return Gate(volume=f"volume-{volume.id}", generation=generation)


def _shell(name: str, arguments: tuple[str, ...]) -> Command:
    return Command(argv=("sh", "-s", "--", *arguments), input=script("exports", name))


def _address(client: Client) -> str:
    """Whom the grant is for; it is the key that admits it."""
    try:
        return plain_ip(client.address)
    except ValueError:
        raise InvalidError(
            f"{client.name} has no address to export to", remedy=f"give resource {client.name} an address"
        ) from None
