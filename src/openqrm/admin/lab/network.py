"""The lab's network: two namespaces, a bridge, a tap per node. Nothing is made in the machine's own namespace.

Addresses: 10.99.0.0/24 with the controller at .1, the storage host at .2, a storage
machine at .3; with a second NIC also 10.99.1.0/24.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LabError
from .process import TAG, ProcessRecord, record_of, run, stop

if TYPE_CHECKING:
    from .state import LabSpec

NETNS_DIRECTORY = Path("/run/netns")
CONTROLLER_ADDRESS = "10.99.0.1"
STORAGE_ADDRESS = "10.99.0.2"
MACHINE_ADDRESS = "10.99.0.3"
"""The storage machine's, where a lab has one."""
MACHINE_MAC = "52:54:00:99:fd:00"
MACHINE_TAP = "tapstorage"
PREFIX_LENGTH = 24
STORAGE_MAC = "52:54:00:99:fe:00"
"""MAC of the storage host on the lab's network; on the storage network it ends in 01."""
RADVD_CONFIGURATION = """\
# iPXE waits 13 s for an answer to its router solicitation. It gets one that offers nothing.
interface br0 {
  AdvSendAdvert on; AdvDefaultLifetime 0; AdvManagedFlag off; AdvOtherConfigFlag off;
  MinRtrAdvInterval 3; MaxRtrAdvInterval 10; MinDelayBetweenRAs 3;
};
"""


def lab_namespace(name: str) -> str:
    """Namespace of the lab's network, its nodes' taps and its controller."""
    return f"openqrm-{name}"


def storage_namespace(name: str) -> str:
    """Namespace of the storage host."""
    return f"openqrm-{name}-storage"


def node_mac(number: int, nic: int = 0) -> str:
    """MAC of node `number` (from 1): 52:54:00:99:00:NN, the second NIC 52:54:00:99:01:NN."""
    return f"52:54:00:99:{nic:02x}:{number:02x}"


def tap_name(number: int, nic: int = 0) -> str:
    """The node's tap inside the lab's namespace."""
    return f"tap{number}" if nic == 0 else f"tap{number}s"


def enter(namespace: str, *argv: str) -> list[str]:
    """The command that runs `argv` inside a namespace; it is replaced by it, so the pid stays."""
    return ["ip", "netns", "exec", namespace, *argv]


def plan(spec: LabSpec) -> list[str]:
    """Commands for ip(8) in batch mode, run in the lab's namespace."""
    lines = ["link set lo up"]
    storage = storage_namespace(spec.name)
    bridges = 2 if spec.second_nic else 1
    for net in range(bridges):
        lines += [
            # Without forward_delay 0 a new port is silent for 15 s, longer than a DHCP client waits.
            f"link add br{net} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            f"link set br{net} address 52:54:00:99:ff:{net:02x}",
            f"addr add 10.99.{net}.1/{PREFIX_LENGTH} dev br{net}",
            f"link set br{net} up",
            f"link add storage{net} type veth peer name eth{net} address {STORAGE_MAC[:-1]}{net} netns {storage}",
            f"link set storage{net} master br{net} up",
        ]
        for number in range(1, spec.nodes + 1):
            tap = tap_name(number, net)
            lines += [f"tuntap add dev {tap} mode tap", f"link set {tap} master br{net} up"]
    if spec.storage_machine:
        lines += [f"tuntap add dev {MACHINE_TAP} mode tap", f"link set {MACHINE_TAP} master br0 up"]
    return lines


def plan_storage(spec: LabSpec) -> list[str]:
    """Commands for ip(8) in batch mode, run in the storage host's namespace."""
    lines = ["link set lo up"]
    for net in range(2 if spec.second_nic else 1):
        lines += [f"addr add 10.99.{net}.2/{PREFIX_LENGTH} dev eth{net}", f"link set eth{net} up"]
    return lines


def create(spec: LabSpec) -> None:
    """Make both namespaces and what is in them. Raises LabError."""
    lab, storage = lab_namespace(spec.name), storage_namespace(spec.name)
    for namespace in (lab, storage):
        run(["ip", "netns", "add", namespace])
        # Bridges and taps need no DAD, and waiting for it would delay the first router advertisement by 2 s.
        run(enter(namespace, "sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad"))
    run(["ip", "-n", lab, "-batch", "-"], stdin="\n".join(plan(spec)) + "\n")
    run(["ip", "-n", storage, "-batch", "-"], stdin="\n".join(plan_storage(spec)) + "\n")
    run(enter(lab, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding"))  # radvd insists on it


def exists(namespace: str) -> bool:
    """Whether a namespace of this name is there."""
    return (NETNS_DIRECTORY / namespace).exists()


def pids(namespace: str) -> list[ProcessRecord]:
    """The processes in a namespace."""
    if not exists(namespace):
        return []
    try:
        listed = run(["ip", "netns", "pids", namespace]).split()
    except LabError:  # a leftover file that is no namespace any more
        return []
    return [record for record in map(record_of, map(int, listed)) if record is not None]


def foreign_owner(name: str, directory: Path) -> str | None:
    """The state directory of *another* lab that uses this name, or None."""
    for record in pids(lab_namespace(name)) + pids(storage_namespace(name)):
        with contextlib.suppress(OSError):
            for variable in Path(f"/proc/{record.pid}/environ").read_bytes().split(b"\0"):
                key, _, value = variable.partition(b"=")
                if key == TAG.encode() and value != str(directory).encode():
                    return value.decode(errors="replace")
    return None


def destroy(name: str) -> None:
    """End everything in the namespaces of lab `name` and remove them; fine if they are not there."""
    for namespace in (lab_namespace(name), storage_namespace(name)):
        for _ in range(50):
            records = pids(namespace)
            if not records:
                break
            for record in records:
                stop(record)
        if exists(namespace):
            run(["ip", "netns", "delete", namespace])


def forget_netns_directory(was_mounted: bool) -> None:
    """Undo the mount that ip-netns(8) makes on /run/netns, if it was not there before and nobody uses it."""
    if not was_mounted and netns_directory_mounted() and not any(NETNS_DIRECTORY.iterdir()):
        subprocess.run(["umount", str(NETNS_DIRECTORY)], stdin=subprocess.DEVNULL, check=False, capture_output=True)


def netns_directory_mounted() -> bool:
    """Whether ip-netns(8) has made its mount."""
    return any(
        line.split()[4] == str(NETNS_DIRECTORY)
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    )
