"""After our database was restored from a backup: generations and epochs above what the storage hosts have seen.

Without it the hosts refuse our commands as too old, which is safe and stops all work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance, ApplianceDesired
from openqrm.domain.event import Severity
from openqrm.domain.lease import Lease
from openqrm.domain.operation import Counter, Operation, OperationStatus
from openqrm.domain.resource import SERVER_ID
from openqrm.domain.storage import Image, Volume
from openqrm.engine.journal import EPOCH
from openqrm.operations import states

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.plugin_api.records import Reader, Writer

FLOOR = "generation-floor"
"""Counter: the generation that new volumes begin at, since their ids may be those of volumes the backup forgot."""
_NOTE = "database.raise-generations"
"""Stands in the list of operations as what made a lease."""
_VOLUME = re.compile(r"volume-(\d+)")


@dataclass(frozen=True)
class Raised:
    """What was changed: volumes, appliances that went on after the backup, and the numbers new work is above."""

    volumes: tuple[str, ...]
    overtaken: tuple[str, ...]
    epoch: int
    floor: int


def first_generation(reader: Reader) -> int:
    """What a new volume's generation is."""
    counter = reader.one(Counter, name=FLOOR)
    return counter.value if counter else 0


def raise_above(writer: Writer, recorded: Mapping[str, tuple[int, int]]) -> Raised:
    """Raise generations and the epoch counter to what the gates `recorded` by volume: (generation, epoch).

    An appliance whose image was started anew after the backup is set to stopped and holds a lease, at the recorded
    generation: nobody knows here which machine runs it, and `appliance release` takes the access back. Safe to repeat.
    """
    volumes, overtaken, floor = [], [], 0
    for name, (generation, _) in sorted(recorded.items()):
        matched = _VOLUME.fullmatch(name)
        volume = writer.one(Volume, id=int(matched[1])) if matched else None
        if volume is None:
            floor = max(floor, generation)
        elif volume.generation < generation:
            writer.update(volume, generation=generation)
            volumes.append(volume.name)
            overtaken += _overtaken(writer, volume, generation)
    epoch = _raised(writer, EPOCH, max((epoch for _, epoch in recorded.values()), default=0))
    return Raised(tuple(volumes), tuple(overtaken), epoch, _raised(writer, FLOOR, floor))


def _raised(writer: Writer, name: str, value: int) -> int:
    counter = writer.one(Counter, name=name) or writer.insert(Counter(name=name))
    return writer.update(counter, value=max(counter.value, value)).value


def _overtaken(writer: Writer, volume: Volume, generation: int) -> list[str]:
    """Appliances on the volume, each stopped and with a lease that only `appliance release` ends."""
    found = []
    for image in writer.find(Image, volume_id=volume.id):
        lease = writer.one(Lease, held_image=image.id)
        if lease is not None:
            lease = writer.update(lease, generation=generation)
        else:
            lease = _unknown_holder(writer, image, generation)
        if lease is None:
            continue
        appliance = states.apply(writer, writer.get(Appliance, lease.appliance_id), "phase", "abandoned")
        writer.update(appliance, desired=ApplianceDesired.STOPPED)
        text = (
            f"{appliance.name} was started again after the backup, on a machine that this database does not know: "
            f"make sure that it is off, then run: openqrm appliance release {appliance.name}"
        )
        writer.event(text, severity=Severity.WARNING, source="operations", about=appliance)
        found.append(appliance.name)
    return found


def _unknown_holder(writer: Writer, image: Image, generation: int) -> Lease | None:
    """A lease for whoever runs the image; it names the server as machine and keeps none from being used."""
    free = [
        each for each in writer.find(Appliance, image_id=image.id) if not writer.count(Lease, held_appliance=each.id)
    ]
    if not free:
        return None
    noted = Operation(name=_NOTE, status=OperationStatus.DONE, started_at=writer.now, finished_at=writer.now)
    return writer.insert(
        Lease(
            image_id=image.id,
            resource_id=SERVER_ID,
            appliance_id=free[0].id,
            operation_id=writer.insert(noted).id,
            generation=generation,
            held_image=image.id,
            held_appliance=free[0].id,
        )
    )
