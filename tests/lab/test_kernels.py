"""Kernels: one that is not there is named, another one is entered by kexec."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]


def test_a_kernel_whose_files_are_not_there_is_refused_by_the_field(site: Site) -> None:
    root = str(site.ingredients.kernel.root)
    refused = site.refusal("kernel", "add", "-n", "ghost", "-v", "9.9.9-none", "-l", root)
    error = refused.problem["error"]
    assert error["field"] == "version"
    assert f"{root}/boot/vmlinuz-9.9.9-none does not exist" in error["detail"]
    assert [kernel["name"] for kernel in site("kernel", "list")["items"]] == ["lab"]
    for wrong in ("../../etc", "6.1; reboot", "", "x" * 300):
        refused = site.refusal("kernel", "add", "-n", "ghost", "-v", wrong, "-l", root)
        assert (refused.code, refused.problem["field"]) == (2, "version"), wrong


@pytest.fixture
def other_kernel(site: Site) -> Iterator[str]:
    """The same files under another name, with an argument that tells them apart."""
    kernel = site.ingredients.kernel
    site("kernel", "add", "-n", "other", "-v", kernel.version, "-l", str(kernel.root), "--arguments", "other=1")
    yield "other"
    if site("appliance", "list")["items"]:
        site.as_found()
    site("kernel", "remove", "other")


@pytest.mark.slow_lab
def test_another_kernel_is_entered_without_the_firmware(site: Site, other_kernel: str) -> None:
    first, _ = site.idle()
    console = site.lab.node(site.node_of(first)).serial_log
    starts = console.read_text(errors="replace").count("SeaBIOS")
    site.make("web", "--kernel-id", other_kernel, "--resource-id", first["name"])
    site("appliance", "start", "web")
    assert site.page(first["address"])["host"] == "web"
    line = site.ssh(first["address"], "cat /proc/cmdline")
    assert "other=1" in line.split()
    assert f"openqrm.kernel={other_kernel}" in line.split()
    site("appliance", "stop", "web")
    site.nothing_left()
    (again, _) = site.idle()
    assert "openqrm.kernel=lab" in site.ssh(again["address"], "cat /proc/cmdline").split()
    assert console.read_text(errors="replace").count("SeaBIOS") == starts, "the firmware ran"
