"""Kernels: added from a root directory on the server, built into what machines boot, one of them the default."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, InvalidError
from openqrm.domain.kernel import Kernel, KernelLine
from openqrm.domain.model import Attr, KernelVersion, Name
from openqrm.domain.resource import SERVER_ID
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.operation import Arguments, Operation, Phase
from openqrm.plugin_api.steps import Change, Command, Irreversible, Plan, Run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader, Writer

_LOOK = "name a version that is installed below the location on the server (ls LOCATION/boot)"
_BUILD_SECONDS = 600
"""A distribution kernel has thousands of modules to pack."""


class AddArguments(Arguments):
    """Where the kernel's files are: LOCATION/boot/vmlinuz-VERSION and LOCATION/lib/modules/VERSION."""

    name: Annotated[Name, Attr("Name")]
    version: Annotated[KernelVersion, Attr("Version")]
    location: Annotated[
        str, Field(min_length=1, max_length=4096, pattern=r"^/[^\x00]*$"), Attr("Location", help="root of the files")
    ] = "/"
    arguments: Annotated[KernelLine, Attr("Arguments", help="added to the kernel line")] = ""


class UpdateArguments(Arguments):
    """What may change later."""

    arguments: Annotated[KernelLine, Attr("Arguments", help="added to the kernel line")]


def admit_add(reader: Reader, call: Call) -> Plan:
    """The name is taken in the moment of the call."""
    del reader
    given: AddArguments = call.arguments
    return Plan(
        steps=(
            Change(
                name="record",
                title=f"Record kernel {given.name}",
                change="record.create",
                arguments={"entity": "kernel", "values": given.model_dump(mode="json")},
                undo="record.uncreate",
                undo_arguments={"entity": "kernel"},
            ),
        )
    )


def _root(location: str) -> str:
    return location.rstrip("/")


def add_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """Whether the kernel's files are there."""
    given: AddArguments = context.arguments
    root = _root(given.location)
    return tuple(
        Fact(
            name=name,
            host=SERVER_ID,
            argv=("stat", "-L", "-c", "%F", path),
            parse=str.strip,
            absent=(1,),
            missing="",
        )
        for name, path in (
            ("vmlinuz", f"{root}/boot/vmlinuz-{given.version}"),
            ("modules", f"{root}/lib/modules/{given.version}"),
        )
    )


def plan_add(context: PlanContext) -> Plan:
    """Copy the kernel, pack its modules and build its initramfs below the boot directory."""
    given: AddArguments = context.arguments
    root = _root(given.location)
    if not str(context.facts["vmlinuz"]).startswith("regular"):
        raise InvalidError(f"{root}/boot/vmlinuz-{given.version} does not exist", field="version", remedy=_LOOK)
    if context.facts["modules"] != "directory":
        raise InvalidError(f"{root}/lib/modules/{given.version} does not exist", field="version", remedy=_LOOK)
    kernel = context.read.one(Kernel, name=given.name)
    if kernel is None:
        raise ConflictError(f"kernel {given.name} was removed meanwhile")
    return Plan(
        steps=(
            *_files(context, given, root),
            *context.hooks.kernel("add", kernel),
            Change(
                name="ready",
                title="Offer the kernel, as the default if there is none",
                change="kernel.offer",
                arguments={"kernel_id": kernel.id},
                undo="kernel.withdraw",
                undo_arguments={"kernel_id": kernel.id},
            ),
        )
    )


def _files(context: PlanContext, given: AddArguments, root: str) -> tuple[Run, ...]:
    folder = f"{context.settings['boot_dir']}/kernels/{given.name}"
    state = context.settings["state_dir"]
    remove = Command(argv=("rm", "-rf", "--", folder))
    later = Irreversible(reason="the folder is removed by the undo of its creation")
    build = (
        *(sys.executable, "-m", "openqrm.cli.main", "initramfs", "build", "-v", given.version, "-l", root or "/"),
        *("-o", f"{folder}/initramfs", "--publish", folder),
        *("--ca", f"{state}/tls/ca.pem", "--key", f"{state}/keys/installation.pub"),
    )
    return (
        Run(
            name="folder",
            title="Make the kernel's boot folder",
            host=SERVER_ID,
            do=Command(argv=("mkdir", "-p", "--", folder)),
            undo=remove,
        ),
        Run(
            name="vmlinuz",
            title="Copy the kernel",
            host=SERVER_ID,
            do=Command(argv=("cp", "--", f"{root}/boot/vmlinuz-{given.version}", f"{folder}/vmlinuz")),
            undo=later,
        ),
        Run(
            name="modules",
            title="Copy its modules",
            host=SERVER_ID,
            do=Command(
                argv=("cp", "-rT", "--reflink=auto", "--", f"{root}/lib/modules/{given.version}", f"{folder}/modules")
            ),
            undo=later,
            timeout=_BUILD_SECONDS,
        ),
        Run(
            name="initramfs",
            title="Build the initramfs and pack the modules",
            host=SERVER_ID,
            do=Command(argv=build),
            undo=later,
            timeout=_BUILD_SECONDS,
        ),
    )


