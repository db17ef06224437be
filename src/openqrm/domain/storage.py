"""Storages, the volumes on them and the images in the volumes."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, MegaBytes, Name, Record, Text
from openqrm.domain.states import Owner, Row, StateTable


class Storage(Record):
    """A resource plus a storage type."""

    entity: ClassVar[Entity] = Entity(
        name="storage", plural="storages", title="Storage", summary="A resource plus a storage type"
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True)]
    type: Annotated[
        Name,
        Attr(
            "Type",
            help="a pool joined with an export",
            filter=True,
            listed=True,
            immutable=True,
            known="storage-types",
        ),
    ]
    resource_id: Annotated[Id, Attr("Resource", ref="resource", filter=True, listed=True, immutable=True)]
    settings: Annotated[dict[str, Any], Attr("Settings", help="fields of the storage type")] = Field(
        default_factory=dict
    )


class VolumePhase(StrEnum):
    """Where a volume is in its life."""

    CREATING = "creating"
    READY = "ready"
    REMOVING = "removing"


VOLUME_PHASES = StateTable(
    name="volume phase",
    initial=VolumePhase.CREATING,
    states=tuple(VolumePhase),
    rows=(
        Row(VolumePhase.CREATING, "created", VolumePhase.READY, "the pool made it"),
        Row(VolumePhase.READY, "remove", VolumePhase.REMOVING, "the pool is asked to remove it"),
        Row(VolumePhase.CREATING, "remove", VolumePhase.REMOVING, "an abandoned creation is cleaned up"),
        Row(VolumePhase.REMOVING, "remove", VolumePhase.REMOVING, "an abandoned removal is asked for again"),
    ),
    owners=(
        Owner(VolumePhase.CREATING, "volume.create, volume.import, volume.clone", "abandoned: volume.remove"),
        Owner(VolumePhase.REMOVING, "volume.remove", "abandoned: volume.remove again"),
    ),
)


class Volume(Record):
    """An image location on a storage."""

    entity: ClassVar[Entity] = Entity(
        name="volume",
        plural="volumes",
        title="Volume",
        summary="An image location on a storage",
        unique=(("storage_id", "name"),),
        states={"phase": VOLUME_PHASES},
    )

    name: Annotated[Name, Attr("Name", filter=True, search=True, listed=True, immutable=True)]
    storage_id: Annotated[Id, Attr("Storage", ref="storage", filter=True, listed=True, immutable=True)]
    size_mb: Annotated[MegaBytes, Attr("Size", unit="MB", help="0: as large as the pool allows", listed=True)] = 0
    root_device: Annotated[
        str,
        Field(max_length=1024),
        Attr("Root device identifier", help="how a machine finds it", derived=True),
    ] = ""
    parent_id: Annotated[
        Id | None,
        Attr(
            "Cloned from",
            help="a volume's id; that volume may be gone since",
            filter=True,
            immutable=True,
            derived=True,
        ),
    ] = None
    phase: Annotated[VolumePhase, Attr("Phase", filter=True, listed=True, derived=True)] = VolumePhase.CREATING
    generation: Annotated[int, Field(ge=0), Attr("Generation", help="of the last lease; only grows", derived=True)] = 0
    comment: Annotated[str, Field(max_length=200), Attr("Comment")] = ""


DEVICE = r"^(/dev/[A-Za-z0-9][A-Za-z0-9/_.-]*)?$"
"""A local block device, or empty."""
LOCAL_ROOT_DEVICES = (
    "/dev/sda1",
    "/dev/sda2",
    "/dev/sda3",
    "/dev/vda1",
    "/dev/vda2",
    "/dev/nvme0n1p1",
    "/dev/nvme0n1p2",
    "/dev/hda1",
    "/dev/md0",
)
"""Where local systems usually have their root; offered to choose from."""
LocalDevice = Annotated[str, Field(max_length=255, pattern=DEVICE)]


class Image(Record):
    """A logical server image: a volume plus deployment parameters."""

    entity: ClassVar[Entity] = Entity(
        name="image", plural="images", title="Image", summary="A volume plus deployment parameters"
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True)]
    volume_id: Annotated[Id, Attr("Volume", ref="volume", unique=True, filter=True, listed=True, immutable=True)]
    version: Annotated[str, Field(max_length=64), Attr("Version", listed=True)] = ""
    deployment: Annotated[
        Name, Attr("Deployment type", help="how a machine mounts it", filter=True, listed=True, derived=True)
    ] = "nfs-root"
    root_fs: Annotated[str, Field(max_length=32), Attr("Root file system", help="empty: the export's default")] = ""
    root_password_hash: Annotated[
        str,
        Field(max_length=512),
        Attr("Root password", help="stored as a crypt(3) hash", secret=True, derived=True),
    ] = ""
    install_from_id: Annotated[
        Id | None,
        Attr("Install from image", ref="image", help="copied into the volume when a machine next deploys the image"),
    ] = None
    install_from_device: Annotated[
        LocalDevice, Attr("Install from device", help="a local root device of the machine, copied into the volume once")
    ] = ""
    transfer_to_id: Annotated[
        Id | None, Attr("Transfer to image", ref="image", help="the root is copied there at the next deployment")
    ] = None
    transfer_to_device: Annotated[
        LocalDevice, Attr("Transfer to device", help="a local device of the machine, which the root is copied to once")
    ] = ""
    fresh: Annotated[
        bool,
        Attr("Fresh clone", help="machine-id and SSH host keys are made anew at the next boot", derived=True),
    ] = False
    comment: Annotated[Text, Attr("Comment")] = ""
