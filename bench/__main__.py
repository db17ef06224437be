"""The runner: every bench on every database it depends on, and `bench/results.json`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import report, results
from bench.installation import World
from openqrm.testing.database import postgres_or_why

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.testing.database import PostgresServer


@dataclass(frozen=True)
class Bench:
    """A module with `run(World) -> figures`; figures that no database has a part in are taken once."""

    module: str
    title: str
    per_database: bool = True


BENCHES = {
    "list": Bench("bench.lists", "lists of resources, 1,000 and 25,000"),
    "enrol": Bench("bench.enrol", "unknown machines register"),
    "heartbeats": Bench("bench.heartbeats", "heartbeats of thousands of machines"),
    "start": Bench("bench.starts", "1,000 appliances started at once"),
    "dhcp": Bench("bench.dhcp", "an address for a machine beside 10,000 others"),
    "boot": Bench("bench.boot", "boot files, beside nginx", per_database=False),
    "cli": Bench("bench.cli", "how fast the command line starts", per_database=False),
    "clones": Bench("bench.clones", "clones of a golden image of 10 GB", per_database=False),
}
KINDS = ("postgresql", "sqlite")


def main(argv: list[str] | None = None) -> int:
    """0 when everything could be measured, whether or not goals are met; 1 when something could not."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHES)} (default: all)")
    parser.add_argument("--database", choices=KINDS, action="append", help="only this one; may be given twice")
    parser.add_argument("--output", type=Path, default=results.FILE, help=f"default: {results.FILE}")
    given = parser.parse_args(argv)
    unknown = sorted(set(given.names) - set(BENCHES))
    if unknown:
        parser.error(f"there is no bench {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    names = given.names or list(BENCHES)
    fresh = not given.names and not given.database
    document = {} if fresh else results.load(given.output)
    failed = []
    with _server(given.database or KINDS) as server:
        for name in names:
            bench = BENCHES[name]
            kinds = (given.database or KINDS) if bench.per_database else KINDS[:1]
            for kind in kinds:
                try:
                    _one(document, name, kind, server)
                except Exception as error:  # noqa: BLE001  # the other benches still tell something
                    failed.append(name)
                    print(f"{name} ({kind}) could not be measured: {type(error).__name__}: {error}", file=sys.stderr)
                results.save(given.output, document)
    if given.output == results.FILE:
        report.write(document)
    print(results.summary(document))
    return 1 if failed else 0


@contextlib.contextmanager
def _server(kinds: tuple[str, ...]) -> Iterator[PostgresServer | None]:
    """PostgreSQL where it is wanted; RuntimeError with the remedy when it is not installed."""
    if "postgresql" not in kinds:
        yield None
        return
    server, why = postgres_or_why()
    if server is None:
        raise RuntimeError(why)
    with server:
        yield server


def _one(document: dict[str, Any], name: str, kind: str, server: PostgresServer | None) -> None:
    bench = BENCHES[name]
    print(f"{name} ({kind if bench.per_database else 'once'}): {bench.title} …", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="oq-bench-"))
    url = ""
    if bench.per_database and kind == "postgresql" and server is not None:
        url = server.empty()
    before, began = os.getloadavg()[0], time.monotonic()
    try:
        figures = importlib.import_module(bench.module).run(World(kind, url, directory))
    finally:
        if url and server is not None:
            server.drop(url)
        shutil.rmtree(directory, ignore_errors=True)
    took = time.monotonic() - began
    suffix = "_sqlite" if bench.per_database and kind == "sqlite" else ""
    results.add(document, name, figures, suffix, results.Taken(before, took))
    for key, value in figures.items():
        if key != "details":
            print(f"  {key}{suffix} = {value}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
