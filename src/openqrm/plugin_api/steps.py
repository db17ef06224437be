"""The steps a plan is made of: typed, versioned, stored as JSON before the first one acts.

Every step says how it is verified after a crash and how it is undone, or that it cannot be and why. Steps are
idempotent: running one twice equals running it once.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from openqrm.domain.model import Id, Name, Text
from openqrm.plugin_api.values import Deferred, Output, Secret, Value

TRIES = 3
"""How often a step is tried in all, with backoff, before its operation is undone."""


class Gate(BaseModel):
    """Run behind the host gate: refused when the host has seen a later generation or epoch for this volume.

    `volume` is a stable key such as `volume-12`. `generation` is the lease's; the engine adds the operation's epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    volume: Name
    generation: int = Field(ge=0)


class Command(BaseModel):
    """An argument vector, never a shell line. `input` goes to standard input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    argv: tuple[Value, ...] = Field(min_length=1)
    input: Value | None = None
    ok: tuple[int, ...] = (0,)


class Irreversible(BaseModel):
    """Why a step has no undo."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str = Field(min_length=1)


class _Base(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    title: Text = ""
    version: int = Field(default=1, ge=1)
    timeout: float = Field(default=60, gt=0, le=86400)
    """Seconds one try may last."""


class Run(_Base):
    """A command on a host.

    `verify`, when given, exits 0 if the step's effect is in place: it is run before `do` after a crash. Without it,
    `do` is simply run again. The output has `stdout`, `stderr` and `status`; with `parse="json"` also the top-level
    fields of the object on standard output.
    """

    kind: Literal["run"] = "run"
    host: Id
    do: Command
    verify: Command | None = None
    undo: Command | Irreversible
    gate: Gate | None = None
    parse: Literal["text", "json"] = "text"


class Write(_Base):
    """A file on a host, replaced atomically. `content=None` removes it. Undo restores what was there before."""

    kind: Literal["write"] = "write"
    host: Id
    path: str = Field(pattern=r"^/", max_length=4096)
    content: Value | None
    mode: str = Field(default="0644", pattern=r"^0[0-7]{3}$")
    gate: Gate | None = None


class Send(_Base):
    """A file of the server, copied to a path on a host as it is; undo removes it there. For what is too large for
    `Write`, such as an image's archive. `source` must be below the server's state directory."""

    kind: Literal["send"] = "send"
    host: Id
    source: str = Field(pattern=r"^/", max_length=4096)
    path: str = Field(pattern=r"^/", max_length=4096)


class Call(_Base):
    """A client of a plug-in: `package.module:function`, an async function `(context, **arguments) -> dict`.

    `verify` names a function that returns whether the effect is in place. `undo` names one with `undo_arguments`.
    """

    kind: Literal["call"] = "call"
    function: str = Field(pattern=r"^[a-zA-Z_][\w.]*:[a-zA-Z_]\w*$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    verify: str | None = None
    undo: str | Irreversible
    undo_arguments: dict[str, Any] = Field(default_factory=dict)


class Change(_Base):
    """A change of our own database, done in the transaction that records the step as done.

    `change` names a registered function, for example `lease.acquire`, `state.apply`, `record.set`. `undo` names one
    with `undo_arguments`; it sees the step's output too.
    """

    kind: Literal["change"] = "change"
    change: str = Field(pattern=r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    undo: str | Irreversible
    undo_arguments: dict[str, Any] = Field(default_factory=dict)


class Wait(_Base):
    """Until a registered condition on our database holds; `timeout` is the deadline. Waiting changes nothing.

    When the operation is undone, the step waits for `undo_condition` (with the same arguments, and the deadline
    `undo_timeout`, else `timeout`), if there is one: the steps before it must not be undone earlier, for example while
    a machine still uses an image. A wait that was never reached forward is not waited for in the undo either.
    """

    kind: Literal["wait"] = "wait"
    condition: str = Field(pattern=r"^[a-z][a-z0-9-]*(\.[a-z][a-z0-9-]*)+$")
    arguments: dict[str, Any] = Field(default_factory=dict)
    undo_condition: str | None = None
    undo_timeout: float | None = Field(default=None, gt=0)


class Planning(_Base):
    """Plan a named phase of the operation from fresh facts, and append its steps in the same transaction."""

    kind: Literal["planning"] = "planning"
    phase: Name


Step = Annotated[Run | Write | Send | Call | Change | Wait | Planning, Field(discriminator="kind")]
Steps = tuple[Step, ...]
_ADAPTER: TypeAdapter[Step] = TypeAdapter(Step)

KINDS: dict[str, int] = {"run": 1, "write": 1, "send": 1, "call": 1, "change": 1, "wait": 1, "planning": 1}
"""The newest version of each kind that this controller can execute; it leaves others alone."""


def load(body: dict[str, Any]) -> Step:
    """A stored step as an object."""
    return _ADAPTER.validate_python(body)


class Plan(BaseModel):
    """What a planner returns. Names are unique; outputs are taken from earlier steps only."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[Step, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        seen: set[str] = set()
        for step in self.steps:
            if step.name in seen:
                raise ValueError(f"two steps are named {step.name}")
            seen.add(step.name)
        return self


def deferred(value: Any) -> list[Deferred]:
    """Every deferred value inside a step's data, in order."""
    if isinstance(value, Output | Secret):
        return [value]
    if isinstance(value, BaseModel):
        return deferred([getattr(value, name) for name in type(value).model_fields])
    if isinstance(value, dict):
        stored = _stored_deferred(value)
        return [stored] if stored else deferred(list(value.values()))
    if isinstance(value, list | tuple):
        return [found for item in value for found in deferred(item)]
    return []


def _stored_deferred(value: dict[str, Any]) -> Deferred | None:
    """A deferred value that was stored as JSON."""
    shapes: dict[frozenset[str], type[Output | Secret]] = {
        frozenset(Output.model_fields): Output,
        frozenset(Secret.model_fields): Secret,
    }
    model = shapes.get(frozenset(value))
    if model is None or value.get("type") not in ("output", "secret"):
        return None
    return model.model_validate(value)
