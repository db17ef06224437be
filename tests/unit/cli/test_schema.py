"""The kept schema is used without asking, unless a command does not fit it: then the server may be a newer one."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from openqrm.cli import commands, schema

if TYPE_CHECKING:
    from openqrm.cli.client import Client
    from openqrm.cli.schema import Schema


@dataclass
class Server:
    """Knows `box create` with some options, and says so under an entity tag."""

    options: tuple[str, ...] = ("name",)
    asked: list[dict[str, str]] = field(default_factory=list)
    settings: Any = field(default_factory=lambda: SimpleNamespace(url="https://controller.example:8443"))

    def request(self, method: str, path: str, headers: dict[str, str]) -> Any:
        assert (method, path) == ("GET", "/v1/schema")
        self.asked.append(headers)
        tag = ",".join(self.options)
        if headers.get("If-None-Match") == f'"{tag}"':
            return SimpleNamespace(status=304, data=None, headers={})
        blank: dict[str, Any] = {"short": "", "title": "", "help": "", "type": "string", "choices": [], "ref": ""}
        flags: dict[str, Any] = {"required": False, "secret": False, "many": False}
        given = [blank | flags | {"option": name, "path": [name]} for name in self.options]
        words: dict[str, Any] = {"kind": "box", "verb": "create", "summary": "", "target": "", "arguments": given}
        operation = words | {"destroys": False, "queued": False, "waits": False}
        data = {"version": schema.FORMAT, "entities": {}, "operations": [operation]}
        return SimpleNamespace(status=200, data=data, headers={"etag": f'"{tag}"'})


@pytest.fixture
def server(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Server()


def look(server: Server, *rest: str, verb: str = "create") -> Schema:
    return schema.current(cast("Client", server), lambda one: commands.fits(one, "box", verb, rest))


def test_it_is_asked_for_once(server: Server) -> None:
    look(server, "--name", "a")
    look(server, "--name", "b")
    assert server.asked == [{}]


def test_an_option_of_a_newer_server_is_known_at_once(server: Server) -> None:
    look(server, "--name", "a")
    server.options = ("name", "contact")
    assert commands.fits(look(server, "--contact", "me"), "box", "create", ("--contact", "me"))
    assert server.asked == [{}, {"If-None-Match": '"name"'}]


def test_what_nobody_knows_asks_and_is_still_unknown(server: Server) -> None:
    look(server)
    assert not commands.fits(look(server, "--colour", "red"), "box", "create", ("--colour", "red"))
    assert not commands.fits(look(server, verb="paint"), "box", "paint", ())
    assert server.asked[1:] == [{"If-None-Match": '"name"'}] * 2
