"""`openqrm database`: bring the tables up to date, write a revision, rotate the key of the secrets, after a restore."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from openqrm.domain.errors import OpenqrmError, UnavailableError
from openqrm.engine.plugins.entities import all_entities
from openqrm.operations.core_plugins import installed
from openqrm.settings import Settings, load
from openqrm.store import migrations
from openqrm.store.database import SqlDatabase
from openqrm.store.histories import history_of
from openqrm.store.secrets import Keyring, key_file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openqrm database", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("upgrade", help="bring the tables up to date; the controller does so at every start")
    verbs.add_parser("status", help="print the revision of the database and of the program")
    verbs.add_parser("rotate-key", help="seal all secrets with a new key; stop the controller first")
    verbs.add_parser(
        "raise-generations",
        help="after a restore, before the controller starts: raise all above what the storage hosts recorded",
    )
    revision = verbs.add_parser("revision", help="for developers: write a revision from changed declarations")
    revision.add_argument("-m", "--message", required=True, help="what the change is for")
    revision.add_argument("--plugin", metavar="NAME", help="of the entities of an installed plug-in, not the core's")
    return parser


def open_database(settings: Settings) -> SqlDatabase:
    """The installation's database, with the directory and the key file that belong to it. UnavailableError."""
    keyring = Keyring.load(key_file(settings.state_dir))
    return SqlDatabase.open(settings.database, all_entities(installed().plugins), keyring)


def rotate_key(database: SqlDatabase, file: Path) -> int:
    """Seal every secret with a new key; returns how many. The old key is kept in the file until all is committed."""
    ring = Keyring.load(file).rotated()
    ring.save(file)
    count = database.reseal(ring)
    ring.only_current().save(file)
    return count


def _revision(message: str, plugin: str | None) -> int:
    file = migrations.write_revision(message, installed().get(plugin) if plugin else None)
    if file is None:
        print("the newest revision has everything that is declared")
        return 0
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff:
        subprocess.run([ruff, "check", "--quiet", "--fix", str(file)], check=False)
        subprocess.run([ruff, "format", "--quiet", str(file)], check=False)
    print(f"{file}: look at it before you commit it")
    return 0


def _raise_generations(database: SqlDatabase, settings: Settings) -> None:
    from openqrm.admin.generations import raise_generations  # noqa: PLC0415  # wires a whole controller: only here

    migrations.upgrade(database)
    raised = raise_generations(database, settings)
    print(f"volumes raised: {', '.join(raised.volumes) or 'none'}; epochs go on above {raised.epoch}")
    for name in raised.overtaken:
        print(f"{name} was started after the backup: openqrm appliance release {name}, when its machine is off")


def _upgrade(database: SqlDatabase) -> None:
    before, after = migrations.upgrade(database)
    print(f"up to date at {after}" if before == after else f"upgraded from {before} to {after}")
    failed = migrations.upgrade_plugins(database, installed().plugins)
    if failed:
        raise UnavailableError("; ".join(f"plug-in {name}: {reason}" for name, reason in failed.items()))


def _status(database: SqlDatabase) -> None:
    print(f"database {migrations.current(database)}, program {migrations.head()}")
    for plugin in installed().plugins:
        if plugin.entities:
            history = history_of(plugin)
            print(f"plug-in {plugin.name}: database {migrations.current(database, history)}, program {history.head}")


def _run(verb: str, settings: Settings) -> int:
    database = open_database(settings)
    try:
        if verb == "status":
            _status(database)
        elif verb == "rotate-key":
            print(f"{rotate_key(database, key_file(settings.state_dir))} secrets sealed with a new key")
        elif verb == "raise-generations":
            _raise_generations(database, settings)
        else:
            _upgrade(database)
    finally:
        database.close()
    return 0


def main(argv: list[str]) -> int:
    """Run `openqrm database ARGV`; 0 done, 1 with the reason on standard error."""
    args = _parser().parse_args(argv)
    try:
        return _revision(args.message, args.plugin) if args.verb == "revision" else _run(args.verb, load())
    except OpenqrmError as error:
        remedy = f"\n{error.remedy}" if error.remedy else ""
        print(f"openqrm database: {error.detail}{remedy}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
