"""A real storage host with a kernel of its own for tests: the lab's storage machine, with clients beside it.

    with storage_machine(tmp_path, "pools") as storage:      # a short name: it is part of network interfaces' names
        storage.inside("lvs")                                # as root on the machine, by SSH; its output
        with storage.controller_network():                   # this thread is on the lab's network
            hosts = storage.hosts()                          # the engine's port; the machine is resource `STORAGE`

It has lvm2 with the volume group `vg0`, the kernel's NFS server (running), tgt, LIO, vblade, nbdkit: see
`openqrm.admin.lab.storage_machine`. Needs root, and what `openqrm lab` needs. The first one ever makes the disk in the
cache, in a minute or two; after that it is up in 5 s on a quiet machine.
"""

from __future__ import annotations

import shlex
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.admin.lab import accel, kernel, network
from openqrm.admin.lab.state import LabSpec
from openqrm.admin.lab.storage_machine import StorageMachine
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.remote.keys import installation_key
from openqrm.testing import needs
from openqrm.testing.client_machines import ClientMachine, client_machine, ip
from openqrm.testing.storage_host import NetworkOfThread

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.admin.lab.process import ProcessRecord
    from openqrm.admin.lab.state import Accelerator

STORAGE, DEAD = 1, 2
"""Resource ids in `hosts()`: the storage machine, and a host that does not answer."""
RUN_SECONDS = 300


@dataclass
class RealStorageMachine:
    """The storage machine, on or off. `directory` holds its files and those of the controller beside it."""

    directory: Path
    machine: StorageMachine
    accelerator: Accelerator
    clients: tuple[ClientMachine, ...]
    record: ProcessRecord | None = None
    address: str = network.MACHINE_ADDRESS

    def hosts(self) -> RemoteHosts:
        """Remote execution as the controller has it; used inside `controller_network()`."""
        key = self.machine.host_key.read_text(encoding="ascii")
        endpoint = Endpoint(self.address, host_keys=(key,))
        return RemoteHosts(
            lookup=lambda resource: endpoint if resource == STORAGE else Endpoint("10.99.0.254", host_keys=(key,)),
            learned=_nothing_to_learn,
            key_file=installation_key(self.directory / "controller").private_file,
            local_gate=self.directory / "controller" / "gate",
        )

    def inside(self, *argv: str, seconds: float = RUN_SECONDS) -> str:
        """Run a command on the machine as root; its output. subprocess.CalledProcessError with what it said."""
        key = installation_key(self.directory / "controller").private_file
        done = subprocess.run(
            self.machine.ssh(key, *argv),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if done.returncode:
            raise subprocess.CalledProcessError(done.returncode, f"{shlex.join(argv)}: {done.stderr}", done.stdout)
        return done.stdout

    def shell(self, script: str, *words: str) -> str:
        """Run a shell script on the machine; `words` are its $1, $2 and so on."""
        return self.inside("sh", "-euc", script, "sh", *words)

    def power_off(self) -> None:
        """Pull the plug; what was not on its disks is gone."""
        if self.record is not None:
            self.machine.stop(self.record)
            self.record = None

    def power_on(self) -> None:
        """Start it, and wait until its services run."""
        if self.record is None:
            self.record = self.machine.start(self.accelerator)

    def reset(self) -> None:
        """Press its reset button, and wait until its services run again."""
        if self.record is None:
            raise RuntimeError("the storage machine is off")
        self.machine.reset()
        self.machine.wait_until_ready(self.record)

    def set_link(self, *, up: bool) -> None:
        """Its network card, as seen from the switch."""
        ip(
            "-n",
            network.lab_namespace(self.machine.spec.name),
            "link",
            "set",
            network.MACHINE_TAP,
            "up" if up else "down",
        )

    def restart_nfs_server(self) -> None:
        """Stop and start the kernel's NFS server."""
        self.inside("nfs-server", "restart")

    def controller_network(self) -> NetworkOfThread:
        """A context manager: this thread, and what it starts, is on the network of the machine."""
        return NetworkOfThread(network.lab_namespace(self.machine.spec.name))


@contextmanager
def storage_machine(directory: Path, name: str, clients: int = 2) -> Iterator[RealStorageMachine]:
    """A storage machine and its clients; everything is gone afterwards. LabError; as `needs.lab`."""
    needs.lab()
    spec = LabSpec(name=name, nodes=0, storage_machine=True)
    key = installation_key(directory / "controller").public
    was_mounted = network.netns_directory_mounted()
    with ExitStack() as cleanup:
        cleanup.callback(network.forget_netns_directory, was_mounted)
        cleanup.callback(network.destroy, name)
        network.destroy(name)
        network.create(spec)
        machine = StorageMachine(directory, spec)
        machine.prepare(key)
        made = tuple(client_machine(name, number, cleanup) for number in range(1, clients + 1))
        accelerator = accel.choose(kernel.lab_kernel().vmlinuz)
        storage = RealStorageMachine(directory, machine, accelerator, made)
        cleanup.callback(storage.power_off)
        storage.power_on()
        yield storage


def _nothing_to_learn(resource: int, shown: str) -> None:
    raise AssertionError(f"the host key {shown} of resource {resource} is pinned, and yet was learned")
