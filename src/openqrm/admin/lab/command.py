"""`openqrm lab`: the virtual datacentre from the command line.

Exit status: 0 done, 1 failed, 2 wrong usage or something is missing on this machine, 3 no lab is up.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import network, state
from .datacentre import Lab, LabStatus, down
from .errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser() -> argparse.ArgumentParser:
    """The command line of `openqrm lab`."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="lab", help="name of the lab (default: lab)")
    common.add_argument(
        "--dir",
        type=Path,
        metavar="DIR",
        help="state directory (default: $OPENQRM_LAB_DIR or /var/lib/openqrm-lab/NAME)",
    )
    top = argparse.ArgumentParser(
        prog="openqrm lab",
        description="A virtual datacentre on this machine: nodes that "
        "boot from the network, a storage host and the controller, in a network of their own.",
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    _add_up(verbs.add_parser("up", parents=[common], help="bring it up; the nodes stay off"))
    status = verbs.add_parser("status", parents=[common], help="what runs")
    status.add_argument("--json", action="store_true", help="as JSON")
    console = verbs.add_parser("console", parents=[common], help="follow a node's serial console")
    console.add_argument("node")
    console.add_argument("--attach", action="store_true", help="type into it too; Ctrl-] ends")
    console.add_argument("--no-follow", action="store_true", help="print what there is and end")
    power = verbs.add_parser("power", parents=[common], help="switch a node or the storage host")
    power.add_argument("node", help="node1, node2, …, storage or storage2")
    power.add_argument(
        "action",
        choices=["on", "off", "reset", "shutdown"],
        help="off pulls the plug, shutdown presses the power button",
    )
    execute = verbs.add_parser("exec", parents=[common], help="run a command in the lab's network")
    execute.add_argument("--storage", action="store_true", help="run it on the storage host")
    execute.add_argument("--storage2", action="store_true", help="run it on the storage machine")
    execute.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    verbs.add_parser("down", parents=[common], help="end it and remove all that it made")
    return top


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("--nodes", type=int, default=2, metavar="N", help="how many nodes (default: 2)")
    up.add_argument("--firmware", choices=["bios", "uefi"], default="bios", help="the nodes' firmware (default: bios)")
    up.add_argument("--memory", type=int, default=512, metavar="MB", help="memory of each node (default: 512)")
    up.add_argument("--disk", type=int, default=0, metavar="MB", help="disk of each node (default: none)")
    up.add_argument("--second-nic", action="store_true", help="a second NIC on a storage network, 10.99.1.0/24")
    up.add_argument("--storage-machine", action="store_true", help="a storage host with a kernel of its own, too")
    up.add_argument("--port", type=int, default=8443, help="port on 127.0.0.1 for the API, 0 for any (default: 8443)")
    up.add_argument("--key", type=Path, metavar="FILE", help="a further public SSH key for the storage host")
    up.add_argument("--database", default="", metavar="URL", help="the controller's database (default: SQLite)")
    up.add_argument("--no-controller", action="store_true", help="without a controller")
    up.add_argument(
        "--controller-command",
        default="",
        metavar="CMD",
        help="start this as the controller; {config}, {dir} and {socket} are replaced",
    )
    up.add_argument("--power-on", action="store_true", help="switch the nodes on")


def _up(arguments: argparse.Namespace, directory: Path) -> int:
    key = arguments.key.read_text(encoding="utf-8") if arguments.key else ""
    spec = state.LabSpec(
        name=arguments.name,
        nodes=arguments.nodes,
        firmware=arguments.firmware,
        memory_mb=arguments.memory,
        disk_mb=arguments.disk,
        second_nic=arguments.second_nic,
        storage_machine=arguments.storage_machine,
        api_port=arguments.port,
        with_controller=not arguments.no_controller,
        database_url=arguments.database,
        installation_key=key,
        controller_command=tuple(arguments.controller_command.split()),
    )
    started = time.monotonic()
    lab = Lab.up(spec, directory, power_on=arguments.power_on)
    _print_status(lab.status())
    which = "" if spec.name == "lab" else f" --name {spec.name}"
    print(f"up in {time.monotonic() - started:.1f} s; end it with: openqrm lab down{which}")
    return 0


def _print_status(status: LabStatus) -> None:
    print(f"lab {status.name} ({status.firmware}, {status.accelerator}) in {status.directory}")
    print(
        f"  network namespace {status.namespace}, controller {network.CONTROLLER_ADDRESS}, "
        f"storage {network.STORAGE_ADDRESS}"
        + (f", storage machine {network.MACHINE_ADDRESS}" if "storage2" in status.services else "")
    )
    if status.url:
        print(f"  API {status.url}")
    for name, runs in status.services.items():
        print(f"  {name:<10} {'runs' if runs else 'DOES NOT RUN'}")
    for node in status.nodes:
        print(f"  {node.name:<10} {node.power:<4} {' '.join(node.macs)}")


def _console(lab: Lab, arguments: argparse.Namespace) -> int:
    node = lab.node(arguments.node)
    if arguments.attach:
        if lab.running(node.name) is None:
            raise LabError(f"{node.name} is off; switch it on with: openqrm lab power {node.name} on")
        os.execvp("socat", ["socat", "STDIO,raw,echo=0,escape=0x1d", f"UNIX-CONNECT:{node.console_socket}"])  # noqa: S606 - becomes socat
    with node.serial_log.open("rb") as log, suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            block = log.read(65536)
            if block:
                sys.stdout.buffer.write(block)
                sys.stdout.buffer.flush()
            elif arguments.no_follow or not node.serial_log.exists():
                break
            else:
                time.sleep(0.1)
    return 0


def _execute(lab: Lab, arguments: argparse.Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise LabError("which command? For example: openqrm lab exec -- ping -c1 10.99.0.2")
    argv = network.enter(lab.namespace, *command)
    if arguments.storage:
        record = lab.running("storage")
        if record is None:
            raise LabError("the storage host is off; switch it on with: openqrm lab power storage on")
        argv = lab.storage.inside(record, *command)
    if arguments.storage2:
        argv = lab.machine.ssh(lab.controller.installation_key, *command)
    os.execvp(argv[0], argv)  # noqa: S606 - becomes the command


_DONE = {
    "on": "is on",
    "off": "is off, its plug pulled",
    "reset": "was reset",
    "shutdown": "had its power button pressed",
}


def _dispatch(arguments: argparse.Namespace) -> int:
    directory: Path = (arguments.dir or state.default_directory(arguments.name)).resolve()
    if arguments.verb == "up":
        return _up(arguments, directory)
    if arguments.verb == "down":
        print("the lab is down" if down(directory, arguments.name) else "there was no lab")
        return 0
    lab = Lab.open(directory)
    if arguments.verb == "status":
        if arguments.json:
            print(json.dumps(dataclasses.asdict(lab.status()), indent=1))
        else:
            _print_status(lab.status())
        return 0
    if arguments.verb == "console":
        return _console(lab, arguments)
    if arguments.verb == "exec":
        return _execute(lab, arguments)
    lab.power(arguments.node, arguments.action)
    print(f"{arguments.node} {_DONE[arguments.action]}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run `openqrm lab` and return the exit status."""
    arguments = parser().parse_args(argv)
    try:
        return _dispatch(arguments)
    except LabError as error:
        print(f"openqrm lab: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"openqrm lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
