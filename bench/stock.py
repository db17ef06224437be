"""What databases are filled with before a controller is started."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance
from openqrm.domain.machine import MachineToken, Stage, TokenPurpose, fingerprint
from openqrm.domain.network import AddressRange, Network
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.testing.fake_machines import idle_machine

if TYPE_CHECKING:
    from openqrm.store.database import SqlDatabase

BATCH = 1000
SITES = ("berlin", "hamburg", "munich", "cologne", "dresden")


def add_resources(database: SqlDatabase, first: int, last: int) -> None:
    """Machines FIRST to LAST as they come to a datacentre: most are idle, every tenth is off, sizes differ."""
    for start in range(first, last + 1, BATCH):
        with database.write() as writer:
            for number in range(start, min(start + BATCH, last + 1)):
                writer.insert(
                    idle_machine(
                        number,
                        name=f"{SITES[number % len(SITES)]}-rack{number // 40}-node{number}",
                        phase=Phase.IDLE if number % 10 else Phase.UNKNOWN,
                        manual=True,
                        cpus=2 ** (number % 7),
                        memory_mb=1024 * 2 ** (number % 6),
                    )
                )


def add_network(database: SqlDatabase) -> None:
    """A network from which 40,000 machines can get an address of their own."""
    with database.write() as writer:
        writer.insert(
            Network(
                name="bench",
                cidr="10.96.0.0/14",
                interface="lo",
                machines=AddressRange(first="10.97.0.0", last="10.97.156.63"),
                discovery=AddressRange(first="10.96.1.0", last="10.96.1.255"),
            )
        )


def add_speaking_machines(database: SqlDatabase, count: int) -> list[tuple[int, str]]:
    """Idle machines that have registered: the id and the token of each."""
    known = []
    for start in range(1, count + 1, BATCH):
        with database.write() as writer:
            for number in range(start, min(start + BATCH, count + 1)):
                machine = writer.insert(idle_machine(number))
                token = f"bench-{uuid.uuid4().hex}"
                writer.insert(
                    MachineToken(
                        resource_id=machine.id,
                        purpose=TokenPurpose.SESSION,
                        stage=Stage.INITRAMFS,
                        boot_id=str(machine.boot_id),
                        token_hash=fingerprint(token),
                    )
                )
                known.append((machine.id, token))
    return known


def add_appliances(database: SqlDatabase, count: int, plugin: str, kind: str) -> None:
    """COUNT idle machines and as many stopped appliances, each with a volume of its own on one storage."""
    with database.write() as writer:
        row = writer.one(PluginState, name=plugin)
        if row is None:
            writer.insert(PluginState(name=plugin, family="storage", title=plugin, state=PluginPhase.STARTED))
        host = writer.insert(Resource(name="storage1", type="server", manual=True, address="10.0.0.1"))
        storage = writer.insert(Storage(name="fake1", type=kind, resource_id=host.id))
    for start in range(1, count + 1, BATCH):
        with database.write() as writer:
            for number in range(start, min(start + BATCH, count + 1)):
                writer.insert(idle_machine(number + 100))
                volume = writer.insert(Volume(name=f"volume{number}", storage_id=storage.id, phase=VolumePhase.READY))
                image = writer.insert(Image(name=f"image{number}", volume_id=volume.id, deployment="fake-root"))
                writer.insert(Appliance(name=f"service{number}", image_id=image.id))
