"""What a machine needs to mount a volume: the hook of its deployment type, where the volume is, the grant's secrets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations.grants import client_of, secret_keys
from openqrm.operations.storage_types import traits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openqrm.domain.lease import Loan
    from openqrm.plugin_api.drivers import Lends
    from openqrm.plugin_api.operation import Drivers, Hooks
    from openqrm.plugin_api.records import Reader


@dataclass(frozen=True)
class Surroundings:
    """What is needed beside the database. `file` reads a node file by name; `digest` gives the SHA-256 of a kernel's
    file by both their names, empty when there is none: machines refuse that. `secret` reads the encrypted store."""

    drivers: Callable[[Reader], Drivers]
    hooks: Callable[[Reader], Hooks]
    file: Callable[[Reader, str], bytes | None]
    api_url: str
    boot_url: str
    authorized_key: str
    digest: Callable[[str, str], str]
    secret: Callable[[str], str]
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Mount:
    """A volume as one machine is to mount it: to write under a generation and with its secrets, or lent to be read."""

    storage: Storage
    volume: Volume
    machine: Resource
    deployment: str
    generation: int
    secrets: Sequence[str] = ()
    root_fs: str = ""

    @property
    def lent(self) -> bool:
        """Whether it may only be read."""
        return self.generation == 0


def mount_set(reader: Reader, around: Surroundings, mount: Mount, prefix: str = "") -> dict[str, str]:
    """`DEPLOYMENT`, `HOOK_URL`, `HOOK_SHA256`, `ROOT_FS`, `FSTAB` and all `ROOT_*` of a mount, each with the prefix.

    ConflictError when no enabled plug-in brings the hook; NotFoundError when the grant's secret is gone.
    """
    name = f"root-mount.{mount.deployment}"
    hook = around.file(reader, name)
    if hook is None:
        remedy = f"enable the plug-in of deployment type {mount.deployment}"
        raise ConflictError(f"no enabled plug-in brings {name}", remedy=remedy)
    found = {
        "DEPLOYMENT": mount.deployment,
        "HOOK_URL": f"{around.api_url}/node/v1/files/{name}",
        "HOOK_SHA256": hashlib.sha256(hook).hexdigest(),
        "ROOT_FS": mount.root_fs,
        "FSTAB": "",
        **_attached(reader, around, mount),
        **_secrets(around, mount),
    }
    return {f"{prefix}{key}": value for key, value in found.items()}


def borrowed_mount(reader: Reader, around: Surroundings, loan: Loan) -> Mount:
    """A borrowed volume as the machine that has it mounts it."""
    volume = reader.get(Volume, loan.volume_id)
    storage = reader.get(Storage, volume.storage_id)
    image = reader.one(Image, volume_id=volume.id)
    return Mount(
        storage,
        volume,
        reader.get(Resource, loan.resource_id),
        around.settings.get("deployments", {}).get(storage.type, ""),
        loan.generation,
        traits(around.settings, storage).secrets,
        image.root_fs if image is not None else "",
    )


def disk_set(reader: Reader, around: Surroundings, mount: Mount, through: str) -> dict[str, str]:
    """Whole disks: the hook of their own deployment type, and as STORE_ the mount of deployment type `through`, in
    which they lie."""
    own = {name: text for name, text in mount_set(reader, around, mount).items() if not name.startswith("ROOT_")}
    return own | mount_set(reader, around, replace(mount, deployment=through), "STORE_")


def _attached(reader: Reader, around: Surroundings, mount: Mount) -> dict[str, str]:
    """`ROOT_*` and `FSTAB` are all that an export may add."""
    drivers = around.drivers(reader)
    context = drivers.context(mount.storage, reader)
    location = drivers.pool(mount.storage).location(context, mount.volume)
    export, client = drivers.export(mount.storage), client_of(mount.machine)
    given: Mapping[str, str]
    if mount.lent:
        lender: Lends = export  # type: ignore[assignment]  # only exports with Cap.LEND lend
        given = lender.lent(context, mount.volume, location, client)
    else:
        given = export.attach(context, mount.volume, location, client)
    return {name: text for name, text in given.items() if name.startswith("ROOT_") or name == "FSTAB"}


def _secrets(around: Surroundings, mount: Mount) -> dict[str, str]:
    keys = {} if mount.lent else secret_keys(mount.volume.id, mount.generation, mount.secrets)
    return {f"ROOT_SECRET_{name.upper()}": around.secret(key) for name, key in keys.items()}
