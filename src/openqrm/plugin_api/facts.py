"""Facts: what a host says, read by a command, understood by a pure function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")
Question = tuple[str, int, tuple[str, ...]]


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

    @property
    def question(self) -> Question:
        """What tells it from others: two storages ask facts of one name, of two hosts or about two places."""
        return self.name, self.host, self.argv


class Facts:
    """The facts of one planning, by what was asked, or by name where one name is asked once."""

    def __init__(
        self, values: Mapping[str, object] | None = None, answers: Mapping[Question, object] | None = None
    ) -> None:
        self._answers = dict(answers or {})
        self._values = {question[0]: value for question, value in self._answers.items()} | dict(values or {})

    def __getitem__(self, name: str) -> object:
        return self._values[name]

    def get(self, fact: Fact[T]) -> T:
        """The value of a fact that was asked for; KeyError for one that was not."""
        if fact.question in self._answers:
            return self._answers[fact.question]  # type: ignore[return-value]  # the runner stored parse's result
        return self._values[fact.name]  # type: ignore[return-value]  # as above

    def names(self) -> tuple[str, ...]:
        """What was asked."""
        return tuple(self._values)
