"""State tables: which change may follow which state, why, and what happens when a transient state takes too long."""

from __future__ import annotations

from dataclasses import dataclass

from openqrm.domain.errors import ConflictError


@dataclass(frozen=True, slots=True)
class Row:
    """One allowed change. `source` may be `*` for any state."""

    source: str
    event: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """A transient state may last `seconds`; then `event` is applied. `owner` is who is responsible meanwhile."""

    state: str
    seconds: int
    event: str
    owner: str
    reason: str


@dataclass(frozen=True, slots=True)
class Owner:
    """A transient state that has no deadline of its own lasts as long as `owner` works on it; `exit` is the way out."""

    state: str
    owner: str
    exit: str


@dataclass(frozen=True, slots=True)
class StateTable:
    """A frozen transition table for one field of one entity."""

    name: str
    initial: str
    states: tuple[str, ...]
    rows: tuple[Row, ...]
    deadlines: tuple[Deadline, ...] = ()
    owners: tuple[Owner, ...] = ()

    def __post_init__(self) -> None:
        known = set(self.states) | {"*"}
        for row in self.rows:
            if row.source not in known or row.target not in self.states:
                raise ValueError(f"{self.name}: {row} names an unknown state")
        pairs = [(row.source, row.event) for row in self.rows]
        if len(pairs) != len(set(pairs)):
            raise ValueError(f"{self.name}: two rows for the same state and event")

    def after(self, state: str, event: str) -> str:
        """The state that follows; ConflictError when the table has no row for it."""
        for source in (state, "*"):
            for row in self.rows:
                if row.source == source and row.event == event:
                    return row.target
        raise ConflictError(
            f"{self.name} is {state}: {event} is not possible now",
            remedy=f"possible now: {self.possible(state)}",
        )

    def possible(self, state: str) -> str:
        """The events the table allows in a state, for messages."""
        events = sorted(row.event for row in self.rows if row.source in (state, "*"))
        return ", ".join(events) or "nothing"

    def deadline(self, state: str) -> Deadline | None:
        """The deadline of a transient state; None for one that may last."""
        return next((limit for limit in self.deadlines if limit.state == state), None)
