"""A real in.tftpd in a network namespace of its own, asked by curl."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError, MissingDependencyError
from openqrm.engine.plugins.process import Log, spawn
from openqrm.plugin_api.calls import ServiceContext
from openqrm.plugin_api.plugin import ServiceCommand
from openqrm.plugins.network.tftpd import service
from openqrm.testing import needs
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture(scope="module")
def here() -> None:
    """What these tests need is on this machine."""
    needs.root_and("in.tftpd", "curl", "ip", "setpriv")
    missing = [name for name in service.LOADERS if not (service.SOURCE / name).exists()]
    if missing:
        needs.lacking(f"needs {', '.join(missing)}")


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"pl-t{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for words in ("set lo up", "add br0 type bridge", "set br0 up"):
            subprocess.run(["ip", "-n", name, "link", *words.split()], check=True)
        # in.tftpd does not take a loopback address where there is no other one.
        subprocess.run(["ip", "-n", name, "addr", "add", "10.98.0.1/24", "dev", "br0"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def fetch(namespace: str, url: str) -> subprocess.CompletedProcess[bytes]:
    command = ["ip", "netns", "exec", namespace, "curl", "-s", "--path-as-is", "--max-time", "2", url]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def context(directory: Path) -> ServiceContext:
    installation = {"boot_dir": str(directory / "boot"), "address": "127.0.0.1"}
    return ServiceContext(MemoryDatabase().read, directory, {}, installation)


async def test_boot_loaders_are_handed_out_and_nothing_else(namespace: str, tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot" / "secret").write_text("not for machines")
    command = await service.prepare(context(tmp_path))
    argv = (word.replace("127.0.0.1", "10.98.0.1") for word in command.argv)
    inside = ServiceCommand(("ip", "netns", "exec", namespace, *argv))
    child = await spawn(inside, tmp_path / "record", Log(tmp_path / "log"))
    try:
        for name in service.LOADERS:
            got = fetch(namespace, f"tftp://10.98.0.1/{name}")
            for _ in range(5):  # it does not say when it listens
                if got.returncode == 0:
                    break
                got = fetch(namespace, f"tftp://10.98.0.1/{name}")
            assert got.stdout == (Path("/usr/lib/ipxe") / name).read_bytes()
        for path in ("../secret", "/../secret", "%2e%2e/secret", f"{tmp_path}/boot/secret", "/etc/passwd"):
            got = fetch(namespace, f"tftp://10.98.0.1/{path}")
            assert got.returncode != 0, path
            assert got.stdout == b"", path
    finally:
        await child.stop()
    assert child.process.returncode is not None


def test_missing_loaders_are_named_with_the_package_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "snponly.efi").write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"undionly\.kpxe, ipxe\.efi") as missing:
        service.copy_loaders(tmp_path / "to", tmp_path)
    assert missing.value.remedy is not None
    assert missing.value.remedy.endswith(" ipxe")


async def test_a_taken_port_is_told_with_what_probably_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        monkeypatch.setattr(service, "PORT", other.getsockname()[1])
        with pytest.raises(ConflictError, match="Address already in use") as error:
            await service.prepare(context(tmp_path))
    assert error.value.remedy is not None
    assert "tftpd-hpa" in error.value.remedy
