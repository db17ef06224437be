"""Planner of the iSCSI export: facts in, steps out.

One target for each volume, one unit in it, one initiator that may log in: by its name, and with a secret that is made
for this grant. An address proves nothing here, and tgt lets in whoever fits either, so none is bound.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from openqrm.domain.errors import InvalidError, MissingDependencyError, UnsupportedError
from openqrm.plugin_api.drivers import SanDisk
from openqrm.plugin_api.script_export import ScriptExport, mac_of
from openqrm.plugins.storage.iscsi.facts import PREFIX, parse_iscsi
from openqrm.plugins.storage.iscsi.plugin import IscsiSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.script_export import ExportFacts
    from openqrm.plugin_api.steps import Steps

LIO = ("servers/lio/server", "servers/lio/program", "servers/lio/end")
"""A function of the shell, with a program in Python in it."""
LUN = 1
"""Of every volume, in its own target. tgt keeps 0 for itself."""
CHAP = "chap"
PLACES = r"^(/[A-Za-z0-9_][A-Za-z0-9._+@-]*)+$"
"""Paths that need no quoting in the configuration of any server."""


class IscsiExport(ScriptExport):
    """Hands a device or an image file to exactly one initiator, by tgt or by the kernel's server (LIO)."""

    package = "openqrm.plugins.storage.iscsi"
    scripts = ("shell:say", "shell:durable", "shell:runs", "servers/tgt/server", *LIO, "export")
    secret = CHAP
    seconds = 60
    parse = staticmethod(parse_iscsi)

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """A target of its own for one initiator. InvalidError for a path that cannot be configured."""
        if not re.fullmatch(PLACES, location):
            raise InvalidError(f"{location} cannot be written into a server's configuration", field="name")
        return super().authorize(context, volume, location, client, generation, facts)

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        """There is a server, and what it gives outlives it. MissingDependencyError, UnsupportedError."""
        (server,), name = self.made_with(context, found), context.storage.name
        if server == "none":
            raise MissingDependencyError(
                f"the host of storage {name} has no iSCSI server",
                remedy="apt-get install tgt (or python3-rtslib-fb, for the kernel's) on it",
            )
        if server == "tgt" and "persistent" not in found.has:
            raise UnsupportedError(
                f"targets would be lost when tgtd on the host of storage {name} restarts: "
                "tgt-admin does not read /etc/tgt/conf.d",
                remedy="add the line `include /etc/tgt/conf.d/*.conf` to /etc/tgt/targets.conf",
            )

    def known_as(self, client: Client) -> str:
        """A machine's own name: its MAC, which is what a machine has before it has anything else. InvalidError."""
        return f"{PREFIX}:client-{mac_of(client).replace(':', '')}"

    def about_grant(self, context: StorageContext, volume: Volume, client: Client) -> tuple[str, ...]:
        """The port that LIO shall listen on."""
        del volume, client
        return (str(_settings(context).port),)

    def made_with(self, context: StorageContext, found: ExportFacts) -> tuple[str, ...]:
        """The server."""
        wanted = _settings(context).server
        return (found.has["server"] if wanted == "auto" else wanted,)

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
            "ROOT_INITIATOR": self.known_as(client),
            "ROOT_USER": user(volume),
            "FSTAB": f"/dev/disk/by-path/ip-{portal}:{port}-iscsi-{target(volume)}-lun-{LUN} / auto rw 0 0",
        }

    def san(self, context: StorageContext, volume: Volume, location: str, client: Client) -> SanDisk:
        """As iPXE attaches it (RFC 4173; the LUN in hexadecimal)."""
        del location
        host = f"[{context.address}]" if ":" in context.address else context.address
        uri = f"iscsi:{host}:6:{_settings(context).port}:{LUN:x}:{target(volume)}"
        return SanDisk(uri, self.known_as(client), user(volume), secret=CHAP)


def target(volume: Volume) -> str:
    """The IQN of a volume."""
    return f"{PREFIX}:volume-{volume.id}"


def user(volume: Volume) -> str:
    """Who logs in, under the volume's last lease; `authorize` is told that generation."""
    return f"volume-{volume.id}-g{volume.generation}"


def _settings(context: StorageContext) -> IscsiSettings:
    assert isinstance(context.export, IscsiSettings)  # noqa: S101  # the declaration's spec
    return context.export
