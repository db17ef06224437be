"""Planner of the iSCSI export: facts in, steps out.

One target for each volume, one unit in it, one initiator that may log in: by its name, and with a secret that is made
for this grant. An address proves nothing here, and tgt lets in whoever fits either, so none is bound.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import InvalidError, MissingDependencyError, UnsupportedError
from openqrm.plugin_api.drivers import Placed, SanDisk
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run
from openqrm.plugins.storage.iscsi.facts import PREFIX, grants_of, iscsi_fact, script
from openqrm.plugins.storage.iscsi.plugin import IscsiSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, Grant, StorageContext
    from openqrm.plugin_api.facts import Fact, Facts
    from openqrm.plugin_api.steps import Steps

LUN = 1
"""Of every volume, in its own target. tgt keeps 0 for itself."""
SECONDS = 60
CHAP = "chap"
PLACES = r"^(/[A-Za-z0-9_][A-Za-z0-9._+@-]*)+$"
"""Paths that need no quoting in the configuration of any server."""


class IscsiExport:
    """Hands a device or an image file to exactly one initiator, by tgt or by the kernel's server (LIO)."""

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """The server software, and the grants there are."""
        return (iscsi_fact(context),)

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """What both servers give now, sessions that are open, and what is in their configuration."""
        place = context.pool.place if isinstance(context.pool, Placed) else ""
        return grants_of(facts.get(iscsi_fact(context)), place)

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """A target of its own for one initiator. Takes the volume from whoever had it. Undo revokes.

        InvalidError for a client without MAC, MissingDependencyError, UnsupportedError.
        """
        server = self._server(context, facts)
        if not re.fullmatch(PLACES, location):
            raise InvalidError(f"{location} cannot be written into a server's configuration", field="name")
        settings = _settings(context)
        words = (server, str(volume.id), location, initiator(client), str(generation), str(settings.port))
        granted = Run(
            name="authorize",
            title=f"Give {location} to {client.name} over iSCSI",
            host=context.host,
            # The script is an argument here, because the secret is on standard input.
            do=Command(argv=("sh", "-c", script("grant"), "grant", *words), input=client.secrets[CHAP]),
            undo=_revocation(volume.id),
            gate=Gate(volume=f"volume-{volume.id}", generation=generation),
            timeout=SECONDS,
        )
        return (granted,)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """No server of the host gives it any more, its sessions are closed, and each server said so."""
        del facts  # both servers are asked, whichever runs: the host's software may have changed since the grant
        revoked = Run(
            name="revoke",
            title=f"Take {location} back from {client.name}",
            host=context.host,
            do=_revocation(volume.id),
            undo=Irreversible(reason="access that was taken back is granted anew, under a new lease"),
            gate=Gate(volume=f"volume-{volume.id}", generation=generation),
            timeout=SECONDS,
        )
        return (revoked,)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """A target of ours that no lease knows goes as a whole; of what was made by hand, this client or this unit."""
        del facts  # as for revoke
        if grant.volume:
            taken = _revocation(int(grant.volume.removeprefix("volume-")))
        else:
            taken = Command(argv=("sh", "-s", "--", grant.location, grant.client), input=script("withdraw"))
        withdrawn = Run(
            name="withdraw",
            title=f"Take {grant.location} back from {grant.client}",
            host=context.host,
            do=taken,
            undo=Irreversible(reason="no lease knows this access"),
            timeout=SECONDS,
        )
        return (withdrawn,)

    def root_device(self, context: StorageContext, volume: Volume, location: str) -> str:
        """IQN and LUN."""
        del context, location
        return f"{target(volume)}/{LUN}"

    def attach(self, context: StorageContext, volume: Volume, location: str, client: Client) -> Mapping[str, str]:
        """What `root-mount` needs, and the image's line in /etc/fstab, by the name that udev gives the device."""
        del location
        portal, port = context.address, _settings(context).port
        return {
            "ROOT_PORTAL": portal,
            "ROOT_PORT": str(port),
            "ROOT_TARGET": target(volume),
            "ROOT_LUN": str(LUN),
            "ROOT_INITIATOR": initiator(client),
            "ROOT_USER": user(volume),
            "FSTAB": f"/dev/disk/by-path/ip-{portal}:{port}-iscsi-{target(volume)}-lun-{LUN} / auto rw 0 0",
        }

    def san(self, context: StorageContext, volume: Volume, location: str, client: Client) -> SanDisk:
        """As iPXE attaches it (RFC 4173; the LUN in hexadecimal)."""
        del location
        host = f"[{context.address}]" if ":" in context.address else context.address
        uri = f"iscsi:{host}:6:{_settings(context).port}:{LUN:x}:{target(volume)}"
        return SanDisk(uri, initiator(client), user(volume), secret=CHAP)

    def _server(self, context: StorageContext, facts: Facts) -> str:
        found, name = facts.get(iscsi_fact(context)), context.storage.name
        wanted = _settings(context).server
        server = found.server if wanted == "auto" else wanted
        if server == "none":
            raise MissingDependencyError(
                f"the host of storage {name} has no iSCSI server",
                remedy="apt-get install tgt (or python3-rtslib-fb, for the kernel's) on it",
            )
        if server == "tgt" and not found.persistent:
            raise UnsupportedError(
                f"targets would be lost when tgtd on the host of storage {name} restarts: "
                "tgt-admin does not read /etc/tgt/conf.d",
                remedy="add the line `include /etc/tgt/conf.d/*.conf` to /etc/tgt/targets.conf",
            )
        return server


def initiator(client: Client) -> str:
    """A machine's own name: its MAC, which is what a machine has before it has anything else. InvalidError."""
    if not re.fullmatch(r"([0-9A-Fa-f]{2}[:-]?){5}[0-9A-Fa-f]{2}", client.mac):
        raise InvalidError(f"{client.name} has no MAC to be known by", remedy=f"give resource {client.name} a MAC")
    return f"{PREFIX}:client-{re.sub('[:-]', '', client.mac).lower()}"


def target(volume: Volume) -> str:
    """The IQN of a volume."""
    return f"{PREFIX}:volume-{volume.id}"


def user(volume: Volume) -> str:
    """Who logs in, under the volume's last lease; `authorize` is told that generation."""
    return f"volume-{volume.id}-g{volume.generation}"


def _revocation(volume_id: int) -> Command:
    return Command(argv=("sh", "-s", "--", str(volume_id)), input=script("revoke"))


def _settings(context: StorageContext) -> IscsiSettings:
    assert isinstance(context.export, IscsiSettings)  # noqa: S101  # the declaration's spec
    return context.export
