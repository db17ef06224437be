"""Commands on entities: list, show, and every operation the server declares."""

from __future__ import annotations

import getpass
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from openqrm.cli import follow, options, output, reports
from openqrm.cli.failures import FAILED, OK, USAGE, CliError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.cli.client import Client
    from openqrm.cli.schema import Schema


def run(client: Client, schema: Schema, kind: str, verb: str, rest: Sequence[str]) -> int:
    """One command; the exit code."""
    operation = schema.verbs(kind).get(verb)
    if operation is not None:
        return _operation(client, schema, operation, rest)
    entity = schema.entities.get(kind)
    if entity is not None and verb == "list":
        return _list(client, schema, kind, rest)
    if entity is not None and verb == "show":
        return _show(client, schema, kind, rest)
    raise _unknown(schema, kind, verb)


def check(schema: Schema, kind: str, verb: str, rest: Sequence[str]) -> None:
    """CliError for a command that is wrong whatever the server says: unknown words, wrong options."""
    if not schema.knows(kind, verb):
        raise _unknown(schema, kind, verb)
    if verb:
        _parser(schema, kind, verb).parse_args(rest)


def fits(schema: Schema, kind: str, verb: str, rest: Sequence[str]) -> bool:
    """Whether the schema has these words and options."""
    try:
        check(schema, kind, verb, rest)
    except CliError:
        return False
    return True


def _unknown(schema: Schema, kind: str, verb: str) -> CliError:
    known = sorted({*schema.verbs(kind), *(("list", "show") if kind in schema.entities else ())})
    if not known:
        return CliError(f"there is no {kind}", USAGE, remedy=f"known: {', '.join(schema.kinds())}")
    return CliError(f"{kind} has no verb {verb}", USAGE, remedy=f"known: {', '.join(known)}")


def usage(schema: Schema, kind: str, verb: str) -> int:
    """The options of one command."""
    _parser(schema, kind, verb).print_help()
    return OK


def _parser(schema: Schema, kind: str, verb: str) -> options.Parser:
    """The parser of a command that the schema knows."""
    operation = schema.verbs(kind).get(verb)
    if operation is not None:
        return options.operation_parser(operation)
    if verb == "list":
        return options.list_parser(kind, schema.entities[kind])
    return options.show_parser(kind)


def _list(client: Client, schema: Schema, kind: str, rest: Sequence[str]) -> int:
    entity = schema.entities[kind]
    given = options.list_parser(kind, entity).parse_args(rest)
    query = options.conditions(given)
    wanted = given.limit or (None if given.all else 100)
    items: list[dict[str, Any]] = []
    following = total = None
    while wanted is None or len(items) < wanted:
        query["limit"] = str(min(500, (wanted or 500 + len(items)) - len(items)))
        page = client.request("GET", f"/v1/{entity['plural']}?{urlencode(query)}").data
        items += page["items"]
        following, total = page["next"], page["total"]
        if following is None:
            break
        query["cursor"] = following
    if given.json:
        output.as_json({"items": items, "next": following, "total": total})
        return OK
    columns = entity["columns"]
    names = _names(client, schema, {name: ref for name, _, _, ref in columns}, items)
    titles = [f"{title} ({unit})" if unit else title for _, title, unit, _ in columns]
    rows = [[names.get((ref, item[name]), item[name]) for name, _, _, ref in columns] for item in items]
    output.table(titles, rows)
    if following is not None:
        output.note(f"{len(items)} of {total} shown; --all shows all")
    return OK


def _names(
    client: Client, schema: Schema, refs: dict[str, str], items: list[dict[str, Any]]
) -> dict[tuple[str, Any], str]:
    """What people call the things that ids in these fields point to: one request for each kind."""
    found: dict[tuple[str, Any], str] = {}
    for ref in {ref for ref in refs.values() if ref in schema.entities}:
        ids = {item[name] for name, of in refs.items() if of == ref for item in items if item[name] is not None}
        entity = schema.entities[ref]
        if not ids or len(ids) > 100 or entity["label"] == "id":
            continue
        query = urlencode({"id__in": ",".join(str(each) for each in sorted(ids)), "limit": "100"})
        for item in client.request("GET", f"/v1/{entity['plural']}?{query}").data["items"]:
            found[ref, item["id"]] = item[entity["label"]]
    return found


def _show(client: Client, schema: Schema, kind: str, rest: Sequence[str]) -> int:
    entity = schema.entities[kind]
    given = options.show_parser(kind).parse_args(rest)
    path = f"/v1/{entity['plural']}/{quote(given.target, safe='')}"
    data = client.request("GET", path).data
    steps = client.request("GET", f"{path}/steps").data["items"] if kind == "operation" else None
    if given.json:
        output.as_json(data if steps is None else data | {"steps": steps})
        return OK
    refs = {name: ref for name, ref in entity.get("refs", {}).items() if name in data}
    names = _names(client, schema, refs, [data])
    named = {
        name: f"{names[ref, data[name]]} ({data[name]})" for name, ref in refs.items() if (ref, data[name]) in names
    }
    output.record(data | named, entity["titles"])
    if steps is not None:
        print()
        output.steps(steps)
    return OK