def update(writer: Writer, call: Call) -> Kernel:
    """Change the kernel line; machines see it at their next boot."""
    kernel: Kernel = call.target  # type: ignore[assignment]  # the declaration's target is Kernel
    return writer.update(kernel, arguments=call.arguments.arguments)


def set_default(writer: Writer, call: Call) -> Kernel:
    """Idle machines boot this kernel from now on."""
    kernel: Kernel = call.target  # type: ignore[assignment]  # the declaration's target is Kernel
    if not kernel.ready:
        raise ConflictError(f"kernel {kernel.name} is not built yet", remedy="wait for kernel.add, or add it again")
    for other in writer.find(Kernel, default=True):
        writer.update(other, default=False, default_mark=None)
    return writer.update(writer.get(Kernel, kernel.id), default=True, default_mark=1)


def offer(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`kernel_id`: its files are served. It is the default if there is none in this moment, not when it was planned."""
    kernel = writer.get(Kernel, int(call.arguments["kernel_id"]))
    first = kernel.default or not writer.count(Kernel, default=True)
    writer.update(kernel, ready=True, default=first, default_mark=1 if first else None)
    return {"default": first}


def withdraw(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`kernel_id`: undo of `kernel.offer`; its files are about to go."""
    kernel = writer.get(Kernel, int(call.arguments["kernel_id"]))
    writer.update(kernel, ready=False, default=False, default_mark=None)
    return {}


def admit_remove(reader: Reader, call: Call) -> Plan:
    """Refused while the kernel is the default or an appliance names it; no machine boots it from here on."""
    kernel: Kernel = call.target  # type: ignore[assignment]  # the declaration's target is Kernel
    if kernel.default:
        raise ConflictError(f"kernel {kernel.name} is the default", remedy="set another default first")
    users = reader.find(Appliance, kernel_id=kernel.id, limit=3)
    if users:
        names = ", ".join(user.name for user in users)
        raise ConflictError(f"kernel {kernel.name} is used by appliance {names}", remedy="change those first")
    return Plan(
        steps=(
            Change(
                name="withdraw",
                title="Offer the kernel no more",
                change="record.set",
                arguments={"entity": "kernel", "id": kernel.id, "set": {"ready": False}},
                undo=Irreversible(reason="a removal goes forward"),
            ),
        )
    )


def plan_remove(context: PlanContext) -> Plan:
    """Remove its files and forget it."""
    kernel: Kernel = context.target  # type: ignore[assignment]  # the declaration's target is Kernel
    forward = Irreversible(reason="a removal goes forward")
    folder = f"{context.settings['boot_dir']}/kernels/{kernel.name}"
    return Plan(
        steps=(
            *context.hooks.kernel("remove", kernel),
            Run(
                name="files",
                title="Remove its files",
                host=SERVER_ID,
                do=Command(argv=("rm", "-rf", "--", folder)),
                undo=forward,
            ),
            Change(
                name="forget",
                title=f"Forget kernel {kernel.name}",
                change="record.delete",
                arguments={"entity": "kernel", "id": kernel.id},
                undo=forward,
            ),
        )
    )


_HERE = "openqrm.operations.kernel"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="kernel.add",
        title="Add a kernel",
        summary="Register a kernel from LOCATION and build what machines boot; the first one becomes the default.",
        creates=Kernel,
        arguments=AddArguments,
        admit=f"{_HERE}:admit_add",
        phases=(Phase("build", plan=f"{_HERE}:plan_add", facts=f"{_HERE}:add_facts"),),
    ),
    Operation(
        name="kernel.update",
        title="Change a kernel",
        summary="Change the kernel line's arguments.",
        target=Kernel,
        arguments=UpdateArguments,
        act=f"{_HERE}:update",
    ),
    Operation(
        name="kernel.set-default",
        title="Make a kernel the default",
        summary="Idle machines boot this kernel from now on.",
        target=Kernel,
        act=f"{_HERE}:set_default",
    ),
    Operation(
        name="kernel.remove",
        title="Remove a kernel",
        summary="Remove a kernel and its boot files.",
        target=Kernel,
        destroys=True,
        admit=f"{_HERE}:admit_remove",
        phases=(Phase("remove", plan=f"{_HERE}:plan_remove"),),
        forward_only=True,
    ),
)
