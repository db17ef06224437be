"""The installation's SSH key pair: one for every machine, made once at set-up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import asyncssh

if TYPE_CHECKING:
    from pathlib import Path

KEY_FILE = "installation"


@dataclass(frozen=True)
class InstallationKey:
    """`public` is one line for `authorized_keys`. The private key is only in its file, mode 0600."""

    private_file: Path
    public: str


def installation_key(state_dir: Path) -> InstallationKey:
    """The key pair below `state_dir/keys`, made if there is none; two callers at once get the same one.

    OSError when the directory cannot be written.
    """
    directory = state_dir / "keys"
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    private = directory / KEY_FILE
    public = directory / f"{KEY_FILE}.pub"
    if not private.exists():
        _make(private)
    if not public.exists():
        key = asyncssh.read_private_key(private)
        _replace(public, key.export_public_key(), 0o644)
    return InstallationKey(private, public.read_text(encoding="ascii").strip())


def _make(private: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="openqrm")
    fresh = private.with_name(f"{private.name}.{os.getpid()}")
    _write(fresh, key.export_private_key(), 0o600)
    try:
        os.link(fresh, private)  # unlike a rename this never replaces the key that another one just made
    except FileExistsError:
        pass
    finally:
        fresh.unlink()


def _replace(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    _write(fresh, content, mode)
    fresh.replace(path)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