def _operation(client: Client, schema: Schema, operation: dict[str, Any], rest: Sequence[str]) -> int:
    given = options.operation_parser(operation).parse_args(rest)
    body = options.arguments(operation, given)
    for option in operation["arguments"]:
        if option["secret"] and option["required"] and option["path"][0] not in body:
            body[option["path"][0]] = _asked_secret(option)
    asks = _destroys(operation, body) and not (given.yes or given.dry_run)
    if operation.get("reports") and not given.dry_run:
        asked = [given.target] if given.target is not None else _all(client, schema, operation["target"])
        if asks and sys.stdin.isatty() and not given.json:  # whose output a program reads
            found = [_called_dry(client, operation, target, body) for target in asked]
            if not reports.planned(found):
                return OK
        if asks:
            _confirm(client, schema, operation, given)
        return _reported(client, operation, given, body, asked)
    if asks:
        _confirm(client, schema, operation, given)
    return _called(client, schema, operation, given, body)


def _called_dry(client: Client, operation: dict[str, Any], target: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps that it would take."""
    path = operation["path"].replace("{which}", quote(target, safe=""))
    found: list[dict[str, Any]] = client.request(operation["method"], f"{path}?dry_run=true", body or None).data[
        "steps"
    ]
    return found


def _reported(client: Client, operation: dict[str, Any], given: Any, body: dict[str, Any], asked: Sequence[str]) -> int:
    """One or all of what the operation can look at, one after the other, and what was found."""
    ended = []
    for target in asked:
        path = operation["path"].replace("{which}", quote(target, safe=""))
        headers = {"Idempotency-Key": given.key} if given.key else {}
        queued = client.request(operation["method"], path, body or None, headers).data
        ended.append(follow.follow(client, queued, quiet=given.json) if given.wait else queued)
    return reports.show(ended, waited=given.wait, alone=given.target is not None, as_json=given.json)


def _all(client: Client, schema: Schema, kind: str) -> list[str]:
    """The ids of all there are."""
    entity = schema.entities[kind]
    found: list[str] = []
    query = {"limit": "500", "sort": "id"}
    while True:
        page = client.request("GET", f"/v1/{entity['plural']}?{urlencode(query)}").data
        found += [str(item["id"]) for item in page["items"]]
        if page["next"] is None:
            return found
        query["cursor"] = page["next"]


def _called(client: Client, schema: Schema, operation: dict[str, Any], given: Any, body: dict[str, Any]) -> int:
    if operation["target"] and given.target is None:
        raise CliError(f"{operation['name']} --dry-run wants a {operation['target']}", USAGE)
    path = operation["path"].replace("{which}", quote(given.target, safe="") if operation["target"] else "")
    switches = {"dry_run": given.dry_run, "wait": operation["waits"] and given.queue}
    query = urlencode({name: "true" for name, wanted in switches.items() if wanted})
    headers = {"Idempotency-Key": given.key} if given.key else {}
    answer = client.request(operation["method"], f"{path}?{query}" if query else path, body or None, headers)
    entity = schema.entities.get(operation["kind"], {"titles": {}})
    if given.dry_run:
        return _planned(answer.data, entity, as_json=given.json)
    if answer.status == 202:
        return _queued(client, answer.data, schema, wait=given.wait, as_json=given.json)
    if given.json:
        output.as_json(answer.data)
    elif answer.data is None:
        print("done")
    else:
        output.record(answer.data, entity["titles"])
    return OK


def _planned(data: dict[str, Any], entity: dict[str, Any], *, as_json: bool) -> int:
    if as_json:
        output.as_json(data)
        return OK
    output.plan(data["steps"])
    if data["record"] is not None:
        output.record(data["record"], entity["titles"])
    output.note("nothing was done; --json shows each step with its command")
    return OK


def _queued(client: Client, queued: dict[str, Any], schema: Schema, *, wait: bool, as_json: bool) -> int:
    ended = follow.follow(client, queued, quiet=as_json) if wait else queued
    failed = follow.failure(ended) if wait else None
    if as_json:
        output.as_json(ended)
        return FAILED if failed else OK
    if failed:
        raise failed
    if wait:
        print(f"operation {ended['id']}: {ended['name']} {ended['target_name']}".rstrip() + " done")
    else:
        output.record(ended, schema.entities["operation"]["titles"])
    return OK


def _destroys(operation: dict[str, Any], body: dict[str, Any]) -> bool:
    """With these arguments. Null, the empty text and -1 clear what is there: they say nothing."""
    when = operation.get("destroys_when", {}).items()
    given = operation.get("destroys_given", ())
    said = not given or any(body.get(name) not in (None, "", -1) for name in given)
    return bool(operation["destroys"]) and said and all(bool(body.get(name, False)) is value for name, value in when)


def _confirm(client: Client, schema: Schema, operation: dict[str, Any], given: Any) -> None:
    """What is not there is said before anybody is asked about it."""
    summary, target = f"{operation['summary'].rstrip('.')}.", ""
    if operation["target"]:
        target = f" {given.target}" if given.target is not None else f" every {operation['target']}"
        if given.target is not None:
            entity = schema.entities[operation["target"]]
            found = client.request("GET", f"/v1/{entity['plural']}/{quote(given.target, safe='')}").data
            target = f" {found[entity['label']]} (id {found['id']})"
    if not sys.stdin.isatty():
        raise CliError(f"{operation['name']}{target} wants to be confirmed: {summary}", USAGE, remedy="add --yes")
    sys.stderr.write(f"{operation['title']}:{target} — {summary} Go on? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CliError("nothing was done", USAGE)


def _asked_secret(option: dict[str, Any]) -> str:
    if not sys.stdin.isatty():
        raise CliError(
            f"--{option['option']} is needed", USAGE, remedy=f"--{option['option']} - reads it from standard input"
        )
    return getpass.getpass(f"{option['title']}: ")
