"""A volume with a tenth of the golden one's files, for tests that copy images file by file on emulated machines."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.testing.manifest import manifest
from openqrm.testing.site import SiteError

if TYPE_CHECKING:
    from openqrm.testing.site import Site

NAME = "small"
_NEEDLESS = (
    "boot usr/share/perl usr/share/perl5 usr/lib/x86_64-linux-gnu/perl* usr/lib/x86_64-linux-gnu/gconv var/lib/dpkg "
    "usr/share/bash-completion usr/lib/modules usr/share/doc usr/share/locale usr/lib/locale usr/lib/terminfo "
    "usr/lib/apt var/lib/apt usr/share/keyrings usr/share/common-licenses usr/share/pam usr/lib/systemd"
)
ODD = (
    "mkdir -p opt/odd && cd opt/odd && echo secret >key && chown 1234:4321 key && chmod 4710 key && ln key second-name "
    "&& ln -s /etc/hostname link && mkfifo pipe && truncate -s 64M hole && echo end >>hole && mkdir locked "
    "&& chmod 0700 locked && chown 7:7 locked && touch -d 2001-02-03 locked/old"
)
"""Makes what is easily lost in a copy, in an image's root."""

ATTRIBUTES = (
    "# file: opt/odd/key",
    "security.capability=0x0100000200200000000000000000000000000000",
    "user.note=0x6b657074",
    "",
    "# file: opt/odd/locked",
    "user.note=0x00ff",
)
"""Extended attributes of that, as an image on NFS has them in `.openqrm-attributes`."""


def small_volume(site: Site) -> str:
    """Make volume and image `small` on nfs1; returns its directory on the storage host.

    It is golden without what no appliance of a test needs, and with what is easily lost in a copy; extended attributes
    are in the file in which NFS storages keep them. Only the modules that a machine uses come into it.
    """
    site("volume", "clone", "golden", "--name", NAME)
    place = f"/srv/openqrm/{NAME}"
    site.on_storage(f"cd {place} && rm -rf {_NEEDLESS} && echo IMAGE_MODULES=loaded >etc/openqrm/image.env && {ODD}")
    site.on_storage(f"printf '%s\\n' {shlex.join(ATTRIBUTES)} >{place}/.openqrm-attributes")
    site("image", "create", "--name", NAME, "--volume-id", NAME)
    return place


def manifest_on_storage(site: Site, directory: str) -> dict[str, str]:
    """The manifest of a directory on the storage host, by path. SiteError while that host is off."""
    record = site.lab.running("storage")
    if record is None:
        raise SiteError("the storage host is off")
    return manifest(Path(f"/proc/{record.pid}/root{directory}"))


def all_idle(site: Site) -> None:
    """End whatever a test left running, so that the next one finds its machines; images and volumes stay."""
    for item in site("appliance", "list")["items"]:
        if item["phase"] != "stopped":
            site.operation(site("appliance", "stop", item["name"], "--no-wait")["id"])
        site("appliance", "remove", item["name"])
    site.idle()
