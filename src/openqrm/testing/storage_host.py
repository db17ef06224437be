"""A real storage host for tests: the lab's, in namespaces of its own, with clients beside it that are told apart.

It has sshd, nfs-ganesha and a file system that can share blocks. Needs root, and what `openqrm lab` needs.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.admin.lab import network
from openqrm.admin.lab.process import ProcessRecord, wait_for_port
from openqrm.admin.lab.state import LabSpec
from openqrm.admin.lab.storage_host import StorageHost
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.remote.keys import installation_key
from openqrm.testing.client_machines import ClientMachine, client_machine, ip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORAGE = 1
"""The storage host's resource id in `hosts()`."""
_CLONE_NEWNET = 0x40000000


@dataclass
class RealStorage:
    """The running storage host. `directory` holds the files of the host and of the controller beside it."""

    directory: Path
    spec: LabSpec
    host: StorageHost
    record: ProcessRecord
    pool_type: str
    clients: tuple[ClientMachine, ...]
    address: str = network.STORAGE_ADDRESS

    def hosts(self) -> RemoteHosts:
        """Remote execution as the controller has it; used inside `controller_network()`."""
        key = self.host.host_key.read_text(encoding="ascii")
        endpoint = Endpoint(self.address, host_keys=(key,))
        return RemoteHosts(
            lookup=lambda resource: endpoint if resource == STORAGE else Endpoint("10.99.0.254", host_keys=(key,)),
            learned=_nothing_to_learn,
            key_file=installation_key(self.directory / "controller").private_file,
            local_gate=self.directory / "controller" / "gate",
        )

    def inside(self, *argv: str) -> str:
        """Run a command on the storage host, past SSH; its output."""
        command = self.host.inside(self.record, *argv)
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def set_link(self, *, up: bool) -> None:
        """The storage host's network card."""
        ip("-n", network.storage_namespace(self.spec.name), "link", "set", "eth0", "up" if up else "down")

    def kill_nfs_server(self) -> None:
        """kill -9 of nfs-ganesha; the host starts it again within some seconds."""
        self.inside("sh", "-c", "kill -9 $(cat /run/ganesha/ganesha.pid)")

    def wait_for_nfs_server(self, seconds: float = 30) -> None:
        """Until it listens again."""
        wait_for_port(self.record, 2049, seconds, "nfs-ganesha", self.host.log)

    def restart_host(self) -> None:
        """Pull its plug and switch it on again; what it starts by itself may take a moment longer."""
        self.host.stop(self.record)
        self.record = self.host.start(self.pool_type)

    def controller_network(self) -> NetworkOfThread:
        """A context manager: this thread, and what it starts, is on the network of the storage host."""
        return NetworkOfThread(network.lab_namespace(self.spec.name))


class NetworkOfThread:
    """Puts the calling thread into a network namespace, and back. Children inherit it; other threads do not."""

    def __init__(self, namespace: str) -> None:
        self._path = network.NETNS_DIRECTORY / namespace
        self._home = -1

    def __enter__(self) -> None:
        self._home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        there = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(there)
        finally:
            os.close(there)

    def __exit__(self, *error: object) -> None:
        _setns(self._home)
        os.close(self._home)


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@contextmanager
def real_storage(directory: Path, name: str, clients: int = 2) -> Iterator[RealStorage]:
    """A storage host and its clients; everything is gone afterwards. LabError says what is missing."""
    spec = LabSpec(name=name, nodes=0)
    key = installation_key(directory / "controller").public
    was_mounted = network.netns_directory_mounted()
    with ExitStack() as cleanup:
        cleanup.callback(network.forget_netns_directory, was_mounted)
        cleanup.callback(network.destroy, name)
        network.destroy(name)
        network.create(spec)
        host = StorageHost(directory, spec)
        pool_type = host.prepare(key)
        _allow_libnfs(host)
        running = RealStorage(directory, spec, host, host.start(pool_type), pool_type, ())
        cleanup.callback(lambda: host.stop(running.record))
        running.clients = tuple(client_machine(name, number, cleanup) for number in range(1, clients + 1))
        yield running


def _allow_libnfs(host: StorageHost) -> None:
    """libnfs speaks NFS 4.0, which the lab's server refuses: it ties a client to its address alone."""
    file = host.root / "etc/ganesha/ganesha.conf"
    text = file.read_text(encoding="utf-8")
    if "Minor_Versions = 1, 2;" not in text:
        raise RuntimeError(f"{file} has no line Minor_Versions to extend")
    file.write_text(text.replace("Minor_Versions = 1, 2;", "Minor_Versions = 0, 1, 2;"), encoding="utf-8")


def _nothing_to_learn(resource: int, shown: str) -> None:
    raise AssertionError(f"the host key {shown} of resource {resource} is pinned, and yet was learned")
