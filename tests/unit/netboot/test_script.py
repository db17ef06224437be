"""iPXE scripts as text, and what must never get into one."""

from __future__ import annotations

import pytest

from openqrm.domain.errors import InvalidError
from openqrm.domain.kernel import Kernel
from openqrm.domain.machine import Handover
from openqrm.netboot import script
from openqrm.netboot.decisions import BootDecision

KERNEL = Kernel(id=1, name="default", version="6.1")
FILES = "http://10.99.0.1:8080/boot/kernels/default"
OURS = (
    "openqrm.api=https://10.99.0.1:8443 openqrm.boot=http://10.99.0.1:8080 "
    "openqrm.mac=52:54:00:00:00:01 openqrm.kernel=default"
)


def rendered(decision: BootDecision, platform: str = "pcbios") -> list[str]:
    text = script.boot(
        decision,
        boot_url="http://10.99.0.1:8080",
        api_url="https://10.99.0.1:8443",
        mac="52:54:00:00:00:01",
        platform=platform,
    )
    assert text.startswith("#!ipxe\n")
    assert text.endswith("boot\n")
    return text.splitlines()


def test_an_idle_machine_on_bios() -> None:
    assert rendered(BootDecision(KERNEL, ("quiet",)))[2:] == [
        f"kernel --name vmlinuz {FILES}/vmlinuz {OURS} quiet",
        f"initrd --name initramfs {FILES}/initramfs",
        "boot",
    ]


def test_efi_names_every_initrd_on_the_kernel_line_in_order() -> None:
    lines = rendered(BootDecision(KERNEL, ticket=True, extra_initrds=("http://a/one",)), "efi")
    assert " initrd=initramfs initrd=ticket initrd=extra0 openqrm.api=" in lines[2]
    assert lines[3:6] == [
        f"initrd --name initramfs {FILES}/initramfs",
        "initrd --name ticket http://10.99.0.1:8080/boot/ticket/52-54-00-00-00-01",
        "initrd --name extra0 http://a/one",
    ]


def test_a_hypervisor_stands_in_front_of_the_kernel() -> None:
    lines = rendered(BootDecision(KERNEL, ("nosmt",), before_kernel="http://a/xen.gz"))
    assert lines[2] == "imgselect http://a/xen.gz"
    assert lines[3].startswith(f"imgfetch --name vmlinuz {FILES}/vmlinuz openqrm.api=")
    assert lines[4] == f"imgfetch --name initramfs {FILES}/initramfs"
    assert not any(line.startswith(("kernel", "initrd")) for line in lines), "an agent must not kexec half of it"


def test_no_line_guards_a_command_since_agents_read_the_kernel_line_too() -> None:
    assert not any("||" in line for line in rendered(BootDecision(KERNEL, ("quiet",), ticket=True)))


@pytest.mark.parametrize(
    "word",
    ["", "a b", "a\nboot http://evil", "${net0/ip}", "x${y}", "||", "&&", ";", "#x", "a\tb", "ä", "a\0", "a\x7f"],
)
def test_a_word_that_ipxe_would_take_for_something_else_is_refused(word: str) -> None:
    with pytest.raises(InvalidError):
        rendered(BootDecision(KERNEL, (word,)))
    with pytest.raises(InvalidError):
        rendered(BootDecision(KERNEL, extra_initrds=(word,)))


@pytest.mark.parametrize("word", ["root=/dev/nfs", "a;b", "a||b", "x$y", "console=ttyS0,115200n8", "isolcpus=1-3,5"])
def test_ordinary_kernel_arguments_pass(word: str) -> None:
    assert word in rendered(BootDecision(KERNEL, (word,)))[2].split()


def test_nothing_to_boot_is_said_and_the_script_fails_so_that_the_entry_asks_again() -> None:
    text = script.nothing_to_boot("no kernel; ${is} ||here\n")
    assert text == "#!ipxe\necho openQRM: no kernel    is    here \nexit 1\n"


def test_the_entry_chains_by_mac_and_platform_and_never_gives_up() -> None:
    text = script.entry("http://10.99.0.1:8080")
    assert "http://10.99.0.1:8080/boot/script/${netX/mac:hexhyp}?platform=${platform}" in text
    assert text.splitlines()[-1] == "goto again"
    assert "exit 0" in text.splitlines(), "a script that ends well leaves the machine to its firmware"


def test_a_machine_of_its_own_disks_is_left_to_them() -> None:
    decision = BootDecision(None, handover=Handover())
    lines = script.boot(decision, boot_url="http://b", api_url="https://a", mac="m", platform="efi").splitlines()
    assert lines[-2:] == ["iseq ${platform} pcbios && sanboot --no-describe --drive 0x80 ||", "exit 0"]
    assert not any("kernel" in line for line in lines)


def test_a_disk_on_a_san_is_attached_before_it_is_booted_and_stays_so() -> None:
    disk = Handover("iscsi:10.99.0.2::3260:1:iqn.2004-03.org.openqrm:volume-7", "iqn.x:client", "volume-7", "hush")
    text = script.hand_over(disk)
    assert "set initiator-iqn iqn.x:client\nset username volume-7\nset password hush\nsanhook --drive" in text
    assert text.index("sanhook") < text.index("sanboot") < text.index("exit 0")
    assert "hush" not in repr(disk)
    with pytest.raises(InvalidError):
        script.hand_over(Handover("aoe:e1.1", password="a\nsanboot evil"))


def test_a_disk_without_a_password_sets_none() -> None:
    assert "set " not in script.hand_over(Handover("aoe:e1.1"))
