"""What a machine that leaves by kexec is told, and the digests of what it fetches."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.kernel import Kernel
from openqrm.netboot import handover
from openqrm.netboot.decisions import BootDecision

if TYPE_CHECKING:
    from pathlib import Path

KERNEL = Kernel(id=1, name="default", version="6.1")


def test_a_digest_is_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    folder = tmp_path / "kernels/default"
    folder.mkdir(parents=True)
    digests = handover.Digests(tmp_path)
    for content in (b"one", b"another one"):
        (folder / "vmlinuz").write_bytes(content)
        for _ in range(2):
            assert digests("default", "vmlinuz") == hashlib.sha256(content).hexdigest()
    assert digests("default", "initramfs") == ""
    assert digests("../default", "vmlinuz") == ""


def test_the_answer_names_files_digests_and_the_kernel_line() -> None:
    decision = BootDecision(KERNEL, ("quiet",))
    urls = {"boot_url": "http://b", "api_url": "https://a"}
    told = handover.assignments(decision, **urls, mac="52:54:00:00:00:01", digest=lambda *names: "-".join(names))
    assert told == {
        "BOOT_KERNEL": "http://b/boot/kernels/default/vmlinuz",
        "BOOT_KERNEL_SHA256": "default-vmlinuz",
        "BOOT_INITRD": "http://b/boot/kernels/default/initramfs",
        "BOOT_INITRD_SHA256": "default-initramfs",
        "BOOT_ARGS": (
            "openqrm.api=https://a openqrm.boot=http://b openqrm.mac=52:54:00:00:00:01 openqrm.kernel=default quiet"
        ),
    }


@pytest.mark.parametrize(
    "decision",
    [
        BootDecision(None),
        BootDecision(KERNEL, before_kernel="http://b/xen"),
        BootDecision(KERNEL, extra_initrds=("http://b/x",)),
    ],
)
def test_what_only_firmware_can_boot_is_said_so(decision: BootDecision) -> None:
    with pytest.raises(ConflictError):
        handover.assignments(decision, boot_url="http://b", api_url="https://a", mac="m", digest=lambda *_: "")
