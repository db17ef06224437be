"""A virtual datacentre: `Lab.up(spec)`, `lab.power("node1", "on")`, `lab.status()`, `lab.down()`."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import accel, kernel, network, requirements, state
from .controller import Controller, free_port
from .errors import LabError, NotUpError
from .machine import Node
from .process import ProcessRecord, run, spawn, stop, tagged
from .storage_host import StorageHost
from .storage_machine import StorageMachine

if TYPE_CHECKING:
    from .state import LabSpec, LabState

PowerVerb = Literal["on", "off", "reset", "shutdown"]
RADVD, STORAGE, MACHINE, CONTROLLER, FORWARD = "radvd", "storage", "storage2", "controller", "forward"
NETNS_MARK = "netns-was-mounted"
FAILED_MARK = "failed"
"""In a directory that holds but the logs of an `up` that failed."""


@dataclass(frozen=True)
class NodeStatus:
    """A node as seen from outside it."""

    name: str
    power: Literal["on", "off"]
    macs: tuple[str, ...]
    pid: int
    """QEMU's, 0 when off."""
    serial_log: str


@dataclass(frozen=True)
class LabStatus:
    """What runs of a lab."""

    name: str
    directory: str
    firmware: str
    accelerator: str
    url: str
    """Where the API is forwarded to; empty without a controller."""
    namespace: str
    services: dict[str, bool]
    """storage, storage2, and controller and forward (or without them radvd): whether each runs."""
    nodes: tuple[NodeStatus, ...]


