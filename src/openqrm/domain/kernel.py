"""Kernels: a Linux kernel, its initramfs and modules under a name; one is the default."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, KernelVersion, Name, Record, Text


class Kernel(Record):
    """A bootable kernel. Its files lie below the boot directory under its name."""

    entity: ClassVar[Entity] = Entity(
        name="kernel", plural="kernels", title="Kernel", summary="A Linux kernel, its initramfs and modules"
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True, immutable=True)]
    version: Annotated[KernelVersion, Attr("Version", search=True, listed=True, immutable=True)]
    location: Annotated[
        str,
        Field(min_length=1, max_length=4096, pattern=r"^/"),
        Attr("Location", help="root holding boot/vmlinuz-VERSION and lib/modules/VERSION", immutable=True),
    ] = "/"
    arguments: Annotated[Text, Attr("Arguments", help="added to the kernel line")] = ""
    default: Annotated[bool, Attr("Default", help="idle machines boot it", filter=True, listed=True, derived=True)] = (
        False
    )
    ready: Annotated[bool, Attr("Ready", help="its files are built and served", listed=True, derived=True)] = False
