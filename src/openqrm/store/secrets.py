"""Secrets at rest: AES-256-GCM under keys that lie in a file of their own and never in the database.

Each sealed secret names its key, so that keys can be rotated while the controller runs. The secret's own name is
authenticated with it: a row copied to another name does not open.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from openqrm.domain.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

KEY_BYTES = 32
NONCE_BYTES = 12
FILE_NAME = "secret.key"
"""Below the state directory."""


def key_file(state_dir: Path) -> Path:
    """Where an installation keeps its keys."""
    return state_dir / FILE_NAME


@dataclass(frozen=True)
class Keyring:
    """The keys by id, and which of them seals. `repr` shows no key."""

    current: str
    keys: Mapping[str, bytes]

    def __repr__(self) -> str:
        return f"Keyring(current={self.current!r}, {len(self.keys)} keys)"

    @classmethod
    def of(cls, key: bytes) -> Keyring:
        """A ring of one key of 32 bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        return cls("k1", {"k1": key})

    def seal(self, name: str, text: str) -> tuple[str, bytes]:
        """The key's id and nonce + ciphertext."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self.current, nonce + AESGCM(self.keys[self.current]).encrypt(nonce, text.encode(), name.encode())

    def unseal(self, name: str, key_id: str, sealed: bytes) -> str:
        """The secret. UnavailableError when its key is not in the ring or the row was tampered with."""
        key = self.keys.get(key_id)
        if key is None:
            raise UnavailableError(
                f"secret {name} was sealed with key {key_id}, which is not in the key file",
                remedy=f"restore the {FILE_NAME} that belongs to this database",
            )
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], name.encode()).decode()
        except InvalidTag as error:
            raise UnavailableError(
                f"secret {name} does not open with key {key_id}",
                remedy=f"restore the {FILE_NAME} that belongs to this database",
            ) from error

    def rotated(self) -> Keyring:
        """A ring with one more key, which seals from now on."""
        number = 1 + max((int(key_id[1:]) for key_id in self.keys), default=0)
        return Keyring(f"k{number}", {**self.keys, f"k{number}": secrets.token_bytes(KEY_BYTES)})

    def only_current(self) -> Keyring:
        """A ring without the keys that no longer seal anything."""
        return Keyring(self.current, {self.current: self.keys[self.current]})

    def save(self, file: Path) -> None:
        """Write the key file, mode 0600, atomically and synced: losing it loses every secret."""
        data = {
            "current": self.current,
            "keys": {key_id: base64.b64encode(key).decode() for key_id, key in self.keys.items()},
        }
        fresh = file.with_name(f".{file.name}.new")
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            json.dump(data, stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @classmethod
    def load(cls, file: Path) -> Keyring:
        """The keys of an installation. UnavailableError when the file is missing, open to others or broken."""
        try:
            if file.stat().st_mode & 0o077:
                raise UnavailableError(f"{file} is readable by others", remedy=f"chmod 600 {file}")
            data = json.loads(file.read_text())
            return cls(data["current"], {name: base64.b64decode(key) for name, key in data["keys"].items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UnavailableError(f"the key file {file} cannot be read: {error}", remedy="restore it") from error

    @classmethod
    def make(cls, file: Path) -> Keyring:
        """The keys of an installation, made with its directory when there are none yet (set-up)."""
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            cls.of(secrets.token_bytes(KEY_BYTES)).save(file)
        return cls.load(file)
