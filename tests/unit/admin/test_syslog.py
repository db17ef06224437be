"""Commands reach the system's log as one line of JSON each."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING

from openqrm.admin.syslog import commands_to_syslog
from openqrm.engine import commandlog
from openqrm.engine.ports import GateToken, Ready

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_command_is_one_structured_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="openqrm.command")
    place = tmp_path / "log"
    command = Ready(("sh", "-c", "echo\nsecret word"), secrets=("secret word",))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        journal.settimeout(5)
        with commands_to_syslog(place), commandlog.about({"operation": 7, "step": "grant"}):
            gate = GateToken("volume-1", 3, 2, "k")
            commandlog.record(5, command, gate, outcome="ended", status=1, seconds=0.25)
        found = journal.recv(65536).decode()
    head, _, text = found.partition("openqrm-command: ")
    assert head == "<30>"  # daemon.info
    assert "\n" not in text
    line = json.loads(text)
    assert (line["operation"], line["step"], line["host"], line["status"]) == (7, "grant", 5, 1)
    assert (line["volume"], line["generation"], line["epoch"]) == ("volume-1", 3, 2)
    assert "secret word" not in text
    assert "\u2022" in line["command"]


def test_without_a_system_log_they_stay_where_they_were(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="openqrm.command")
    with commands_to_syslog(tmp_path / "none"):
        commandlog.record(5, Ready(("true",)), None, outcome="ended", status=0, seconds=0)
    assert len(caplog.records) == 1


def test_a_log_that_went_away_is_told_and_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    place = tmp_path / "log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(place))
        with commands_to_syslog(place):
            journal.close()
            commandlog.record(5, Ready(("true",)), None, outcome="ended", status=0, seconds=0)
    assert "the system's log is away" in caplog.text
