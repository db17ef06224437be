"""Kernels: a Linux kernel, its initramfs and modules under a name; one is the default."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, StringConstraints

from openqrm.domain.model import Attr, Entity, KernelVersion, Name, Record

LINE_RULE = "printable ASCII without ${, and not ||, &&, ; or a leading #"
"""iPXE (https://ipxe.org/scripting) expands `${…}` everywhere, takes `||`, `&&` and `;` as separators and a word that
begins with `#` as a comment; it has no way to quote them, so words that hold them are refused."""
_WORD = re.compile(r"[\x21-\x7e]+")
_SEPARATORS = frozenset({"||", "&&", ";"})


def fits_line(word: str) -> bool:
    """Whether a word can stand on the kernel line of a boot script."""
    return bool(_WORD.fullmatch(word)) and "${" not in word and word not in _SEPARATORS and not word.startswith("#")


def _line(text: str) -> str:
    wrong = next((word for word in text.split() if not fits_line(word)), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} cannot stand on a boot script's kernel line: {LINE_RULE}")
    return text


KernelLine = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_line)]
"""Words for the kernel's command line, separated by white space."""


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
    arguments: Annotated[KernelLine, Attr("Arguments", help="added to the kernel line")] = ""
    default: Annotated[bool, Attr("Default", help="idle machines boot it", filter=True, listed=True, derived=True)] = (
        False
    )
    default_mark: Annotated[
        int | None,
        Attr("Default mark", help="1 for the default, else empty: unique", unique=True, derived=True, internal=True),
    ] = None
    """Plain unique constraints ignore nulls, so this one forbids a second default on every database."""
    ready: Annotated[bool, Attr("Ready", help="its files are built and served", listed=True, derived=True)] = False
