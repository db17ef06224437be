"""Images: a volume plus deployment parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, InvalidError, UnsupportedError
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.model import Attr, Id, Name, Text
from openqrm.domain.storage import LOCAL_ROOT_DEVICES, Image, LocalDevice, Storage, Volume, VolumePhase
from openqrm.operations import capabilities, in_use
from openqrm.operations.storage_types import traits
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Reader, Writer


_DEVICES = f"usually one of {', '.join(LOCAL_ROOT_DEVICES)}"


class TransferArguments(Arguments):
    """What the image is filled from and copied to when a machine next deploys it. Left out stays, empty clears."""

    install_from_id: Annotated[
        Id | None,
        Attr(
            "Install from image",
            ref="image",
            help="at the next deployment it replaces everything that is in the volume; -1: nothing",
        ),
    ] = None
    install_from_device: Annotated[
        LocalDevice | None,
        Attr(
            "Install from device",
            help=f"a local root device of the machine, which replaces everything that is in the volume; {_DEVICES}",
        ),
    ] = None
    transfer_to_id: Annotated[
        Id | None,
        Attr(
            "Transfer to image",
            ref="image",
            help="at the next deployment the root replaces everything that is in it; -1: nowhere",
        ),
    ] = None
    transfer_to_device: Annotated[
        LocalDevice | None,
        Attr(
            "Transfer to device",
            help=f"a local device of the machine; the root replaces everything that is in it; {_DEVICES}",
        ),
    ] = None


class NewArguments(Arguments):
    """An image on a volume that is ready."""

    name: Annotated[Name, Attr("Name")]
    volume_id: Annotated[Id, Attr("Volume", ref="volume")]
    version: Annotated[str, Field(max_length=64), Attr("Version")] = ""
    root_fs: Annotated[str, Field(max_length=32), Attr("Root file system")] = ""
    comment: Annotated[Text, Attr("Comment")] = ""


class CreateArguments(TransferArguments, NewArguments):
    """An image on a volume that is ready, and what it is filled from and copied to."""


class TextArguments(Arguments):
    """What may change later. Fields left out stay as they are."""

    name: Annotated[Name | None, Attr("Name")] = None
    version: Annotated[str | None, Field(max_length=64), Attr("Version")] = None
    comment: Annotated[str | None, Field(max_length=1000), Attr("Comment")] = None


class UpdateArguments(TransferArguments, TextArguments):
    """What describes the image, and what it is filled from and copied to. Fields left out stay as they are."""


def create(writer: Writer, call: Call) -> Image:
    """Record an image. One on a cloned volume starts fresh: machine-id and host keys are made anew at first boot."""
    given: CreateArguments = call.arguments
    volume = writer.get(Volume, given.volume_id)
    if volume.phase is not VolumePhase.READY:
        raise ConflictError(f"volume {volume.name} is {volume.phase}, not ready", field="volume_id")
    storage = writer.get(Storage, volume.storage_id)
    deployment = call.settings["deployments"].get(storage.type)
    if deployment is None:
        raise ConflictError(
            f"no installed plug-in brings storage type {storage.type}",
            field="volume_id",
            remedy="install the plug-in that made this storage",
        )
    values = given.model_dump(exclude=set(TransferArguments.model_fields)) | _transfers(given)
    image = Image(**values, deployment=deployment, fresh=volume.parent_id is not None)
    _refuse_unfit(writer, call, image, set(given.model_fields_set))
    return writer.insert(image)


def update(writer: Writer, call: Call) -> Image:
    """Change what describes the image, or what it is filled from and copied to."""
    image: Image = call.target  # type: ignore[assignment]  # the declaration's target is Image
    given: UpdateArguments = call.arguments
    changes = {name: getattr(given, name) for name in given.model_fields_set if name in TextArguments.model_fields}
    if changes.get("name", "") is None:
        raise InvalidError("an image has a name", field="name", remedy="leave it out to keep it")
    texts = {name: value if value is not None else "" for name, value in changes.items()}
    changed = image.model_copy(update=texts | _transfers(given))
    _refuse_unfit(writer, call, changed, set(given.model_fields_set))
    return writer.update(image, **texts, **_transfers(given))


def _transfers(given: TransferArguments) -> dict[str, Any]:
    """What was said about transfers, as it is stored; null, -1 and the empty text clear."""
    found = {name: getattr(given, name) for name in TransferArguments.model_fields if name in given.model_fields_set}
    return {
        name: (value or "") if name.endswith("_device") else (None if value == -1 else value)
        for name, value in found.items()
    }


def _refuse_unfit(reader: Reader, call: Call, image: Image, asked: set[str]) -> None:
    """InvalidError or UnsupportedError for transfers that cannot be; only what was asked is looked at."""
    for identity, device, what in (
        ("install_from_id", "install_from_device", "filled from"),
        ("transfer_to_id", "transfer_to_device", "copied to"),
    ):
        if not asked & {identity, device}:
            continue
        if getattr(image, identity) is not None and getattr(image, device):
            raise InvalidError(
                f"an image is {what} another image or a local device, not both",
                field=device,
                remedy=f"clear the other one with it: --{_option(identity)} -1, or --{_option(device)} ''",
            )
        if getattr(image, identity) is not None or getattr(image, device):
            _refuse_disks(reader, call, image, identity)
        if getattr(image, identity) is not None:
            _refuse_other(reader, call, image, identity)


def _refuse_disks(reader: Reader, call: Call, image: Image, field: str) -> None:
    """Files cannot be copied from or into what holds whole disks."""
    volume = reader.get(Volume, image.volume_id)
    if traits(call.settings, reader.get(Storage, volume.storage_id)).agentless:
        raise UnsupportedError(f"image {image.name} holds whole disks, no files that could be copied", field=field)


def _refuse_other(reader: Reader, call: Call, image: Image, field: str) -> None:
    """The other image is not this one, and its storage can let another machine read it or write it."""
    found = reader.find(Image, id=getattr(image, field), limit=1)
    if not found:
        raise InvalidError(f"there is no image {getattr(image, field)}", field=field)
    other = found[0]
    if other.id == image.id:
        raise InvalidError("an image is not filled from or copied to itself", field=field)
    storage = reader.get(Storage, reader.get(Volume, other.volume_id).storage_id)
    kind = traits(call.settings, storage)
    if field == "install_from_id":
        capabilities.require(call.settings, storage, Cap.LEND, field)
    elif kind.agentless or kind.own_machine or kind.in_memory:
        raise UnsupportedError(
            f"image {other.name} is on storage {storage.name} ({storage.type}), which other machines cannot write to",
            field=field,
            remedy="transfer to an NFS image",
        )


def _option(field: str) -> str:
    return field.removesuffix("_id").replace("_", "-")


def remove(writer: Writer, call: Call) -> None:
    """Forget an image; the volume and its data stay."""
    image: Image = call.target  # type: ignore[assignment]  # the declaration's target is Image
    users = writer.find(Appliance, image_id=image.id, limit=3)
    if users:
        names = ", ".join(user.name for user in users)
        raise ConflictError(f"image {image.name} is used by appliance {names}", remedy="remove those first")
    in_use.refuse(
        writer,
        image,
        (Image, "install_from_id"),
        (Image, "transfer_to_id"),
        remedy="openqrm image update OTHER --install-from -1 --transfer-to -1",
    )
    for lease in writer.find(Lease, image_id=image.id, state=LeaseState.RELEASED):
        writer.delete(Lease, lease.id)  # of appliances that have another image since
    writer.delete(Image, image.id)


_HERE = "openqrm.operations.image"
_TRANSFERS = tuple(TransferArguments.model_fields)
_REPLACES = (
    "What an image is filled from replaces everything that is in its volume at its next deployment, and what it is "
    "copied to loses everything that is in it."
)
"""Asked about here: the start that does it is called by a failover too, which nobody answers."""

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="image.create",
        title="Create an image",
        summary=f"Give a volume the parameters it is deployed with. {_REPLACES}",
        creates=Image,
        arguments=CreateArguments,
        destroys=True,
        destroys_given=_TRANSFERS,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="image.update",
        title="Change an image",
        summary=f"Change name, version or comment, or what it is filled from and copied to. {_REPLACES}",
        target=Image,
        arguments=UpdateArguments,
        destroys=True,
        destroys_given=_TRANSFERS,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="image.remove",
        title="Remove an image",
        summary="Forget an image; its volume and data stay.",
        target=Image,
        destroys=True,
        act=f"{_HERE}:remove",
    ),
)
