"""Facts: what a host says, read by a command, understood by a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """`argv` is run on resource `host`; `parse` turns its standard output into data.

    A fact changes nothing on the host. `missing` is the value when the command exits with a status in `absent`
    (for example 2: no such directory).
    """

    name: str
    host: int
    argv: tuple[str, ...]
    parse: Callable[[str], T]
    absent: tuple[int, ...] = ()
    missing: T | None = None
    timeout: float = 30


class Facts:
    """The facts of one planning, by name."""

    def __init__(self, values: dict[str, object] | None = None) -> None:
        self._values = values or {}

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def get(self, fact: Fact[T]) -> T:
        """The value of a fact that was asked for; KeyError for one that was not."""
        return self._values[fact.name]  # type: ignore[return-value]  # the runner stored parse's result

    def names(self) -> tuple[str, ...]:
        """What was asked."""
        return tuple(self._values)
