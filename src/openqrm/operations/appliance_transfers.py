"""What an appliance's image is filled from, and what it is copied to, when a machine deploys it: by loans of volumes.

A transfer happens once: when the appliance runs, its loans are returned and the image forgets it. A root in memory is
filled at every boot, so what it is filled from stays lent to the machine until the appliance stops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import LeaseState, Loan
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import loans
from openqrm.operations.grants import Access, client_of, prefixed
from openqrm.operations.storage_types import Traits, traits
from openqrm.plugin_api.drivers import Start
from openqrm.plugin_api.operation import shared
from openqrm.plugin_api.steps import Change
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.appliance import Appliance
    from openqrm.plugin_api.drivers import Client, Lends, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Step, Steps

FROM, TO = "from-", "to-"
"""What the names of their steps begin with."""
FIELDS: dict[str, Any] = {
    "install_from_id": None,
    "install_from_device": "",
    "transfer_to_id": None,
    "transfer_to_device": "",
}
"""An image that is to be transferred nowhere."""


def wanted(image: Image) -> bool:
    """Whether the image's next deployment transfers anything."""
    return any(getattr(image, name) != nothing for name, nothing in FIELDS.items())


def borrow(reader: Reader, appliance: Appliance, settings: Mapping[str, Any]) -> Steps:
    """What is claimed in the moment of the call. ConflictError for an image that cannot be transferred or filled."""
    image = reader.get(Image, appliance.image_id)
    kind = traits(settings, reader.get(Storage, reader.get(Volume, image.volume_id).storage_id))
    _refuse_unfit(image, kind)
    sides = ((FROM, image.install_from_id, False), (TO, image.transfer_to_id, True))
    return tuple(_borrow(reader, appliance, side, number, write) for side, number, write in sides if number is not None)


def targets(reader: Reader, appliance: Appliance, started: Image | None) -> tuple[str, ...]:
    """What a start of the image `started` borrows, and what was borrowed for the appliance and is not returned yet."""
    held = reader.find(Loan, appliance_id=appliance.id, state=LeaseState.HELD)
    read = [loan.volume_id for loan in held if not loan.generation]
    written = [loan.volume_id for loan in held if loan.generation]
    if started is not None:
        for number, volumes in ((started.install_from_id, read), (started.transfer_to_id, written)):
            if number is not None:
                volumes.append(reader.get(Image, number).volume_id)
    return (*(f"volume-{number}" for number in written), *(shared(loans.readers(number)) for number in read))


def _refuse_unfit(image: Image, kind: Traits) -> None:
    if wanted(image) and kind.start is not Start.ROOT:
        raise ConflictError(
            f"image {image.name} holds whole disks: files cannot be copied from or into it",
            field="image_id",
            remedy=f"openqrm image update {image.name} --install-from-id -1 --transfer-to-id -1",
        )
    if kind.in_memory and image.install_from_id is None:
        raise ConflictError(
            f"image {image.name} is a root in memory: there is nothing that it is filled from",
            field="image_id",
            remedy=f"openqrm image update {image.name} --install-from-id NFS_IMAGE",
        )


def _borrow(reader: Reader, appliance: Appliance, side: str, image_id: int, write: bool) -> Change:
    other = reader.get(Image, image_id)
    return Change(
        name=f"{side}borrow",
        title=f"Borrow {other.name}'s volume to {'write' if write else 'read'} it",
        change="loan.take",
        arguments={
            "volume_id": other.volume_id,
            "resource_id": Output(step="lease", field="resource_id").model_dump(),
            "write": write,
            "appliance_id": appliance.id,
        },
        undo="loan.undo-take",
    )


@dataclass(frozen=True)
class _Read:
    """A volume that is lent to a machine."""

    loan: Loan
    storage: Storage
    volume: Volume
    place: StorageContext
    export: Lends
    location: str
    client: Client

    def lend(self, context: PlanContext) -> Steps:
        return prefixed(self.export.lend(self.place, self.volume, self.location, self.client, context.facts), FROM)

    def reclaim(self, context: PlanContext) -> Steps:
        found = self.export.reclaim(self.place, self.volume, self.location, self.client, context.facts)
        return prefixed(found, FROM)


class Transfers:
    """The loans of an appliance, looked up once per planning."""

    def __init__(self, context: PlanContext, appliance: Appliance) -> None:
        held = context.read.find(Loan, appliance_id=appliance.id, state=LeaseState.HELD)
        self._context = context
        self.reads = [_reading(context, loan) for loan in held if loan.generation == 0]
        self.writes = [(loan, _writing(context, loan)) for loan in held if loan.generation > 0]

    def facts(self) -> Sequence[Fact[Any]]:
        """What the exports of both sides must know."""
        drivers = self._context.drivers
        asked = [fact for one in self.reads for fact in drivers.export(one.storage).facts(one.place)]
        return [*asked, *(fact for _, access in self.writes for fact in access.facts())]

    def grant(self) -> Steps:
        """Let the machine read the one side, and write the other."""
        lent = tuple(step for one in self.reads for step in one.lend(self._context))
        return (*lent, *(step for _, access in self.writes for step in access.grant(self._context)))

    def end(self) -> Steps:
        """Take all of it back and return the loans."""
        steps: list[Step] = []
        for one in self.reads:
            steps += (*one.reclaim(self._context), loans.returned(f"{FROM}return", one.loan))
        for loan, access in self.writes:
            steps += (*access.revoke(self._context), loans.returned(f"{TO}return", loan))
        return _renamed_end(tuple(steps))


def once(image: Image) -> Steps:
    """The image forgets what was done."""
    if not wanted(image):
        return ()
    return (
        Change(
            name="transferred",
            title=f"{image.name} was transferred: that is done once",
            change="record.set",
            arguments={"entity": "image", "id": image.id, "set": FIELDS},
            undo="record.restore",
            undo_arguments={"entity": "image", "id": image.id},
        ),
    )


def _reading(context: PlanContext, loan: Loan) -> _Read:
    volume = context.read.get(Volume, loan.volume_id)
    storage = context.read.get(Storage, volume.storage_id)
    place = context.drivers.context(storage, context.read)
    export: Lends = context.drivers.export(storage)  # type: ignore[assignment]  # images to install from have Cap.LEND
    location = context.drivers.pool(storage).location(place, volume)
    client = client_of(context.read.get(Resource, loan.resource_id))
    return _Read(loan, storage, volume, place, export, location, client)


def _writing(context: PlanContext, loan: Loan) -> Access:
    volume = context.read.get(Volume, loan.volume_id)
    storage = context.read.get(Storage, volume.storage_id)
    machine = context.read.get(Resource, loan.resource_id)
    return Access.of(context, storage, volume, machine, loan.generation, TO)


def _renamed_end(steps: Steps) -> Steps:
    """The end of a grant in the plan that made it: its steps have the names of the beginning in front of them."""
    return prefixed(steps, "end-")
