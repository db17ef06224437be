"""What a `Change` step's function and a `Wait` step's condition look like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True)
class ChangeCall:
    """One execution of a change. `output` is what `do` returned, for an undo."""

    operation_id: int
    arguments: Mapping[str, Any]
    output: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


ChangeFunction = Callable[["Writer", ChangeCall], dict[str, Any]]
"""Changes our database in the step's transaction; returns the step's output."""


@dataclass(frozen=True)
class Progress:
    """How far a condition is. `failed` says why it can no longer come true: the step fails at once, without a retry."""

    done: bool
    text: str = ""
    percent: int = 0
    failed: str | None = None
    output: Mapping[str, Any] = field(default_factory=dict)


ConditionFunction = Callable[["Reader", ChangeCall], Progress]
