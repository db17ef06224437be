"""Lists of resources over the API, at 1,000 and at 25,000 of them."""

from __future__ import annotations

import http.client
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.installation import Site, World, running, settle
from bench.stock import add_resources
from openqrm.admin.setup import prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL, LARGE = 1_000, 25_000
ROUNDS = 40
_STATEMENTS = re.compile(r'db;[^,]*desc="(\d+) statements?"')


@dataclass
class Seen:
    """What requests of one kind took, in milliseconds, and how many statements each needed."""

    times: list[float] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)

    @property
    def statements(self) -> int:
        """What the list itself needs: once in ten seconds the token is looked up again, which is not of the list."""
        return self.counts.most_common(1)[0][0]


class Asking:
    """One client with a connection that stays open, as the console and the CLI's `--follow` have."""

    def __init__(self, site: Site) -> None:
        self._connection = http.client.HTTPSConnection("127.0.0.1", site.settings.port, context=site.tls, timeout=60)
        self._headers = {"Authorization": f"Bearer {site.token}"}

    def ask(self, path: str, seen: Seen) -> bytes:
        """One request; its body. RuntimeError when it is refused or does not say how many statements it took."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        seen.times.append((time.perf_counter() - began) * 1000)
        counted = _STATEMENTS.search(answer.headers.get("Server-Timing", ""))
        if answer.status != 200 or counted is None:
            raise RuntimeError(f"{path}: {answer.status} {answer.headers} {body[:300]!r}")
        seen.counts[int(counted[1])] += 1
        return body


def queries(site: Site) -> dict[str, str]:
    """What an operator looks at: pages, filters, orders, searches, and a page in the middle of everything."""
    middle = site.get("/v1/resources?sort=-name&limit=500")["next"]
    return {
        "first page": "/v1/resources",
        "by name, descending": "/v1/resources?sort=-name",
        "further page": f"/v1/resources?sort=-name&limit=500&cursor={middle}",
        "one phase": "/v1/resources?phase=unknown",
        "idle, most memory first": "/v1/resources?phase=idle&sort=-memory_mb",
        "search, two words": "/v1/resources?q=berlin%20node1",
        "search, one machine": "/v1/resources?q=node777",
    }


def measured(site: Site) -> dict[str, Seen]:
    """Every query in turn, many times over; one round before to warm up."""
    asking, asked = Asking(site), queries(site)
    found = {name: Seen() for name in asked}
    for path in asked.values():
        asking.ask(path, Seen())
    for _ in range(ROUNDS):
        for name, path in asked.items():
            asking.ask(path, found[name])
    return found


def run(world: World) -> dict[str, Any]:
    """`list_25k_p50_ms`, `list_25k_p95_ms` over all queries; `list_queries`, the most statements of any of them."""
    with running(world, lambda database: add_resources(database, 1, SMALL)) as site:
        fresh = site.rss_mb()
        small = measured(site)
        database = prepare(site.settings).database
        add_resources(database, SMALL + 1, LARGE)
        settle(database)
        database.close()
        large = measured(site)
        rss = site.rss_mb()
    for name, seen in large.items():
        if seen.statements != small[name].statements:
            raise RuntimeError(f"{name}: {small[name].statements} statements at 1,000, {seen.statements} at 25,000")
    times = sorted(time for seen in large.values() for time in seen.times)
    return {
        "list_25k_p50_ms": at(times, 0.50),
        "list_25k_p95_ms": at(times, 0.95),
        "list_queries": max(seen.statements for seen in large.values()),
        "controller_rss_mb": round(rss, 1),
        "details": {
            "rss_at_1000_before_any_list_mb": round(fresh, 1),
            "requests": len(times),
            "queries": {name: _row(small[name], seen) for name, seen in large.items()},
        },
    }


def at(times: Sequence[float], share: float) -> float:
    """The value below which `share` of the sorted times are."""
    return round(times[min(len(times) - 1, int(len(times) * share))], 2)


def _row(small: Seen, large: Seen) -> dict[str, Any]:
    return {
        "statements": large.statements,
        "p50_ms_at_1000": round(statistics.median(small.times), 2),
        "p50_ms_at_25000": round(statistics.median(large.times), 2),
        "p95_ms_at_25000": at(sorted(large.times), 0.95),
    }
