"""Values in steps that are known only later: outputs of earlier steps, and secrets by reference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Output(BaseModel):
    """What an earlier step of the same plan made: `field` of the output of `step`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["output"] = "output"
    step: str
    field: str


class Secret(BaseModel):
    """A secret by its key in the encrypted store; shown as `••••` wherever a person or a log reads a step."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["secret"] = "secret"
    key: str


Deferred = Annotated[Output | Secret, Field(discriminator="type")]
Value = str | Deferred
"""A string, or what becomes one when the step is executed."""

MASK = "••••"


def shown(value: Value) -> str:
    """The value as a person may read it."""
    if isinstance(value, Secret):
        return MASK
    if isinstance(value, Output):
        return f"<{value.step}.{value.field}>"
    return value


def as_json(value: Any) -> Any:
    """Arguments for a stored step: deferred values become data, everything else must be JSON already."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return value
