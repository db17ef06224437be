"""Images: the root password that is set in them when a machine deploys one. (The rest is in `image`.)"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from openqrm.domain.model import Attr
from openqrm.domain.storage import Image
from openqrm.operations.crypt_hash import sha512_crypt
from openqrm.operations.passwords import MINIMUM
from openqrm.plugin_api.operation import Arguments, Operation

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


def _long_enough(password: str) -> str:
    if 0 < len(password) < MINIMUM:
        raise ValueError(f"a password has at least {MINIMUM} characters")
    return password


class SetPassword(Arguments):
    """The root password that machines get; stored as a crypt(3) hash only."""

    password: Annotated[
        str,
        Field(max_length=256, pattern=r"^[^\r\n]*$"),
        AfterValidator(_long_enough),
        Attr(
            "Root password",
            help=f"at least {MINIMUM} characters; empty: leave the one that is in the image",
            secret=True,
        ),
    ]


def set_password(writer: Writer, call: Call) -> Image:
    """Set at the next deployment of the image."""
    image = call.target
    assert isinstance(image, Image)  # noqa: S101  # the declaration's target
    password: str = call.arguments.password
    return writer.update(image, root_password_hash=sha512_crypt(password) if password else "")


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="image.set-password",
        title="Set the root password",
        summary="Set the root password that machines get when they next deploy the image",
        target=Image,
        arguments=SetPassword,
        act="openqrm.operations.core_image:set_password",
    ),
)
