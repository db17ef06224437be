"""iPXE scripts as text (https://ipxe.org/scripting). Pure; nothing from a record or a request gets in unchecked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from openqrm.domain.errors import InvalidError
from openqrm.domain.kernel import LINE_RULE, fits_line

if TYPE_CHECKING:
    from openqrm.domain.machine import Handover
    from openqrm.netboot.decisions import BootDecision

PLATFORMS = ("pcbios", "efi")
_RETRY_SECONDS = 15


def check_word(word: str) -> str:
    """A word fit for an iPXE line, unchanged; InvalidError for one that iPXE would take for something else."""
    if not fits_line(word):
        raise InvalidError(
            f"{word!r} cannot stand on a boot script's kernel line",
            field="arguments",
            remedy=LINE_RULE,
        )
    return word


def entry(boot_url: str) -> str:
    """What every machine loads first: chain to its own script, for ever, since a controller may be away.

    A script that ends well leaves the machine to its firmware, which goes on with its next boot device.
    """
    url = check_word(boot_url)
    return "\n".join(
        (
            "#!ipxe",
            ":again",
            f"chain --autofree {url}/boot/script/${{netX/mac:hexhyp}}?platform=${{platform}} || goto wait",
            "exit 0",
            ":wait",
            "imgfree",
            f"echo openQRM: no boot script, trying again in {_RETRY_SECONDS} seconds",
            f"sleep {_RETRY_SECONDS}",
            "goto again",
            "",
        )
    )


def nothing_to_boot(reason: str) -> str:
    """Says why there is nothing to boot; the entry script asks again."""
    shown = re.sub(r"[^A-Za-z0-9 .,:_-]", " ", reason)[:200]
    return f"#!ipxe\necho openQRM: {shown}\nexit 1\n"


def hand_over(disk: Handover) -> str:
    """Boots a disk on a SAN, or the machine's first own one. One that cannot be booted yet, because nothing is
    installed on it, stays attached, and the firmware goes on with its next device: that installs on it.
    """
    if not disk.uri:
        # A UEFI goes on by itself: its next boot entry is the disk's.
        boot = "iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||"
        return f"#!ipxe\necho openQRM: booting from the first disk\n{boot}\nexit 0\n"
    names = (("initiator-iqn", disk.initiator), ("username", disk.user), ("password", disk.password))
    uri = check_word(disk.uri)
    return "\n".join(
        (
            "#!ipxe",
            "echo openQRM: booting from the SAN",
            *(f"set {name} {check_word(text)}" for name, text in names if text),
            f"sanhook --drive 0x80 {uri} || exit 1",
            "sanboot --no-describe --drive 0x80 ||",
            "echo openQRM: nothing to boot on it yet: going on with the next device",
            "exit 0",
            "",
        )
    )


def kernel_words(decision: BootDecision, *, boot_url: str, api_url: str, mac: str) -> list[str]:
    """What the kernel is told, without the names of initrds. InvalidError for words that cannot be on a line."""
    name = quote(decision.kernel.name if decision.kernel else "", safe="")
    return [
        f"openqrm.api={check_word(api_url)}",
        f"openqrm.boot={check_word(boot_url)}",
        f"openqrm.mac={check_word(mac)}",
        f"openqrm.kernel={name}",
        *(check_word(word) for word in decision.arguments),
    ]


def boot(decision: BootDecision, *, boot_url: str, api_url: str, mac: str, platform: str) -> str:
    """The script of one machine. `mac` is written with colons; InvalidError for words that cannot be on a line.

    EFI kernels find their initrds by name on their own line. Commands are not guarded: a failing one ends this script
    and the entry script goes on.
    """
    if decision.handover is not None:
        return hand_over(decision.handover)
    if decision.kernel is None:
        return nothing_to_boot(decision.reason)
    name = quote(decision.kernel.name, safe="")
    files = f"{check_word(boot_url)}/boot/kernels/{name}"
    initrds = [("initramfs", f"{files}/initramfs")]
    if decision.ticket:
        initrds.append(("ticket", f"{boot_url}/boot/ticket/{mac.replace(':', '-')}"))
    initrds += [(f"extra{number}", check_word(url)) for number, url in enumerate(decision.extra_initrds)]
    words = kernel_words(decision, boot_url=boot_url, api_url=api_url, mac=mac)
    if platform == "efi":
        words = [*(f"initrd={label}" for label, _ in initrds), *words]
    line = " ".join(words)
    if decision.before_kernel:
        # The kernel becomes the first module of what is loaded in its place.
        start = [f"imgselect {check_word(decision.before_kernel)}", f"imgfetch --name vmlinuz {files}/vmlinuz {line}"]
        start += [f"imgfetch --name {label} {url}" for label, url in initrds]
    else:
        start = [f"kernel --name vmlinuz {files}/vmlinuz {line}"]
        start += [f"initrd --name {label} {url}" for label, url in initrds]
    return "\n".join(("#!ipxe", f"echo openQRM: booting {name}", *start, "boot", ""))
