"""What storages really grant, compared with what leases and loans say. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.operation import UNFINISHED, Operation, OperationTarget
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.plugin_api.drivers import Cap, Start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.operations.storage_types import Traits
    from openqrm.plugin_api.drivers import Grant
    from openqrm.plugin_api.records import Reader

_VOLUME = re.compile(r"volume-(\d+)")
_MAC_MARKS = re.compile("[:-]")


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: what kind it is, what it is about, and what to do about it."""

    kind: str
    subject: str
    text: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """As an operation's result shows it."""
        return {"kind": self.kind, "subject": self.subject, "text": self.text, "remedy": self.remedy}


@dataclass(frozen=True)
class Right:
    """A lease or a loan: a machine may use a volume. `required`: nothing is under way, so its grant has to be there."""

    volume: Volume
    machine: Resource
    generation: int
    holder: str
    required: bool
    ended: str = ""
    """The operation that has ended and left it behind."""

    @property
    def writes(self) -> bool:
        """Loans to read have no generation."""
        return self.generation > 0


@dataclass(frozen=True)
class Stray:
    """A grant that no lease or loan asks for, and why. `volume` is known where the grant is one of ours."""

    grant: Grant
    volume: Volume | None
    why: str


@dataclass(frozen=True)
class Comparison:
    """Both sides, and what is wrong with each."""

    strays: tuple[Stray, ...]
    missing: tuple[Right, ...]
    rights: Mapping[int, Sequence[Right]] = field(default_factory=dict)
    """By volume."""

    def findings(self) -> list[Finding]:
        """As they are reported."""
        return [
            *(_told_stray(stray) for stray in self.strays),
            *(_told_missing(right) for right in self.missing),
            *(_told_left(right) for rights in self.rights.values() for right in rights if right.ended),
        ]


def compare(reader: Reader, storage: Storage, kind: Traits, grants: Sequence[Grant], operation_id: int) -> Comparison:
    """What the storage's server gives, against our records. `operation_id` is the one that asks."""
    volumes = {volume.id: volume for volume in reader.find(Volume, storage_id=storage.id)}
    found = rights(reader, volumes, kind, operation_id)
    strays: list[Stray] = []
    seen: set[int] = set()
    for grant in dict.fromkeys(grants):
        number = _number(grant)
        if number is not None and number not in volumes and _elsewhere(reader, storage, number):
            continue  # of another storage on the same host
        held = found.get(number, ()) if number is not None else ()
        fitting = [right for right in held if _fits(grant, right)]
        seen.update(id(right) for right in fitting)
        if not fitting:
            strays.append(Stray(grant, volumes.get(number or -1), _why(grant, volumes, held)))
    wanted = [right for held in found.values() for right in held if right.required]
    return Comparison(tuple(strays), tuple(right for right in wanted if id(right) not in seen), found)


def rights(reader: Reader, volumes: Mapping[int, Volume], kind: Traits, operation_id: int) -> dict[int, list[Right]]:
    """Leases and loans by volume; those of volumes that an operation works on need not be in effect just now."""
    numbers = sorted(volumes)
    images = {image.volume_id: image for image in reader.find(Image, volume_id__in=numbers)}
    busy = _busy(reader, operation_id)
    granted = Cap.AUTHORIZE in kind.capabilities and kind.start is not Start.DISK
    found: dict[int, list[Right]] = {}
    for number, volume in volumes.items():
        image = images.get(number)
        lease = reader.one(Lease, held_image=image.id) if image else None
        if lease is not None:
            settled = number not in busy and granted
            found.setdefault(number, []).append(_of_lease(reader, volume, lease, required=settled))
    for loan in reader.find(Loan, volume_id__in=numbers, state=LeaseState.HELD):
        found.setdefault(loan.volume_id, []).append(_of_loan(reader, volumes[loan.volume_id], loan, busy))
    return found


def _busy(reader: Reader, operation_id: int) -> set[int]:
    """The volumes that other unfinished operations work on."""
    targets = reader.find(OperationTarget, operation_id__ne=operation_id)
    matched = (_VOLUME.fullmatch(one.target) for one in targets)
    return {int(found[1]) for found in matched if found}


