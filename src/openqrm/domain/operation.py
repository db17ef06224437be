"""An operation as recorded in the journal, and the states it passes through."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, Name, Record, Text
from openqrm.domain.states import Row, StateTable


class OperationStatus(StrEnum):
    """Where an operation is. Queued, running and undoing are work; attention waits for a human."""

    QUEUED = "queued"
    RUNNING = "running"
    UNDOING = "undoing"
    DONE = "done"
    FAILED = "failed"
    ATTENTION = "attention"
    ABANDONED = "abandoned"


UNFINISHED = frozenset(
    {OperationStatus.QUEUED, OperationStatus.RUNNING, OperationStatus.UNDOING, OperationStatus.ATTENTION}
)

OPERATION_STATES = StateTable(
    name="operation",
    initial=OperationStatus.QUEUED,
    states=tuple(OperationStatus),
    rows=(
        Row(OperationStatus.QUEUED, "claim", OperationStatus.RUNNING, "a controller took it"),
        Row(OperationStatus.RUNNING, "finish", OperationStatus.DONE, "every step is done"),
        Row(OperationStatus.RUNNING, "fail", OperationStatus.UNDOING, "a step failed three times"),
        Row(OperationStatus.RUNNING, "wait", OperationStatus.QUEUED, "it may wait for a conflict to go away"),
        Row(OperationStatus.QUEUED, "cancel", OperationStatus.UNDOING, "cancelled before it acted"),
        Row(OperationStatus.RUNNING, "cancel", OperationStatus.UNDOING, "cancelled: what it did is undone"),
        Row(OperationStatus.UNDOING, "undone", OperationStatus.FAILED, "everything it did is undone"),
        Row(OperationStatus.UNDOING, "stuck", OperationStatus.ATTENTION, "an undo failed three times"),
        Row(OperationStatus.RUNNING, "stuck", OperationStatus.ATTENTION, "a forward-only operation failed three times"),
        Row(OperationStatus.ATTENTION, "resume", OperationStatus.UNDOING, "a human mended the cause of a failed undo"),
        Row(OperationStatus.ATTENTION, "go-on", OperationStatus.RUNNING, "a human mended the cause; it goes forward"),
        Row(OperationStatus.ATTENTION, "abandon", OperationStatus.ABANDONED, "a human cleans up what remains"),
    ),
)


class Operation(Record):
    """One call of an operation: what was asked, by whom, and how far it is."""

    entity: ClassVar[Entity] = Entity(
        name="operation",
        plural="operations",
        title="Operation",
        summary="One change of the datacentre: queued, running, finished",
        states={"status": OPERATION_STATES},
        unique=(("actor", "idempotency_key"),),
        newest_first=True,
        indexes=(("status", "id"), ("target_kind", "target_id", "id")),
    )

    name: Annotated[str, Field(max_length=127), Attr("Operation", filter=True, search=True, listed=True)]
    target_kind: Annotated[str, Field(max_length=63), Attr("Target kind", filter=True, listed=True)] = ""
    target_id: Annotated[Id | None, Attr("Target", filter=True, listed=True)] = None
    target_name: Annotated[Text, Attr("Target name", search=True, listed=True)] = ""
    arguments: Annotated[dict[str, Any], Attr("Arguments")] = Field(default_factory=dict)
    actor: Annotated[str, Field(max_length=200), Attr("Actor", filter=True, listed=True)] = "system"
    status: Annotated[OperationStatus, Attr("Status", filter=True, listed=True)] = OperationStatus.QUEUED
    owner: Annotated[str | None, Field(max_length=200), Attr("Controller")] = None
    epoch: Annotated[int, Field(ge=0), Attr("Epoch", help="grows with every claim")] = 0
    idempotency_key: Annotated[str | None, Field(max_length=200), Attr("Idempotency key")] = None
    progress: Annotated[int, Field(ge=0, le=100), Attr("Progress", unit="%", listed=True)] = 0
    started_at: Annotated[datetime | None, Attr("Started")] = None
    finished_at: Annotated[datetime | None, Attr("Finished")] = None
    error: Annotated[dict[str, Any] | None, Attr("Error")] = None
    result: Annotated[dict[str, Any] | None, Attr("Result")] = None
    forward_only: Annotated[
        bool, Attr("Forward only", help="never undone: after three failures it waits for a human and then goes on")
    ] = False
    rerun_of: Annotated[Id | None, Attr("Re-run of", ref="operation")] = None
    not_before: Annotated[
        datetime | None, Attr("Not before", help="when a conflict that keeps it waiting is looked at again")
    ] = None
    cancel_requested: Annotated[bool, Attr("Cancel requested", derived=True)] = False
    """Whoever owns the operation sees this at its next journal write, and undoes what was done."""


class StepStatus(StrEnum):
    """Where a step is. Acting is recorded before the step acts, so that a crash is seen."""

    PENDING = "pending"
    ACTING = "acting"
    DONE = "done"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"
    STUCK = "stuck"


class StepRecord(Record):
    """One step of an operation's plan, as data."""

    entity: ClassVar[Entity] = Entity(
        name="step",
        plural="steps",
        title="Step",
        summary="One step of an operation's plan",
        unique=(("operation_id", "position"), ("operation_id", "name")),
    )

    operation_id: Annotated[Id, Attr("Operation", ref="operation", filter=True)]
    position: Annotated[int, Field(ge=0), Attr("Position", filter=True, listed=True)]
    name: Annotated[Name, Attr("Name", help="unique within the plan", listed=True)]
    kind: Annotated[str, Field(max_length=63), Attr("Kind", listed=True)]
    version: Annotated[int, Field(ge=1), Attr("Version")] = 1
    title: Annotated[Text, Attr("Title", listed=True)] = ""
    body: Annotated[dict[str, Any], Attr("Body", help="the step itself; secrets are references")] = Field(
        default_factory=dict
    )
    status: Annotated[StepStatus, Attr("Status", listed=True)] = StepStatus.PENDING
    attempts: Annotated[int, Field(ge=0), Attr("Tries", listed=True)] = 0
    not_before: Annotated[datetime | None, Attr("Not before", help="backoff")] = None
    started_at: Annotated[datetime | None, Attr("Started")] = None
    finished_at: Annotated[datetime | None, Attr("Finished")] = None
    output: Annotated[dict[str, Any], Attr("Output")] = Field(default_factory=dict)
    error: Annotated[dict[str, Any] | None, Attr("Error")] = None


