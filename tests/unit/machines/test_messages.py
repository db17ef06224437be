"""Lines of the stream: what is understood, and that nothing a machine writes can break the parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqrm.domain.event import Severity
from openqrm.operations.machine_messages import Ack, Beat, Done, Log, OrderProgress, parse


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            b"hb u=12.5 l=0.42 mt=499000 ma=400000 st=1024 sf=1000 c=2 n=1",
            Beat(12.5, 0.42, 499000, 400000, 1024, 1000, 2, 1),
        ),
        (b"hb", Beat()),
        (b"hb u=x mt=-5 c=99999999999999999999 z=1 l=nan", Beat()),
        (b"ack 7\r", Ack(7)),
        (b"progress 7 40 preparing the root", OrderProgress(7, 40, "preparing the root")),
        (b"progress 7 400", OrderProgress(7, 100, "")),
        (b"done 7 0 running debian", Done(7, 0, "running debian")),
        (b"done 7 1 the root could not be mounted", Done(7, 1, "the root could not be mounted")),
        (b"done 7 -1 odd", Done(7, 1, "odd")),
        (b"done 7", Done(7, 1, "")),
        (b"log warning disk is full", Log(Severity.WARNING, "disk is full")),
        (b"log shouting hello", Log(Severity.INFO, "shouting hello")),
        (b"log info a\x1b[2Jb\x00c", Log(Severity.INFO, "a [2Jb c")),
        (b"", None),
        (b"ack", None),
        (b"ack x", None),
        (b"ack 99999999999999999999", None),
        (b"ack -1", None),
        (b"fly 7 0", None),
        (b"\xff\xfe", None),
    ],
)
def test_messages(line: bytes, message: object) -> None:
    assert parse(line) == message


@given(st.binary(max_size=300))
def test_anything_is_a_message_or_nothing(line: bytes) -> None:
    for prefix in (b"", b"hb ", b"ack ", b"done 1 ", b"progress 1 ", b"log "):
        message = parse(prefix + line)
        text = getattr(message, "text", "")
        assert "\n" not in text
        assert "\0" not in text