def _of_lease(reader: Reader, volume: Volume, lease: Lease, *, required: bool) -> Right:
    appliance = reader.get(Appliance, lease.appliance_id)
    machine = reader.get(Resource, lease.resource_id)
    runs = appliance.phase is AppliancePhase.RUNNING
    return Right(volume, machine, lease.generation, f"appliance {appliance.name}", required and runs)


def _of_loan(reader: Reader, volume: Volume, loan: Loan, busy: set[int]) -> Right:
    """One of an appliance outlives the operation that took it: a root in memory is filled at every boot."""
    operation = reader.get(Operation, loan.operation_id)
    machine = reader.get(Resource, loan.resource_id)
    over = operation.status not in UNFINISHED
    lease = reader.one(Lease, held_appliance=loan.appliance_id) if loan.appliance_id is not None else None
    ended = f"operation {operation.id} ({operation.name})" if over and lease is None else ""
    required = over and lease is not None and volume.id not in busy
    return Right(volume, machine, loan.generation, f"operation {operation.id} ({operation.name})", required, ended)


def _number(grant: Grant) -> int | None:
    matched = _VOLUME.fullmatch(grant.volume)
    return int(matched[1]) if matched else None


def _elsewhere(reader: Reader, storage: Storage, number: int) -> bool:
    """Whether the volume is known, and on another storage of the same host, whose own audit looks at it."""
    for volume in reader.find(Volume, id=number):
        other = reader.get(Storage, volume.storage_id)
        return other.id != storage.id and _host(reader, other) == _host(reader, storage)
    return False


def _host(reader: Reader, storage: Storage) -> str:
    return reader.get(Resource, storage.resource_id).address or f"resource {storage.resource_id}"


def _fits(grant: Grant, right: Right) -> bool:
    if grant.writes != right.writes or not known_as(grant.client, right.machine):
        return False
    return not right.writes or grant.generation == right.generation


def known_as(client: str, machine: Resource) -> bool:
    """Whether a server's name of a client is this machine's: its address, MAC address or name, or made of one."""
    text = client.lower()
    names = [name for name in (machine.address, machine.name) if name]
    if any(re.search(rf"(?<![0-9a-z.:-]){re.escape(name)}(?![0-9a-z.:-])", text) for name in names):
        return True
    return bool(machine.mac) and _MAC_MARKS.sub("", machine.mac or "") in _MAC_MARKS.sub("", text)


def _why(grant: Grant, volumes: Mapping[int, Volume], held: Sequence[Right]) -> str:
    number = _number(grant)
    if number is None:
        return "it was made by hand"
    if number not in volumes:
        return f"there is no volume {number}"
    same = [right for right in held if known_as(grant.client, right.machine) and right.writes == grant.writes]
    if same:
        return f"its generation is {grant.generation}, not {same[0].generation}"
    if held:
        return f"the volume is {held[0].machine.name}'s, for {held[0].holder}"
    return "no lease or loan is held" if grant.writes else "it is lent to nobody"


def _told_stray(stray: Stray) -> Finding:
    subject = f"volume {stray.volume.name}" if stray.volume else stray.grant.location or stray.grant.volume
    does = "may write" if stray.grant.writes else "may read"
    text = f"{stray.grant.client or 'everybody'} {does} {stray.grant.location or subject}: {stray.why}"
    return Finding("unexpected grant", subject, text, "openqrm storage audit STORAGE --fix")


def _told_missing(right: Right) -> Finding:
    does = "write" if right.writes else "read"
    text = f"{right.machine.name} may not {does} it, for {right.holder}, generation {right.generation}"
    return Finding("missing grant", f"volume {right.volume.name}", text, "openqrm storage audit STORAGE --fix")


def _told_left(right: Right) -> Finding:
    text = f"{right.ended} has ended and left it to {right.machine.name}"
    remedy = f"make sure that {right.machine.name} is off, then: openqrm volume release {right.volume.id}"
    return Finding("abandoned loan", f"volume {right.volume.name}", text, remedy)
