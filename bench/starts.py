"""1,000 calls of `appliance start` at once over HTTP, until every appliance runs; hosts and machines are fakes."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from bench.fake_controller import SEEN_FILE
from bench.fake_plugin import PLUGIN, STORAGE_TYPE
from bench.installation import Site, World, running
from bench.lists import at
from bench.stock import add_appliances
from bench.wire import exchange, post

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STARTS = 1_000
WORKERS = 64
DEADLINE_SECONDS = 600


async def call_all(site: Site, names: Sequence[str]) -> list[tuple[int, dict[str, Any], float]]:
    """One connection and one call each, all at once: status, body, seconds until the answer."""
    tls = site.tls

    async def one(name: str) -> tuple[int, dict[str, Any], float]:
        began = time.perf_counter()
        request = post(f"/v1/appliances/{name}/start", b"{}", site.token)
        status, body = await exchange(site.settings.port, tls, request)
        return status, json.loads(body), time.perf_counter() - began

    return list(await asyncio.gather(*(one(name) for name in names)))


def wait(site: Site) -> None:
    """Until no start is under way. TimeoutError."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if not site.get("/v1/operations?name=appliance.start&status__in=queued,running&limit=1")["items"]:
            return
        time.sleep(0.25)
    raise TimeoutError(f"starts are still under way after {DEADLINE_SECONDS} s")


def check(site: Site, operations: Iterable[int]) -> None:
    """All recorded, all done, each appliance once, each on a machine and an address of its own. AssertionError."""
    recorded = {each["id"]: each for each in site.everything("operations", name="appliance.start")}
    assert set(recorded) == set(operations), f"{len(recorded)} of {STARTS} starts are recorded"
    ends = Counter(each["status"] for each in recorded.values())
    assert ends == {"done": STARTS}, ends
    appliances = site.everything("appliances")
    assert Counter(each["phase"] for each in appliances) == {"running": STARTS}
    assert len({each["address"] for each in appliances}) == STARTS, "two appliances have one address"
    assert len({each["running_on"] for each in appliances}) == STARTS, "two appliances run on one machine"
    leases = site.everything("leases", state="held")
    for field in ("image_id", "resource_id", "appliance_id"):
        assert len(leases) == len({each[field] for each in leases}) == STARTS, f"leases share {field}"


def run(world: World) -> dict[str, Any]:
    """`start_1000_wall_s`: from the first call until every appliance runs."""
    names = [f"service{number}" for number in range(1, STARTS + 1)]

    def fill(database: Any) -> None:
        add_appliances(database, STARTS, PLUGIN.name, STORAGE_TYPE)

    with running(world, fill, ("bench.fake_controller",), workers=WORKERS) as site:
        cpu, began = site.cpu_seconds(), time.perf_counter()
        answers = asyncio.run(call_all(site, names))
        accepted = time.perf_counter() - began
        refused = [(status, body) for status, body, _ in answers if status != 202]
        assert not refused, f"{len(refused)} refused: {refused[:2]}"
        wait(site)
        wall = time.perf_counter() - began
        cpu = site.cpu_seconds() - cpu
        check(site, [body["id"] for _, body, _ in answers])
        rss = site.rss_mb()
    seen = json.loads((site.settings.state_dir / SEEN_FILE).read_text(encoding="utf-8"))
    assert seen["most_operations_at_once"] <= WORKERS, seen["most_operations_at_once"]
    assert Counter(seen["granted"]) == Counter(set(seen["granted"])), "an access was granted twice"
    times = sorted(seconds * 1000 for _, _, seconds in answers)
    return {
        "start_1000_wall_s": round(wall, 2),
        "details": {
            "all_accepted_s": round(accepted, 2),
            "call_p50_ms": at(times, 0.5),
            "call_p95_ms": at(times, 0.95),
            "workers": WORKERS,
            "most_operations_at_once": seen["most_operations_at_once"],
            "most_commands_at_once": seen["most_commands_at_once"],
            "controller_cpu_share": round(cpu / wall, 2),
            "controller_rss_mb": round(rss, 1),
        },
    }
