"""The `openqrm` command. It starts fast: nothing is imported before it is known to be needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ADMIN = {
    "setup": ("openqrm.admin.setup", "set this server up"),
    "controller": ("openqrm.admin.controller", "run the controller"),
    "database": ("openqrm.admin.database", "migrate and check the database"),
    "doctor": ("openqrm.admin.doctor", "what this machine lacks, and the remedy"),
    "initramfs": ("openqrm.admin.initramfs", "build an initramfs"),
    "lab": ("openqrm.admin.lab.command", "a virtual datacentre on this machine"),
    "demo": ("openqrm.admin.demo", "the main job, shown in the virtual datacentre"),
    "reference": ("openqrm.admin.reference", "write the reference documentation"),
    "image build": ("openqrm.admin.image", "build the small server image"),
    "plugin new": ("openqrm.admin.plugins", "scaffold a plug-in"),
    "plugin check": ("openqrm.admin.plugins", "check a plug-in"),
}
"""Commands on this machine, without the API. A pair of words wins over an entity's verb."""

OWN = {
    "login": "get a token and keep it",
    "logout": "end the session and forget the token",
    "events": "show events, or follow them",
    "completion": 'print the completion script: eval "$(openqrm completion bash)"',
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (see `failures.EXIT_CODES`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    from openqrm.cli.failures import INTERRUPTED, CliError  # noqa: PLC0415  # a fast start

    try:
        return _dispatch(words)
    except CliError as error:
        return _report(error, as_json="--json" in words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _dispatch(words: list[str]) -> int:
    admin = ADMIN.get(" ".join(words[:2])) or (ADMIN.get(words[0]) if words else None)
    if admin is not None:
        return _admin(admin[0], words)
    if not words or words[0] in ("-h", "--help", "help"):
        return _help()
    if words[0] == "--version":
        from openqrm import __version__  # noqa: PLC0415  # a fast start

        print(f"openqrm {__version__}")
        return 0
    if words[0] == "__complete":
        from openqrm.cli.completion import words as fitting  # noqa: PLC0415  # a fast start

        print("\n".join(fitting(words[1:], [*OWN, *(name for name in ADMIN if " " not in name)])))
        return 0
    if words[0] in OWN:
        return _own(words)
    return _remote(words)


def _admin(module: str, words: list[str]) -> int:
    import importlib  # noqa: PLC0415  # a fast start

    from openqrm.cli.failures import USAGE, CliError  # noqa: PLC0415  # a fast start

    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise CliError(f"openqrm {words[0]} is not part of this installation", USAGE) from error
    code: int = found.main(words[1:])
    return code


def admin_commands() -> list[tuple[str, str]]:
    """The commands on this machine that are part of this installation."""
    from importlib.util import find_spec  # noqa: PLC0415  # a fast start

    return [(name, text) for name, (module, text) in ADMIN.items() if find_spec(module) is not None]


def _own(words: list[str]) -> int:
    from openqrm.cli import completion, session  # noqa: PLC0415  # a fast start

    if words[0] == "login":
        return session.login(words[1:])
    if words[0] == "logout":
        return session.logout(words[1:])
    if words[0] == "events":
        return session.events(words[1:])
    return completion.main(words[1:])


def _remote(words: list[str]) -> int:
    from openqrm.cli import schema, settings  # noqa: PLC0415  # a fast start

    found = settings.load()
    kind, verb = words[0], words[1] if len(words) > 1 and not words[1].startswith("-") else ""
    settings.need_url(found)
    wants_help = bool(set(words) & {"-h", "--help"})
    kept = schema.kept(found.url) if wants_help or not found.token else None
    if kept:
        from openqrm.cli import commands  # noqa: PLC0415  # a fast start

        if wants_help and kept[0].knows(kind, verb):
            return commands.usage(kept[0], kind, verb) if verb else _verbs(kept[0], kind)
        if not found.token:  # a mistake is told as what it is, not as a missing login
            commands.check(kept[0], kind, verb, words[2:])
    settings.need_token(found)
    from openqrm.cli import commands  # noqa: PLC0415  # a fast start
    from openqrm.cli.client import Client  # noqa: PLC0415  # a fast start

    client = Client(found)
    known = schema.current(client, lambda one: commands.fits(one, kind, verb, words[2:]))
    if not verb:
        return _verbs(known, kind)
    return commands.run(client, known, kind, verb, words[2:])


def _verbs(schema: object, kind: str) -> int:
    """The verbs of an entity."""
    from openqrm.cli.failures import USAGE, CliError  # noqa: PLC0415  # a fast start
    from openqrm.cli.schema import Schema  # noqa: PLC0415  # a fast start

    assert isinstance(schema, Schema)  # noqa: S101  # typed as object for the fast start
    if not schema.knows(kind, ""):
        raise CliError(f"there is no {kind}", USAGE, remedy=f"known: {', '.join(schema.kinds())}")
    rows = [(verb, each["summary"]) for verb, each in schema.verbs(kind).items()]
    if kind in schema.entities:
        rows = [("list", f"list {schema.entities[kind]['plural']}"), ("show", "show one with all its fields"), *rows]
    print(f"usage: openqrm {kind} VERB [TARGET] [--option VALUE …]\n")
    _rows(rows)
    print(f"\nopenqrm {kind} VERB --help shows the options.")
    return 0


def _help() -> int:
    from openqrm.cli import schema, settings  # noqa: PLC0415  # a fast start

    kept = schema.kept(settings.load().url)
    print("usage: openqrm ENTITY VERB [TARGET] [--option VALUE …]\n       openqrm COMMAND …\n")
    if kept:
        print("Entities of the server:")
        _rows([(kind, kept[0].entities.get(kind, {}).get("summary", "")) for kind in kept[0].kinds()])
    else:
        print("Log in to see the entities of a server: openqrm login --url https://HOST:8443 --ca FILE")
    print("\nCommands:")
    _rows(list(OWN.items()))
    print("\nOn this machine:")
    _rows(admin_commands())
    print("\nEvery command takes --help; those that talk to the server take --json.")
    return 0


def _rows(rows: Sequence[tuple[str, str]]) -> None:
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"  {name.ljust(width)}  {text}")


def _report(error: object, *, as_json: bool) -> int:
    from openqrm.cli.failures import CliError  # noqa: PLC0415  # a fast start

    assert isinstance(error, CliError)  # noqa: S101  # typed as object for the fast start
    if as_json:
        import json  # noqa: PLC0415  # a fast start

        print(json.dumps(error.data, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"openqrm: {error.text}", file=sys.stderr)
        if error.remedy:
            print(f"  → {error.remedy}", file=sys.stderr)
    return error.code


if __name__ == "__main__":
    sys.exit(main())
