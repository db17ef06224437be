"""Where a resource is reached and which SSH host keys it may show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncssh

from openqrm.domain.errors import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Endpoint:
    """An SSH server. `host_keys` are lines as `ssh-ed25519 AAAA…`, the only ones that are accepted.

    A machine that we boot tells its host keys when it registers, anew for each boot, so for it an empty `host_keys`
    means that it cannot be reached yet. A host made by hand has no such channel: with `first_use` the key it shows
    first is accepted, reported to `learned`, and pinned from then on. An operator who does not trust the network at
    that moment enters the key beforehand.
    """

    address: str
    port: int = 22
    user: str = "root"
    host_keys: tuple[str, ...] = ()
    first_use: bool = False
    name: str = ""
    """What people call it, for messages."""


Lookup = Callable[[int], Endpoint]
"""The endpoint of a resource by id, asked at every new connection; NotFoundError, UnreachableError. May block."""
Learned = Callable[[int, str], None]
"""Told the host key that was trusted on first use: resource id, key line. May block."""

_RSA = ["rsa-sha2-512", "rsa-sha2-256"]


def trusted(endpoint: Endpoint) -> list[asyncssh.SSHKey]:
    """The pinned keys. UnreachableError when none is known or one is malformed."""
    if not endpoint.host_keys and not endpoint.first_use:
        raise UnreachableError(
            f"no SSH host key of {endpoint.address} is known, so it cannot be told from an impostor",
            remedy="wait until the machine has registered, or enter its host key",
        )
    try:
        return [asyncssh.import_public_key(line) for line in endpoint.host_keys]
    except asyncssh.KeyImportError as error:
        raise UnreachableError(f"a stored SSH host key of {endpoint.address} is malformed: {error}") from error


def algorithms(keys: Sequence[asyncssh.SSHKey]) -> list[str]:
    """The host key algorithms to negotiate, so that a host with several keys shows one of the pinned kind."""
    found: list[str] = []
    for key in keys:
        name = key.get_algorithm()
        found += [wanted for wanted in (_RSA if name == "ssh-rsa" else [name]) if wanted not in found]
    return found


class PinnedClient(asyncssh.SSHClient):
    """Accepts the pinned keys, or on first use any one; remembers which key was shown."""

    def __init__(self, keys: Sequence[asyncssh.SSHKey], *, first_use: bool) -> None:
        self._keys = keys
        self._first_use = first_use and not keys
        self.shown: str | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Called by asyncssh for every key that its own (empty) list does not hold."""
        del host, addr, port
        self.shown = " ".join(key.export_public_key().decode("ascii").split()[:2])
        return self._first_use or key in self._keys
