"""What the command line asks before it does it, and what it tells first."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.api.compact import compact
from openqrm.cli import commands
from openqrm.cli.client import Answer
from openqrm.cli.failures import OK, USAGE, CliError
from openqrm.cli.schema import Schema
from openqrm.operations.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping

FINDING = {"kind": "unexpected grant", "subject": "volume web", "text": "10.9.9.9 may write /pool/web", "remedy": ""}


class Server:
    """Has what is asked for, answers dry runs with what it found, and calls with an operation that is done."""

    def __init__(self, *findings: dict[str, str]) -> None:
        self.findings = list(findings)
        self.called: list[tuple[str, Any]] = []

    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        del headers
        if method == "GET":
            return Answer(200, {}, {"id": 7, "name": "web", "items": [{"id": 1}, {"id": 2}], "next": None})
        self.called.append((path.partition("/v1/")[2], body))
        if method == "PATCH" or path == "/v1/images":
            return Answer(200, {}, {"id": 1})
        if path.endswith("?dry_run=true"):
            take = {"name": "take-0-revoke", "kind": "run", "title": "Revoke what 10.9.9.9 has"}
            report = {"name": "report", "kind": "change", "arguments": {"findings": self.findings}}
            return Answer(200, {}, {"record": None, "steps": [take, report]})
        report = {"storage": "s1", "findings": [], "fixed": [], "skipped": []}
        done = {"id": 1, "name": "x", "target_name": "s1", "status": "done", "result": {"report": report}}
        return Answer(202, {}, done)


@pytest.fixture(scope="module")
def schema() -> Schema:
    found = json.loads(json.dumps(compact(Registry.of_installation())))
    return Schema(found["entities"], found["operations"])


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(server: Server, schema: Schema, *words: str) -> int:
    client: Any = server
    at_once = ["--no-wait"] if schema.verbs(words[0])[words[1]]["queued"] else []
    return commands.run(client, schema, words[0], words[1], [*words[2:], *at_once])


def answers(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(text))


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        (("storage", "audit", "s1"), False),
        (("storage", "audit", "s1", "--fix"), True),
        (("storage", "audit", "--fix"), True),
        (("image", "move", "web", "--to", "s2", "--keep-source"), False),
        (("image", "move", "web", "--to", "s2"), True),
        (("volume", "remove", "web"), True),
        (("image", "update", "web", "--comment", "x"), False),
        (("image", "update", "web", "--transfer-to", "other"), True),
        (("image", "update", "web", "--transfer-to", "7", "--comment", "x"), True),
        (("image", "update", "web", "--transfer-to-device", "/dev/sda2"), True),
        (("image", "update", "web", "--install-from", "golden"), True),
        (("image", "update", "web", "--install-from-id", "golden"), True),
        (("image", "update", "web", "--install-from-device", "/dev/sda2"), True),
        (("image", "update", "web", "--transfer-to", "-1", "--install-from", "null"), False),
        (("image", "update", "web", "--transfer-to-device", "", "--install-from-device", ""), False),
        (("image", "update", "web", "--transfer-to", "-1", "--transfer-to-device", "/dev/sda2"), True),
        (("image", "create", "--name", "web", "--volume", "web"), False),
        (("image", "create", "--name", "web", "--volume", "web", "--install-from", "golden"), True),
        (("appliance", "start", "web"), False),
    ],
)
def test_what_destroys_something_by_what_is_asked_for(schema: Schema, words: tuple[str, ...], asks: bool) -> None:
    server = Server()
    if asks:
        with pytest.raises(CliError, match="wants to be confirmed") as caught:
            run(server, schema, *words)
        assert (caught.value.code, caught.value.remedy, server.called) == (USAGE, "add --yes", [])
    assert run(server, schema, *words, *(["--yes"] if asks else [])) == OK
    assert server.called


@pytest.mark.parametrize("answer", ["y", "n"])
def test_what_is_taken_back_is_told_before_it_is_asked_for(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    server = Server(FINDING)
    answers(monkeypatch, f"{answer}\n")
    if answer == "y":
        assert run(server, schema, "storage", "audit", "s1", "--fix") == OK
    else:
        with pytest.raises(CliError, match="nothing was done"):
            run(server, schema, "storage", "audit", "s1", "--fix")
    told = capsys.readouterr()
    assert "10.9.9.9 may write /pool/web" in told.out
    assert "Revoke what 10.9.9.9 has" in told.out
    assert told.err.endswith("Go on? [y/N] ")
    looked, *done = server.called
    assert looked == ("storages/s1/audit?dry_run=true", {"fix": True})
    assert done == ([("storages/s1/audit", {"fix": True})] if answer == "y" else [])


def test_a_storage_is_forgotten_and_its_host_left_as_it_is(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who is asked is told what goes and what stays, also where no terminal is."""
    stays = "On its host nothing is touched: its server and what lies in the pool stay."
    with pytest.raises(CliError, match="wants to be confirmed: Forget a storage") as caught:
        run(Server(), schema, "storage", "remove", "s1")
    assert caught.value.text.endswith(stays)
    assert "destroys" not in caught.value.text
    answers(monkeypatch, "n\n")
    with pytest.raises(CliError, match="nothing was done"):
        run(Server(), schema, "storage", "remove", "s1")
    assert capsys.readouterr().err.endswith(f"{stays} Go on? [y/N] ")


def test_where_nothing_is_found_nothing_is_asked(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server()
    answers(monkeypatch, "")
    assert run(server, schema, "storage", "audit", "--fix") == OK
    assert [path for path, _ in server.called] == [f"storages/{number}/audit?dry_run=true" for number in (1, 2)]
    assert capsys.readouterr().out == "nothing found\n"


def test_a_program_that_reads_the_answer_gets_nothing_else(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, "y\n")
    assert run(Server(FINDING), schema, "storage", "audit", "s1", "--fix", "--json") == OK
    assert json.loads(capsys.readouterr().out)["status"] == "done"