class Lab:
    """A lab that is up. Made by `Lab.up` or, for one that runs already, `Lab.open`."""

    def __init__(self, directory: Path, lab_state: LabState) -> None:
        """Use `up` or `open`."""
        self.directory = directory
        self.state = lab_state

    @classmethod
    def up(cls, spec: LabSpec, directory: Path | None = None, *, power_on: bool = False) -> Lab:
        """Bring a lab up; the nodes stay off unless `power_on`.

        Cleans what a killed lab of the same name left. Raises RequirementError when the machine lacks something,
        LabError when the lab is up already or cannot start; nothing is left of it then.
        """
        requirements.check(spec.firmware, with_controller=spec.with_controller)
        where = (directory or state.default_directory(spec.name)).resolve()
        with state.locked(where):
            _refuse_or_clean(where, spec)
            where.mkdir(parents=True, exist_ok=True)
            where.chmod(0o700)
            (where / NETNS_MARK).write_text(str(int(network.netns_directory_mounted())), encoding="ascii")
            lab = cls(where, state.LabState(spec, state.current_boot_id(), accelerator=_accelerator()))
            lab._save()
            try:
                lab._build()
            except BaseException:
                keep = _keep_logs(where)
                _clean(where, spec.name)
                _restore_logs(where, keep)
                raise
        if power_on:
            for node in lab.nodes():
                lab.power(node.name, "on")
        return lab

    @classmethod
    def open(cls, directory: Path) -> Lab:
        """The lab that is up in `directory`. Raises NotUpError."""
        return cls(directory.resolve(), state.require(directory.resolve()))

    def _save(self) -> None:
        state.save(self.directory, self.state)

    def _record(self, name: str, record: ProcessRecord | None) -> None:
        self.state = self.state.with_process(name, record)
        self._save()

    def _build(self) -> None:
        spec = self.state.spec
        network.create(spec)
        if not spec.with_controller:
            self._record(RADVD, self._start_radvd())
        for node in self.nodes():
            node.prepare()
        keys = "\n".join(filter(None, (self.controller.prepare().strip(), spec.installation_key.strip())))
        pool = self.storage.prepare(keys)
        if spec.storage_machine:
            self.machine.prepare(keys)
            self._record(MACHINE, self.machine.power_on(self.state.accelerator))
        self._record(STORAGE, self.storage.start(pool))
        if spec.with_controller:
            self.start_controller()
            port = spec.api_port or free_port()
            self.state = replace(self.state, api_port=port)
            self._record(FORWARD, self.controller.forward(port))
        if spec.storage_machine:
            self.machine.wait_until_ready(self.state.processes[MACHINE])
        self.state = replace(self.state, complete=True)
        self._save()

    def _start_radvd(self) -> ProcessRecord:
        """The controller's DHCP service answers router solicitations; without it someone else has to."""
        configuration = self.directory / "radvd.conf"
        configuration.write_text(network.RADVD_CONFIGURATION, encoding="ascii")
        argv = ["radvd", "--nodaemon", "--logmethod", "stderr", "--config", str(configuration)]
        argv += ["--pidfile", str(self.directory / "radvd.pid")]
        return spawn(network.enter(self.namespace, *argv), tag=self.directory, log=self.directory / "radvd.log")

    @property
    def namespace(self) -> str:
        """Network namespace of controller and nodes, for `ip netns exec`."""
        return network.lab_namespace(self.state.spec.name)

    @property
    def storage(self) -> StorageHost:
        """The storage host."""
        return StorageHost(self.directory, self.state.spec)

    @property
    def machine(self) -> StorageMachine:
        """The storage machine; there is one only where the lab was asked for it."""
        return StorageMachine(self.directory, self.state.spec)

    @property
    def controller(self) -> Controller:
        """The controller."""
        return Controller(self.directory, self.state.spec)

    @property
    def url(self) -> str:
        """Where the API is forwarded to; empty without a controller."""
        return f"https://127.0.0.1:{self.state.api_port}" if self.state.api_port else ""

    def nodes(self) -> list[Node]:
        """The nodes, on or off."""
        return [Node(self.directory, self.state.spec, number) for number in range(1, self.state.spec.nodes + 1)]

    def node(self, name: str) -> Node:
        """A node by name. Raises LabError."""
        for node in self.nodes():
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes()) or "none"
        raise LabError(f"no node {name!r} in this lab; it has: {known}")

    def running(self, name: str) -> ProcessRecord | None:
        """The record of a recorded process that still runs."""
        record = self.state.processes.get(name)
        return record if record is not None and record.alive() else None

    def power(self, name: str, verb: PowerVerb) -> None:
        """Switch a node, `storage` or `storage2`, on or off (hard), reset it, or press its power button (`shutdown`).

        Switching on what is on, or off what is off, is fine; reset and shutdown of what is off raise LabError.
        """
        with state.locked(self.directory):
            self.state = state.require(self.directory)
            if name == STORAGE:
                self._power_storage(verb)
            elif name == MACHINE and self.state.spec.storage_machine:
                self._power_machine(verb)
            else:
                self._power_node(self.node(name), verb)

    def _power_node(self, node: Node, verb: PowerVerb) -> None:
        record = self.running(node.name)
        if verb == "on":
            if record is None:
                self._record(node.name, node.power_on(self.state.accelerator))
        elif verb == "off":
            if record is not None:
                node.power_off(record)
            self._record(node.name, None)
        elif record is None:
            raise LabError(f"{node.name} is off; switch it on with: openqrm lab power {node.name} on")
        elif verb == "reset":
            node.reset()
        else:
            node.press_power_button()

    def _power_storage(self, verb: PowerVerb) -> None:
        record = self.running(STORAGE)
        if verb == "shutdown":
            raise LabError("the storage host has no power button; use off")
        if record is not None and verb in {"off", "reset"}:
            self.storage.stop(record)
            self._record(STORAGE, None)
            record = None
        if record is None and verb in {"on", "reset"}:
            self._record(STORAGE, self.storage.start(self.storage.pool))

    def _power_machine(self, verb: PowerVerb) -> None:
        """On and reset return when its services run again."""
        record = self.running(MACHINE)
        if verb == "on":
            if record is None:
                self._record(MACHINE, self.machine.start(self.state.accelerator))
        elif verb == "off":
            if record is not None:
                self.machine.stop(record)
            self._record(MACHINE, None)
        elif verb == "shutdown" or record is None:
            raise LabError(
                "the storage machine has no power button; use off" if record else "the storage machine is off"
            )
        else:
            self.machine.reset()
            self.machine.wait_until_ready(record)

    def start_controller(self) -> None:
        """Start the controller if it does not run. Raises LabError."""
        if self.running(CONTROLLER) is None:
            self._record(CONTROLLER, self.controller.start())

    def stop_controller(self, *, kill: bool = False) -> None:
        """End the controller in good order, or with SIGKILL: its children then stay, as they would after a crash."""
        record = self.running(CONTROLLER)
        if record is not None:
            stop(record) if kill else self.controller.stop(record)
        self._record(CONTROLLER, None)

    def on_storage(self, *argv: str) -> str:
        """Run a command on the storage host, past SSH and controller, and return its output. Raises LabError."""
        record = self.running(STORAGE)
        if record is None:
            raise LabError("the storage host is off")
        return run(self.storage.inside(record, *argv))

    def on_machine(self, *argv: str) -> str:
        """Run a command on the storage machine by SSH, past the controller, and return its output. Raises LabError."""
        if self.running(MACHINE) is None:
            raise LabError("the storage machine is off, or this lab has none")
        return run(self.machine.ssh(self.controller.installation_key, *argv))

    def inside(self, *argv: str) -> str:
        """Run a command in the lab's network and return its output. Raises LabError."""
        return run(network.enter(self.namespace, *argv))

    def status(self) -> LabStatus:
        """What runs now."""
        spec = self.state.spec
        services = [STORAGE, CONTROLLER, FORWARD] if spec.with_controller else [STORAGE, RADVD]
        services += [MACHINE] if spec.storage_machine else []
        nodes = []
        for node in self.nodes():
            record = self.running(node.name)
            pid, macs, log = record.pid if record else 0, tuple(node.macs()), str(node.serial_log)
            nodes.append(NodeStatus(node.name, "on" if record else "off", macs, pid, log))
        return LabStatus(
            spec.name,
            str(self.directory),
            spec.firmware,
            self.state.accelerator,
            self.url,
            self.namespace,
            {name: self.running(name) is not None for name in services},
            tuple(nodes),
        )

    def down(self) -> None:
        """End the lab and remove all that it made. Raises LabError with what resists."""
        down(self.directory, self.state.spec.name)


