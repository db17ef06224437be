"""`openqrm login`, `openqrm logout` and `openqrm events`."""

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from openqrm.cli import options, output, schema
from openqrm.cli.client import Client
from openqrm.cli.failures import AUTH, OK, UNREACHABLE, USAGE, CliError
from openqrm.cli.settings import Settings, config_file, load, need_token, store

if TYPE_CHECKING:
    from collections.abc import Sequence

SESSION = "oqs_"
"""How keys of sessions begin."""


def login(argv: Sequence[str]) -> int:
    """Store a session's token for this user alone."""
    parser = options.Parser(prog="openqrm login", description="Log in and keep the token in " + str(config_file()))
    parser.add_argument("--url", help="https://HOST:8443 or unix:///PATH (default: what was used last)")
    parser.add_argument("--ca", help="PEM file of the installation's certificate authority")
    parser.add_argument("--name", help="user (default: asked)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    parser.add_argument("--token-stdin", action="store_true", help="read an API token from standard input instead")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON, without the token")
    given = parser.parse_args(argv)
    known = load()
    ca = os.path.abspath(given.ca) if given.ca else known.ca  # noqa: PTH100  # pathlib would cost a slower start
    settings = Settings(url=(given.url or known.url).rstrip("/"), ca=ca)
    if given.token_stdin:
        token, name = sys.stdin.readline().strip(), ""
        Client(Settings(settings.url, token, ca)).request("GET", "/v1/schema")
    else:
        name = given.name or _asked("User: ")
        password = sys.stdin.readline().rstrip("\r\n") if given.password_stdin else _secret("Password: ")
        token = Client(settings).request("POST", "/v1/login", {"name": name, "password": password}).data["token"]
    found = Settings(settings.url, token, ca)
    file = store(found)
    schema.current(Client(found), lambda _: False)  # what was kept may be of another server that had this address
    if given.json:
        output.as_json({"url": settings.url, "name": name, "file": str(file)})
    else:
        output.note(f"logged in at {settings.url}{f' as {name}' if name else ''}; the token is in {file}")
    return OK


def logout(argv: Sequence[str]) -> int:
    """End the session at the server and forget the token; an API token is only forgotten."""
    text = "End the session and forget the token. An API token stays valid: openqrm token remove ends it."
    options.Parser(prog="openqrm logout", description=text).parse_args(argv)
    settings = load()
    config_file().unlink(missing_ok=True)
    if settings.token.startswith(SESSION):
        try:
            Client(settings).request("POST", "/v1/logout")
        except CliError as error:
            if error.code == AUTH:
                return OK  # it has ended already
            raise CliError(
                f"the token is forgotten, but the session goes on at the server, 12 hours at most: {error.text}",
                error.code,
                remedy=error.remedy,
            ) from error
    return OK


def events(argv: Sequence[str]) -> int:
    """Show events as they come."""
    parser = options.Parser(prog="openqrm events", description="Show the latest events, or follow them.")
    parser.add_argument("--follow", "-f", action="store_true", help="go on until interrupted")
    parser.add_argument("--after", type=int, help="start behind this event")
    parser.add_argument(
        "--limit", type=options.positive, default=20, help="how many of the latest to show (default: 20)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args(argv)
    settings = load()
    need_token(settings)
    client = Client(settings)
    last = given.after
    query = "sort=-id" if last is None else f"sort=id&id__gt={last}"
    found = client.request("GET", f"/v1/events?limit={min(500, given.limit)}&{query}").data["items"]
    for event in sorted(found, key=lambda each: int(each["id"])):
        _show(event, as_json=given.json)
        last = event["id"]
    if given.follow:
        _follow(client, last or 0, as_json=given.json)
    return OK


def _follow(client: Client, last: int, *, as_json: bool) -> None:
    while True:
        try:
            for line in client.lines("/v1/events/stream", {"Last-Event-ID": str(last)}):
                if line.startswith("data: "):
                    event = json.loads(line[6:])
                    last = event["id"]
                    _show(event, as_json=as_json)
        except CliError as error:
            if error.code != UNREACHABLE:
                raise
        client.close()
        time.sleep(1)


def _show(event: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(event, ensure_ascii=False), flush=True)
        return
    subject = f"{event['subject_kind']} {event['subject_id']}" if event["subject_id"] is not None else ""
    parts = (event["time"], event["severity"], event["actor"], subject, event["text"])
    print("  ".join(output.clean(part) for part in parts if part), flush=True)


def _asked(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise CliError("--name is needed", USAGE)
    sys.stderr.write(prompt)
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def _secret(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise CliError("--password-stdin is needed", USAGE)
    return getpass.getpass(prompt)