class OperationTarget(Record):
    """What an unfinished operation excludes others from, as `entity-id`; its rows go away when it finishes."""

    entity: ClassVar[Entity] = Entity(
        name="operation-target",
        plural="operation-targets",
        title="Operation target",
        summary="What an unfinished operation excludes others from",
        label="target",
        unique=(("operation_id", "target"),),
        indexes=(("target", "operation_id"),),
        stored_only=True,
    )

    operation_id: Annotated[Id, Attr("Operation", ref="operation")]
    target: Annotated[str, Field(max_length=200), Attr("Target")]
    shared: Annotated[bool, Attr("Shared", help="does not exclude others that share it too")] = False


class Controller(Record):
    """A running controller. Its work may be taken over once `expires_at` has passed or its row is gone."""

    entity: ClassVar[Entity] = Entity(
        name="controller",
        plural="controllers",
        title="Controller",
        summary="A controller that executes operations",
        stored_only=True,
    )

    name: Annotated[str, Field(max_length=200), Attr("Name", unique=True)]
    """Unique per process, recorded as the owner of what it claims."""
    expires_at: Annotated[datetime, Attr("Expires")]


class Counter(Record):
    """A number that only grows, for example the epoch of claims."""

    entity: ClassVar[Entity] = Entity(
        name="counter",
        plural="counters",
        title="Counter",
        summary="A number that only grows",
        stored_only=True,
    )

    name: Annotated[Name, Attr("Name", unique=True)]
    value: Annotated[int, Field(ge=0), Attr("Value")] = 0
