"""What a machine is told to deploy, computed from the lease it holds when it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, ForbiddenError
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import BootTicket, Stage, TokenPurpose, meant_to_run
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations import machine_orders, machine_tokens
from openqrm.operations.mounting import Mount, Surroundings, borrowed_mount, disk_set, mount_set
from openqrm.operations.storage_types import Traits, traits
from openqrm.plugin_api.drivers import Start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.resource import MachineOrder
    from openqrm.operations.machine_tokens import Session
    from openqrm.plugin_api.hooks import BootChange
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True)
class _Held:
    """The lease a machine holds, and all that hangs on it."""

    resource: Resource
    order: MachineOrder
    lease: Lease
    appliance: Appliance
    image: Image
    kernel: Kernel
    volume: Volume
    storage: Storage
    kind: Traits


def assignments(writer: Writer, session: Session, around: Surroundings) -> dict[str, str]:
    """The answer of `/node/v1/deployment`.

    ForbiddenError for a machine that was ordered nothing; ConflictError when what it was ordered cannot be done.
    """
    held = _held(writer, session, around)
    changes = around.hooks(writer).assign(held.resource, held.appliance)
    idle = next(iter(writer.find(Kernel, default=True, limit=1)), None)
    method = _method(held, idle, changes, booted_for_it=_booted_for_it(writer, held))
    arguments = [held.kernel.arguments, *(word for change in changes for word in change.arguments)]
    files = f"{around.boot_url}/boot/kernels/{held.kernel.name}"
    return {
        "ORDER": str(held.order.id),
        "APPLIANCE": held.appliance.name,
        "IMAGE": held.image.name,
        "GENERATION": str(held.lease.generation),
        "METHOD": method,
        "START": str(held.kind.start),
        **_mounts(writer, held, around),
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
        "STORAGE_NIC": held.appliance.storage_nic,
        "TOKEN": _admission(writer, session, held.lease, method),
        "RETURN": "kexec",
    }


def _digests(kernel: Kernel, method: str, around: Surroundings) -> dict[str, str]:
    """The files come over plain HTTP; only those that this method fetches are looked at."""
    wanted = {"switch": ("modules.tar.gz",), "kexec": ("vmlinuz", "initramfs")}.get(method, ())
    names = {"VMLINUZ_SHA256": "vmlinuz", "INITRAMFS_SHA256": "initramfs", "MODULES_SHA256": "modules.tar.gz"}
    return {key: around.digest(kernel.name, name) if name in wanted else "" for key, name in names.items()}


def _held(reader: Reader, session: Session, around: Surroundings) -> _Held:
    resource = reader.get(Resource, session.resource_id)
    order = machine_orders.deploy_pending(reader, resource)
    lease = reader.one(Lease, held_resource=resource.id)
    appliance = reader.get(Appliance, lease.appliance_id) if lease else None
    if resource.boot_id != session.boot_id or session.stage is not Stage.INITRAMFS or order is None:
        raise ForbiddenError("this boot of this machine has no order to deploy anything")
    if lease is None or appliance is None or not meant_to_run(lease, appliance):
        raise ForbiddenError("this machine holds no lease of an appliance that is meant to run")
    image = reader.get(Image, lease.image_id)
    volume = reader.get(Volume, image.volume_id)
    storage = reader.get(Storage, volume.storage_id)
    kernel, kind = _kernel(reader, appliance), traits(around.settings, storage)
    return _Held(resource, order, lease, appliance, image, kernel, volume, storage, kind)


def _kernel(reader: Reader, appliance: Appliance) -> Kernel:
    if appliance.kernel_id is not None:
        return reader.get(Kernel, appliance.kernel_id)
    for kernel in reader.find(Kernel, default=True, limit=1):
        return kernel
    raise ConflictError("there is no default kernel", remedy="openqrm kernel set-default NAME")


def _mounts(reader: Reader, held: _Held, around: Surroundings) -> dict[str, str]:
    """The root, and what it is filled from (FROM_) or copied to (TO_). Whole disks (STORE_) come from a mount, too."""
    if held.kind.start is Start.SAN:
        return {"DEPLOYMENT": held.image.deployment}
    image = held.image
    root = Mount(
        held.storage,
        held.volume,
        held.resource,
        image.deployment,
        held.lease.generation,
        held.kind.secrets,
        image.root_fs,
    )
    if held.kind.start is Start.DISK:
        return disk_set(reader, around, root, held.kind.through)
    found = mount_set(reader, around, root)
    for loan in reader.find(Loan, appliance_id=held.appliance.id, state=LeaseState.HELD):
        found |= mount_set(reader, around, borrowed_mount(reader, around, loan), "TO_" if loan.generation else "FROM_")
    for prefix, device in (("FROM_", image.install_from_device), ("TO_", image.transfer_to_device)):
        if device:
            found[f"{prefix}DEVICE"] = device
    return found


def _booted_for_it(reader: Reader, held: _Held) -> bool:
    """Whether the machine booted by a ticket since it was ordered to deploy: the boot was made for this appliance."""
    ordered = held.order.created_at
    tickets = reader.find(BootTicket, resource_id=held.resource.id, redeemed_by=held.resource.boot_id)
    return any(row.updated_at is not None and (ordered is None or row.updated_at >= ordered) for row in tickets) or (
        held.order.operation_id is None
    )


def _method(held: _Held, idle: Kernel | None, changes: Sequence[BootChange], *, booted_for_it: bool) -> str:
    """Switch when what runs is what is wanted; never boot twice for the same order. `idle`: what idle machines boot.

    What boots from a SAN or from its own disks does so by its boot script, after a restart.
    """
    if held.kind.start is not Start.ROOT:
        return "reboot" if held.kind.start is Start.SAN else "disk"
    kernel, running = held.kernel, held.resource.kernel_running
    same = kernel.version == running
    if booted_for_it:
        if not same:
            raise ConflictError(
                f"kernel {kernel.name} is registered as {kernel.version}, but runs as {running}",
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
