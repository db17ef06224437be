"""What a machine is told to deploy, computed from the lease it holds when it asks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, ForbiddenError
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.machine import BootTicket, Stage, TokenPurpose, meant_to_run
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import machine_orders, machine_tokens
from openqrm.plugin_api.drivers import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from openqrm.domain.resource import MachineOrder
    from openqrm.operations.machine_tokens import Session
    from openqrm.plugin_api.hooks import BootChange
    from openqrm.plugin_api.operation import Drivers, Hooks
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True)
class Surroundings:
    """What is needed beside the database. `file` reads a node file by name; `digest` gives the SHA-256 of a kernel's
    file by both their names, empty when there is none: machines refuse that."""

    drivers: Callable[[Reader], Drivers]
    hooks: Callable[[Reader], Hooks]
    file: Callable[[Reader, str], bytes | None]
    api_url: str
    boot_url: str
    authorized_key: str
    digest: Callable[[str, str], str]


@dataclass(frozen=True)
class _Held:
    """The lease a machine holds, and all that hangs on it."""

    resource: Resource
    order: MachineOrder
    lease: Lease
    appliance: Appliance
    image: Image
    kernel: Kernel


def assignments(writer: Writer, session: Session, around: Surroundings) -> dict[str, str]:
    """The answer of `/node/v1/deployment`.

    ForbiddenError for a machine that was ordered nothing; ConflictError when what it was ordered cannot be done.
    """
    held = _held(writer, session)
    deployment, root = _root(writer, held, around)
    name = f"root-mount.{deployment}"
    hook = around.file(writer, name)
    if hook is None:
        raise ConflictError(
            f"no enabled plug-in brings {name}", remedy=f"enable the plug-in of deployment type {deployment}"
        )
    changes = around.hooks(writer).assign(held.resource, held.appliance)
    idle = next(iter(writer.find(Kernel, default=True, limit=1)), None)
    method = _method(held.kernel, idle, held.resource, changes, booted_for_it=_booted_for_it(writer, held))
    arguments = [held.kernel.arguments, *(word for change in changes for word in change.arguments)]
    files = f"{around.boot_url}/boot/kernels/{held.kernel.name}"
    fstab = root.pop("FSTAB", "")
    return {
        "ORDER": str(held.order.id),
        "APPLIANCE": held.appliance.name,
        "IMAGE": held.image.name,
        "GENERATION": str(held.lease.generation),
        "METHOD": method,
        "DEPLOYMENT": deployment,
        "HOOK_URL": f"{around.api_url}/node/v1/files/{name}",
        "HOOK_SHA256": hashlib.sha256(hook).hexdigest(),
        **root,
        "KERNEL": held.kernel.name,
        "KERNEL_VERSION": held.kernel.version,
        "KERNEL_ARGS": " ".join(word for word in arguments if word),
        "VMLINUZ_URL": f"{files}/vmlinuz",
        "INITRAMFS_URL": f"{files}/initramfs",
        "MODULES_URL": f"{files}/modules.tar.gz",
        **_digests(held.kernel, method, around),
        "ROOT_PASSWORD_HASH": held.image.root_password_hash,
        "FIRST_BOOT": "1" if held.image.fresh else "0",
        "NAME": held.appliance.name,
        "AUTHORIZED_KEY": around.authorized_key.strip(),
        "FSTAB": fstab,
        "STORAGE_NIC": held.appliance.storage_nic,
        "TOKEN": _admission(writer, session, held.lease, method),
        "RETURN": "kexec",
    }


def _digests(kernel: Kernel, method: str, around: Surroundings) -> dict[str, str]:
    """The files come over plain HTTP; only those that this method fetches are looked at."""
    wanted = {"switch": ("modules.tar.gz",), "kexec": ("vmlinuz", "initramfs")}.get(method, ())
    names = {"VMLINUZ_SHA256": "vmlinuz", "INITRAMFS_SHA256": "initramfs", "MODULES_SHA256": "modules.tar.gz"}
    return {key: around.digest(kernel.name, name) if name in wanted else "" for key, name in names.items()}


def _held(reader: Reader, session: Session) -> _Held:
    resource = reader.get(Resource, session.resource_id)
    order = machine_orders.deploy_pending(reader, resource)
    lease = reader.one(Lease, held_resource=resource.id)
    appliance = reader.get(Appliance, lease.appliance_id) if lease else None
    if resource.boot_id != session.boot_id or session.stage is not Stage.INITRAMFS or order is None:
        raise ForbiddenError("this boot of this machine has no order to deploy anything")
    if lease is None or appliance is None or not meant_to_run(lease, appliance):
        raise ForbiddenError("this machine holds no lease of an appliance that is meant to run")
    image = reader.get(Image, lease.image_id)
    return _Held(resource, order, lease, appliance, image, _kernel(reader, appliance))


def _kernel(reader: Reader, appliance: Appliance) -> Kernel:
    if appliance.kernel_id is not None:
        return reader.get(Kernel, appliance.kernel_id)
    for kernel in reader.find(Kernel, default=True, limit=1):
        return kernel
    raise ConflictError("there is no default kernel", remedy="openqrm kernel set-default NAME")


def _root(reader: Reader, held: _Held, around: Surroundings) -> tuple[str, dict[str, str]]:
    """Deployment type and attach parameters. `ROOT_*` and `FSTAB` are all that an export may add."""
    image, machine = held.image, held.resource
    client = Client(machine.id, machine.address or "", machine.mac or "", machine.name, machine.memory_mb)
    volume = reader.get(Volume, image.volume_id)
    storage = reader.get(Storage, volume.storage_id)
    drivers = around.drivers(reader)
    context = drivers.context(storage, reader)
    location = drivers.pool(storage).location(context, volume)
    given: Mapping[str, str] = drivers.export(storage).attach(context, volume, location, client)
    return image.deployment, {name: text for name, text in given.items() if name.startswith("ROOT_") or name == "FSTAB"}


def _booted_for_it(reader: Reader, held: _Held) -> bool:
    """Whether the machine booted by a ticket since it was ordered to deploy: the boot was made for this appliance."""
    ordered = held.order.created_at
    tickets = reader.find(BootTicket, resource_id=held.resource.id, redeemed_by=held.resource.boot_id)
    return any(row.updated_at is not None and (ordered is None or row.updated_at >= ordered) for row in tickets) or (
        held.order.operation_id is None
    )


def _method(
    kernel: Kernel, idle: Kernel | None, resource: Resource, changes: Sequence[BootChange], *, booted_for_it: bool
) -> str:
    """Switch when what runs is what is wanted; never boot twice for the same order. `idle`: what idle machines boot."""
    same = kernel.version == resource.kernel_running
    if booted_for_it:
        if not same:
            raise ConflictError(
                f"kernel {kernel.name} is registered as {kernel.version}, but runs as {resource.kernel_running}",
                remedy="register the kernel again under its right version",
            )
        return "switch"
    if any(change.before_kernel or change.extra_initrds for change in changes):
        return "reboot"
    same_arguments = idle is not None and kernel.arguments.split() == idle.arguments.split()
    wanted = any(change.arguments for change in changes)
    return "switch" if same and same_arguments and not wanted else "kexec"


def _admission(writer: Writer, session: Session, lease: Lease, method: str) -> str:
    """The key of the agent inside the image; a machine that boots another kernel first gets it then."""
    if method != "switch":
        return ""
    return machine_tokens.issue(
        writer, session.resource_id, TokenPurpose.ADMISSION, Stage.IMAGE, session.boot_id, lease.generation
    )