def down(directory: Path, name: str) -> bool:
    """End the lab in `directory`, whole, killed or half made. Returns whether there was one. Raises LabError."""
    requirements.check_root()
    where = directory.resolve()
    with state.locked(where) as lock:
        present = where.exists() or network.exists(network.lab_namespace(name))
        known = _known_name(where) or name
        _refuse_foreign(where, known)
        _clean(where, known)
        lock.unlink(missing_ok=True)
    if where.parent == state.BASE_DIRECTORY:
        with suppress(OSError):
            where.parent.rmdir()
    return present


def _accelerator() -> state.Accelerator:
    known = kernel.cached()
    return accel.choose(known.vmlinuz if known else None)


def _known_name(directory: Path) -> str | None:
    with suppress(LabError):
        known = state.load(directory)
        return known.spec.name if known else None
    return None


def _refuse_foreign(directory: Path, name: str) -> None:
    owner = network.foreign_owner(name, directory)
    if owner is not None:
        raise LabError(
            f"another lab named {name!r} runs with its state in {owner}; "
            f"use another --name, or end it with: openqrm lab down --dir {owner}"
        )
    marks = (state.STATE_FILE, NETNS_MARK, FAILED_MARK)
    if directory.exists() and any(directory.iterdir()) and not any((directory / mark).exists() for mark in marks):
        raise LabError(f"{directory} is not empty and holds no lab; use another --dir")


def _refuse_or_clean(directory: Path, spec: LabSpec) -> None:
    """Raise LabError if the lab runs; else remove what an earlier one left."""
    with suppress(NotUpError):
        lab = Lab(directory, state.require(directory))
        if lab.running(FORWARD if lab.state.spec.with_controller else RADVD) is not None:
            raise LabError(
                f"the lab is up already in {directory}; look at it with `openqrm lab status --dir {directory}`, "
                f"or end it with `openqrm lab down --dir {directory}`"
            )
    _refuse_foreign(directory, spec.name)
    _clean(directory, _known_name(directory) or spec.name)
    _clean(directory, spec.name)


def _clean(directory: Path, name: str) -> None:
    """End and remove everything of a lab, whatever state it is in. Idempotent."""
    with suppress(LabError):
        known = state.load(directory)
        if known is not None and known.boot_id == state.current_boot_id():
            controller = known.processes.get(CONTROLLER)
            if controller is not None and controller.alive():
                stop(controller, 5.0)  # it ends its own children in good order
            for record in known.processes.values():
                stop(record)
    for record in list(tagged(directory)):
        stop(record)
    network.destroy(name)
    for record in list(tagged(directory)):  # what was within exec at the first look, without an environment
        stop(record)
    _release_mounts(directory)
    mark = directory / NETNS_MARK
    if mark.exists():
        network.forget_netns_directory(mark.read_text(encoding="ascii") == "1")
    if directory.exists():
        shutil.rmtree(directory)


def _release_mounts(directory: Path) -> None:
    """Unmount what is mounted below the directory here and free its loop devices: none, unless someone made them."""
    below = f"{directory}/"
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    for point in reversed([point for point in points if point.startswith(below)]):
        run(["umount", "--lazy", point])
    pool = directory / "storage" / "pool.img"
    if pool.exists() and shutil.which("losetup"):
        for line in run(["losetup", "--associated", str(pool)]).splitlines():
            subprocess.run(["losetup", "--detach", line.partition(":")[0]], check=False, capture_output=True)


def _keep_logs(directory: Path) -> dict[str, bytes]:
    """The logs of a start that failed: the message points to them."""
    return {
        str(path.relative_to(directory)): path.read_bytes()[-65536:]
        for path in directory.rglob("*.log")
        if path.is_file() and "root" not in path.relative_to(directory).parts
    }


def _restore_logs(directory: Path, logs: dict[str, bytes]) -> None:
    for name, content in logs.items():
        if content:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            (directory / FAILED_MARK).touch()
