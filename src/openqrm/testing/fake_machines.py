"""Machines that exist in the database only: they do what they are ordered to and report it as real ones do."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.domain.lease import LeaseState, Loan
from openqrm.domain.resource import Desired, Health, MachineOrder, Phase, Power, Resource
from openqrm.domain.storage import Storage, Volume
from openqrm.operations import handovers, machine_orders, states

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.engine.notifier import Notifier
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Writer
    from openqrm.testing.fake_host import FakeHost, FakeHosts

OPEN = ("open", "acknowledged")


def idle_machine(number: int, **fields: object) -> Resource:
    """A machine as it stands in the idle pool."""
    octets = f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    mac = "52:54:" + ":".join(f"{number >> shift & 255:02x}" for shift in (24, 16, 8, 0))
    values: dict[str, object] = {
        "name": f"node-{number}",
        "mac": mac,
        "address": f"10.{octets}",
        "phase": Phase.IDLE,
        "desired": Desired.IDLE,
        "health": Health.OK,
        "power": Power.ON,
        "boot_id": str(uuid.UUID(int=number)),
        "cpus": 1,
        "memory_mb": 512,
        "nic_count": 1,
    }
    return Resource(**{**values, **fields})


@dataclass
class FakeMachines:
    """Carries out open orders. `broken` names verbs that machines fail; `boots` counts them. `call_off` is called when
    a machine begins to deploy; its image then comes up only after it was ordered back, and goes back from there.

    A transfer is begun and ended at two looks; `halfway` is called in between, and machines need access to both
    volumes on `hosts`."""

    database: Database
    hosts: FakeHosts | None = None
    broken: set[str] = field(default_factory=set)
    boots: int = 1_000_000
    threaded: bool = False
    call_off: Callable[[Writer, MachineOrder], None] | None = None
    dead: set[int] = field(default_factory=set)
    """Resources that do nothing any more."""
    endless: set[int] = field(default_factory=set)
    """Transfers, by their orders, that do not end by themselves."""
    halfway: Callable[[Writer, MachineOrder], None] | None = None
    disks: bool = False
    """What is deployed boots from the machines' own disks, without an agent."""

    def tick(self, limit: int = 500) -> int:
        """Carry out the orders that are open now, in one transaction; returns how many."""
        with self.database.read() as reader:
            waiting = reader.find(MachineOrder, limit=limit, state__in=OPEN)
        if not waiting:
            return 0
        with self.database.write() as writer:
            return sum(self._obey(writer, writer.get(MachineOrder, order.id)) for order in waiting)

    def _obey(self, writer: Writer, order: MachineOrder) -> bool:
        """Whether the order changed anything."""
        resource = writer.get(Resource, order.resource_id)
        if order.state not in OPEN or resource.id in self.dead:
            return False
        if self.call_off is not None and resource.phase is Phase.DEPLOYING:
            if order.verb != "deploy" or order.state == "acknowledged":
                return False
            self.call_off(writer, writer.update(order, state="acknowledged"))
            return True
        if order.boot_id not in ("", resource.boot_id):
            writer.update(order, state="void", text="meant for another boot")
        elif order.verb in self.broken:
            writer.update(order, state="failed", text=f"this machine cannot {order.verb}")
            if resource.phase is Phase.DEPLOYING:
                states.apply(writer, resource, "phase", "deploy-failed")
        elif order.verb == "transfer" and self.hosts is not None:
            return self._transfer(writer, resource, order)
        else:
            writer.update(order, state="done", progress=100)
            self._carried_out(writer, resource, order.verb)
        return True

    def _transfer(self, writer: Writer, resource: Resource, order: MachineOrder) -> bool:
        source, target = (self._granted(writer, resource, int(order.details[side])) for side in ("from", "to"))
        if source is None or target is None:
            writer.update(order, state="failed", text="a volume could not be mounted")
            return True
        (origin, name), (disk, copy) = source, target
        if order.state == "open":
            disk.contents[copy] = f"half: {origin.contents[name]}"
            changed = writer.update(order, state="acknowledged", progress=50)
            if self.halfway is not None:
                self.halfway(writer, changed)
        elif order.id in self.endless:
            return False
        else:
            disk.contents[copy] = origin.contents[name]
            writer.update(order, state="done", progress=100)
        return True

    def _granted(self, writer: Writer, resource: Resource, volume_id: int) -> tuple[FakeHost, str] | None:
        """The host's disk and the name of a volume that the machine has access to."""
        volume = writer.get(Volume, volume_id)
        assert self.hosts is not None  # noqa: S101  # asked before
        disk = self.hosts.host(writer.get(Storage, volume.storage_id).resource_id)
        allowed = disk.grants.get(f"volume-{volume_id}", ("",))[0] == resource.name
        return (disk, volume.name) if allowed and disk.things.get(volume.name) == "whole" else None

    def _carried_out(self, writer: Writer, resource: Resource, verb: str) -> None:
        if verb == "deploy" and self.disks:
            if resource.phase is Phase.DEPLOYING:
                handovers.handed_over(writer, resource)
        elif verb == "grab":
            return
        elif verb == "deploy":
            if resource.phase in (Phase.DEPLOYING, Phase.RETURNING):
                states.apply(writer, resource, "phase", "registered-image")
        elif verb == "poweroff":
            states.apply(writer, resource, "phase", "powered-off")
        else:
            self.boot(writer, resource)

    def boot(self, writer: Writer, resource: Resource) -> None:
        """The machine comes up in its initramfs after a new boot, by a ticket where it holds a loan."""
        self.boots += 1
        boot_id = str(uuid.UUID(int=self.boots))
        if writer.find(Loan, resource_id=resource.id, state=LeaseState.HELD, limit=1):
            machine_orders.boot_changed(writer, resource, boot_id, ticket=True)
        changed = states.apply(writer, resource, "phase", "registered-initramfs")
        writer.update(changed, boot_id=boot_id)

    async def run(self, notifier: Notifier, pause: float = 1) -> None:
        """Until cancelled: look when something was committed, and every `pause` seconds."""
        with notifier.listening(lambda touched: any(kind == "machine-order" for kind, _ in touched)) as wakeup:
            while True:
                done = await asyncio.to_thread(self.tick) if self.threaded else self.tick()
                if not done:
                    await wakeup.wait(pause)
