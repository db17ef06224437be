"""The server's compact schema, kept in a file and asked for anew by its entity tag."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.cli.failures import UNREACHABLE, CliError
from openqrm.cli.settings import cache_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from openqrm.cli.client import Client

FORMAT = 1
FRESH_SECONDS = 300
"""Within this time the kept schema is used without asking; a command that does not fit it asks all the same."""


@dataclass(frozen=True)
class Schema:
    """Entities and operations as the server declared them."""

    entities: dict[str, Any]
    operations: list[dict[str, Any]]

    def verbs(self, kind: str) -> dict[str, dict[str, Any]]:
        """The operations of an entity by verb, in declaration order."""
        return {each["verb"]: each for each in self.operations if each["kind"] == kind}

    def kinds(self) -> list[str]:
        """Entities, and whatever else has operations, sorted."""
        return sorted({*self.entities, *(each["kind"] for each in self.operations)})

    def knows(self, kind: str, verb: str) -> bool:
        """Whether the words are a command."""
        if kind in self.entities and verb in ("list", "show", ""):
            return True
        return verb in self.verbs(kind) or (not verb and bool(self.verbs(kind)))


def kept(url: str) -> tuple[Schema, str, float] | None:
    """The kept schema, its tag and its age in seconds; None when there is none that we understand."""
    file = _file(url)
    try:
        found = json.loads(file.read_bytes())
        age = time.time() - file.stat().st_mtime
        return Schema(found["schema"]["entities"], found["schema"]["operations"]), str(found["etag"]), age
    except (OSError, ValueError, KeyError, TypeError):
        return None


def current(client: Client, fits: Callable[[Schema], bool]) -> Schema:
    """The schema, asked for when the kept one is old or the command does not fit it."""
    have = kept(client.settings.url)
    if have and have[2] < FRESH_SECONDS and fits(have[0]):
        return have[0]
    headers = {"If-None-Match": f'"{have[1]}"'} if have else {}
    answer = client.request("GET", "/v1/schema", headers=headers)
    file = _file(client.settings.url)
    if answer.status == 304 and have:
        os.utime(file)
        return have[0]
    if not isinstance(answer.data, dict) or answer.data.get("version") != FORMAT:
        raise CliError(
            f"{client.settings.url} describes itself in a way this command does not know",
            UNREACHABLE,
            remedy="use the openqrm command of the server's version",
        )
    _keep(file, {"etag": answer.headers.get("etag", "").strip('"'), "schema": answer.data})
    return Schema(answer.data["entities"], answer.data["operations"])


def _file(url: str) -> Path:
    name = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    return cache_directory() / f"schema-{name}.json"


def _keep(file: Path, data: dict[str, Any]) -> None:
    """Best effort: without a cache the command only is slower."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_name(f".{file.name}.{os.getpid()}")
        fresh.write_text(json.dumps(data), encoding="utf-8")
        fresh.replace(file)
    except OSError:
        return
