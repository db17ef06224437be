"""Images: a volume plus deployment parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.model import Attr, Id, Name, Text
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


class CreateArguments(Arguments):
    """An image on a volume that is ready."""

    name: Annotated[Name, Attr("Name")]
    volume_id: Annotated[Id, Attr("Volume", ref="volume")]
    version: Annotated[str, Field(max_length=64), Attr("Version")] = ""
    root_fs: Annotated[str, Field(max_length=32), Attr("Root file system")] = ""
    comment: Annotated[Text, Attr("Comment")] = ""


class UpdateArguments(Arguments):
    """What may change later. Fields left out stay as they are."""

    name: Annotated[Name | None, Attr("Name")] = None
    version: Annotated[str | None, Field(max_length=64), Attr("Version")] = None
    comment: Annotated[str | None, Field(max_length=1000), Attr("Comment")] = None


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
    return writer.insert(Image(**given.model_dump(), deployment=deployment, fresh=volume.parent_id is not None))


def update(writer: Writer, call: Call) -> Image:
    """Change what describes the image."""
    image: Image = call.target  # type: ignore[assignment]  # the declaration's target is Image
    given: UpdateArguments = call.arguments
    changes = {name: getattr(given, name) for name in given.model_fields_set}
    if changes.get("name", "") is None:
        raise InvalidError("an image has a name", field="name", remedy="leave it out to keep it")
    return writer.update(image, **{name: value if value is not None else "" for name, value in changes.items()})


def remove(writer: Writer, call: Call) -> None:
    """Forget an image; the volume and its data stay."""
    image: Image = call.target  # type: ignore[assignment]  # the declaration's target is Image
    users = writer.find(Appliance, image_id=image.id, limit=3)
    if users:
        names = ", ".join(user.name for user in users)
        raise ConflictError(f"image {image.name} is used by appliance {names}", remedy="remove those first")
    writer.delete(Image, image.id)


_HERE = "openqrm.operations.image"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="image.create",
        title="Create an image",
        summary="Give a volume the parameters it is deployed with.",
        creates=Image,
        arguments=CreateArguments,
        act=f"{_HERE}:create",
    ),
    Operation(
        name="image.update",
        title="Change an image",
        summary="Change name, version or comment.",
        target=Image,
        arguments=UpdateArguments,
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
