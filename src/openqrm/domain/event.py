"""Events: who, what, when, how bad."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Id, LongText, Record


class Severity(StrEnum):
    """How bad it is, after syslog (RFC 5424) without the levels nobody uses."""

    DEBUG = "debug"
    INFO = "info"
    NOTICE = "notice"
    WARNING = "warning"
    ERROR = "error"


class Event(Record):
    """An entry in the log."""

    entity: ClassVar[Entity] = Entity(
        name="event",
        plural="events",
        title="Event",
        summary="An entry in the log",
        label="text",
        newest_first=True,
        indexes=(("subject_kind", "subject_id", "id"), ("severity", "id")),
    )

    time: Annotated[datetime, Attr("Time", listed=True)]
    severity: Annotated[Severity, Attr("Severity", filter=True, listed=True)] = Severity.INFO
    source: Annotated[str, Field(max_length=63), Attr("Source", help="module or plug-in", filter=True, listed=True)]
    actor: Annotated[str, Field(max_length=200), Attr("Actor", filter=True, listed=True)] = "system"
    subject_kind: Annotated[str, Field(max_length=63), Attr("Subject kind", filter=True)] = ""
    subject_id: Annotated[Id | None, Attr("Subject", filter=True)] = None
    operation_id: Annotated[Id | None, Attr("Operation", ref="operation", filter=True)] = None
    text: Annotated[LongText, Attr("Text", search=True, listed=True)]
    data: Annotated[dict[str, Any], Attr("Data", help="for a failed command: its output and the re-run")] = Field(
        default_factory=dict
    )
    acknowledged_by: Annotated[str | None, Field(max_length=200), Attr("Acknowledged by", derived=True)] = None
    acknowledged_at: Annotated[datetime | None, Attr("Acknowledged", derived=True)] = None
