"""Access to volumes as plans make and end it: the secrets of a grant, the grant, and its end.

Every grant to write has secrets of its own, where the export declares any: made just before it, forgotten after it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import UnsupportedError
from openqrm.operations.storage_types import traits
from openqrm.plugin_api.drivers import Cap, Client, confirmed
from openqrm.plugin_api.steps import Change, Irreversible, load
from openqrm.plugin_api.values import Output, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.resource import Resource
    from openqrm.domain.storage import Storage, Volume
    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction
    from openqrm.plugin_api.drivers import ExportDriver, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.records import Writer
    from openqrm.plugin_api.steps import Step, Steps

SECRET_BYTES = 16
"""As hexadecimal digits this is a CHAP secret that every initiator takes, and a key of 128 bits."""
_FORGET = Irreversible(reason="a secret of a grant that is over is of no use")


def secret_keys(volume_id: int, generation: int, names: Sequence[str]) -> dict[str, str]:
    """Where the secrets of a grant lie in the encrypted store, by their names."""
    return {name: f"grant-{volume_id}-{generation}-{name}" for name in names}


def client_of(resource: Resource, keys: Mapping[str, str] | None = None) -> Client:
    """A machine as drivers see it."""
    references = {name: Secret(key=key) for name, key in (keys or {}).items()}
    return Client(
        resource.id, resource.address or "", resource.mac or "", resource.name, resource.memory_mb, references
    )


@dataclass(frozen=True)
class Access:
    """A volume and the machine that is to write it under `generation`. `prefix` keeps names of steps apart."""

    storage: Storage
    place: StorageContext
    export: ExportDriver
    volume: Volume
    location: str
    client: Client
    generation: int
    keys: Mapping[str, str]
    prefix: str = ""

    @classmethod
    def of(
        cls,
        context: PlanContext,
        storage: Storage,
        volume: Volume,
        machine: Resource,
        generation: int,
        prefix: str = "",
    ) -> Access:
        """Looked up once per planning. UnsupportedError, ConflictError as the drivers' lookup."""
        place = context.drivers.context(storage, context.read)
        keys = secret_keys(volume.id, generation, traits(context.settings, storage).secrets)
        location = context.drivers.pool(storage).location(place, volume)
        export = context.drivers.export(storage)
        return cls(storage, place, export, volume, location, client_of(machine, keys), generation, keys, prefix)

    def facts(self) -> Sequence[Fact[Any]]:
        """What the export must know to grant and revoke."""
        return self.export.facts(self.place)

    def revocable(self, context: PlanContext) -> bool:
        """Whether this storage host can prove the access revoked; asked when the export's facts are there."""
        try:
            context.drivers.require(self.storage, Cap.REVOKE_PROOF)
        except UnsupportedError:
            return False
        return confirmed(self.export, Cap.REVOKE_PROOF, self.place, context.facts)

    def grant(self, context: PlanContext) -> Steps:
        """Make the secrets, then grant. Undone in reverse."""
        found = self.export.authorize(
            self.place, self.volume, self.location, self.client, self.generation, context.facts
        )
        return (*(self._secret(name, key) for name, key in self.keys.items()), *self._named(found))

    def revoke(self, context: PlanContext) -> Steps:
        """Take the access back, then forget the secrets."""
        found = self.export.revoke(self.place, self.volume, self.location, self.client, self.generation, context.facts)
        forgotten = tuple(
            Change(
                name=f"{self.prefix}forget-{name}",
                title=f"Forget the secret of {self.volume.name}'s grant",
                change="secret.drop",
                arguments={"key": key},
                undo=_FORGET,
            )
            for name, key in self.keys.items()
        )
        return (*self._named(found), *forgotten)

    def _secret(self, name: str, key: str) -> Change:
        return Change(
            name=f"{self.prefix}make-{name}",
            title=f"Make the secret of {self.volume.name}'s grant",
            change="secret.make",
            arguments={"key": key},
            undo="secret.drop",
            undo_arguments={"key": key},
        )

    def _named(self, steps: Steps) -> Steps:
        return prefixed(steps, self.prefix)


def prefixed(steps: Steps, prefix: str) -> Steps:
    """Steps of a driver among those of another in one plan; what they take from each other stays right."""
    return tuple(_renamed(step, prefix) for step in steps) if prefix else steps


def _renamed(step: Step, prefix: str) -> Step:
    body = _taking_from(step.model_dump(mode="json"), prefix)
    return load(body | {"name": f"{prefix}{step.name}"})


def _taking_from(value: Any, prefix: str) -> Any:
    if isinstance(value, dict):
        if value.get("type") == "output" and set(value) == set(Output.model_fields):
            return value | {"step": f"{prefix}{value['step']}"}
        return {name: _taking_from(item, prefix) for name, item in value.items()}
    return [_taking_from(item, prefix) for item in value] if isinstance(value, list) else value


def make_secret(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`key`: a new random secret in the encrypted store; nobody is told it but the storage host and the machine."""
    writer.put_secret(call.arguments["key"], secrets.token_hex(SECRET_BYTES))
    return {}


def drop_secret(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`key`: forgotten; one that is gone already stays gone."""
    writer.drop_secret(call.arguments["key"])
    return {}


GRANT_CHANGES: dict[str, ChangeFunction] = {"secret.make": make_secret, "secret.drop": drop_secret}
