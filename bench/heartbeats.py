"""Heartbeats as the agent sends them: long-lived chunked streams over TLS, one line a beat.

The rate is raised until not every beat of a step is found as a change of its own in the health store, which keeps the
newest beat of each machine and takes beats in twice a second.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import resource
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.installation import Site, World, running
from bench.stock import add_speaking_machines
from openqrm.store.health import HealthStore

if TYPE_CHECKING:
    import ssl
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Event

MACHINES = 10_000
"""So many that each speaks seldom: a machine's beats that come within one half second are stored as one."""
RATES = (2_000, 4_000, 5_000, 6_000, 7_000, 8_000, 10_000)
FILES_BESIDE_STREAMS = 500
STEP_SECONDS = 8
SETTLE_SECONDS = 2.5
"""Beats of the end of a step may wait half a second for company, and as long for those before them."""
PACE_SECONDS = 10
"""Seconds between two beats of a machine while others still connect."""
OPENING = 100
"""Streams opened at once."""
LOOK_SECONDS = 0.15
_TICK = 0.02


class Machine(asyncio.Protocol):
    """One machine's end of its stream. `sent` counts its beats and is sent as its uptime."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._transport: asyncio.Transport | None = None
        self.greeted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sent = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        head = f"POST /node/v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self._token}\r\n"
        transport.write(f"{head}Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """`hello` ends the opening; pings and the like are not answered, as the agent does not either."""
        if not self.greeted.done():
            if b"hello" in data:
                self.greeted.set_result(None)
            elif b" 200 " not in data:
                self.greeted.set_exception(RuntimeError(data.decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        """The controller let us go."""
        self.lost = True
        if not self.greeted.done():
            self.greeted.set_exception(exc or EOFError("the stream ended before it began"))

    def beat(self) -> None:
        """Send one heartbeat as a chunk."""
        assert self._transport is not None
        self.sent += 1
        line = f"hb u={self.sent} l=0.42 mt=65536000 ma=61234567 st=2097148 sf=2097148 c=32 n=2\n".encode()
        self._transport.write(b"%x\r\n%s\r\n" % (len(line), line))

    def close(self) -> None:
        """Power off."""
        if self._transport is not None:
            self._transport.abort()


class Watch:
    """Counts, in a process of its own, how often a machine's beat in the store is replaced by a newer one."""

    def __init__(self, site: Site) -> None:
        context = multiprocessing.get_context("spawn")
        self._ended = context.Event()
        self._ready = context.Event()
        self._found: Queue[tuple[int, float]] = context.Queue()
        arguments = (site.settings.database, self._ready, self._ended, self._found)
        self._process = context.Process(target=_look, args=arguments, daemon=True)

    def start(self) -> None:
        """Begin; returns when what was there before is known."""
        self._process.start()
        if not self._ready.wait(30):
            raise TimeoutError("the health store cannot be read")

    def stop(self) -> tuple[int, float]:
        """End: the changes seen, and the longest pause between two looks, in seconds."""
        self._ended.set()
        found = self._found.get(timeout=30)
        self._process.join(30)
        return found


def _look(url: str, ready: Event, ended: Event, found: Queue[tuple[int, float]]) -> None:
    """Compare with what was there the last time, again and again."""
    store = HealthStore.beside(url)
    last, persisted, longest = store.last_seen(), 0, 0.0
    looked = time.monotonic()
    ready.set()
    going_on = True
    while going_on:
        going_on = not ended.wait(LOOK_SECONDS)
        seen, now = store.last_seen(), time.monotonic()
        persisted += sum(1 for number, at in seen.items() if last.get(number) != at)
        longest = max(longest, now - looked)
        last, looked = seen, now
    store.close()
    found.put((persisted, round(longest, 2)))


@dataclass
class Step:
    """What became of the beats sent at one rate."""

    rate: int
    sent: int
    persisted: int
    newest_missing: int
    """Machines whose last beat of the step is not what the store has."""
    longest_pause: float
    """Seconds between two looks at the store; from half a second on, beats that were stored may have been missed."""
    controller_cpu_share: float

    @property
    def complete(self) -> bool:
        """Whether every beat was stored."""
        return self.persisted >= self.sent and not self.newest_missing and self.sent >= 0.99 * self.rate * STEP_SECONDS


async def connect(site: Site, tokens: list[str]) -> list[Machine]:
    """All machines' streams, greeted."""
    loop = asyncio.get_running_loop()
    tls: ssl.SSLContext = site.tls
    gate = asyncio.Semaphore(OPENING)
    connected: list[Machine] = []

    async def one(token: str) -> Machine:
        async with gate:
            _, machine = await loop.create_connection(
                lambda: Machine(token), "127.0.0.1", site.settings.port, ssl=tls, server_hostname="127.0.0.1"
            )
            await machine.greeted
            machine.beat()
            connected.append(machine)
            return machine

    async def going_on() -> None:
        for second in itertools.count():
            await asyncio.sleep(1)
            for machine in connected[second % PACE_SECONDS :: PACE_SECONDS]:
                machine.beat()

    speaking = asyncio.create_task(going_on())  # who is silent for too long is taken for lost
    try:
        return list(await asyncio.gather(*(one(token) for token in tokens)))
    finally:
        speaking.cancel()


async def beat(machines: list[Machine], rate: int, seconds: float) -> int:
    """Every machine at the same pace, one after the other; how many beats were sent."""
    began, sent, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        await asyncio.sleep(_TICK)
        passed = min(time.perf_counter() - began, seconds)
        due = int(passed * rate)
        for number in range(sent, due):
            machines[number % len(machines)].beat()
        sent = due
    return sent


async def step(site: Site, store: HealthStore, machines: dict[int, Machine], rate: int) -> Step:
    """One rate."""
    crowd = list(machines.values())
    await beat(crowd, rate, 1)  # the pace begins; not counted
    await asyncio.sleep(SETTLE_SECONDS)
    watch = Watch(site)
    await asyncio.to_thread(watch.start)
    began, cpu = time.perf_counter(), site.cpu_seconds()
    sent = await beat(crowd, rate, STEP_SECONDS)
    share = (site.cpu_seconds() - cpu) / (time.perf_counter() - began)
    await asyncio.sleep(SETTLE_SECONDS)
    persisted, pause = await asyncio.to_thread(watch.stop)
    stored = store.latest(list(machines))
    missing = sum(1 for number, one in machines.items() if number not in stored or stored[number].uptime != one.sent)
    return Step(rate, sent, persisted, missing, pause, round(share, 2))


async def climb(site: Site, store: HealthStore, known: list[tuple[int, str]]) -> tuple[list[Step], float, float]:
    """Raise the rate until beats are missing; the steps, seconds to connect all, and the controller's memory then."""
    began = time.perf_counter()
    streams = await connect(site, [token for _, token in known])
    connecting = time.perf_counter() - began
    machines = {number: machine for (number, _), machine in zip(known, streams, strict=True)}
    steps: list[Step] = []
    try:
        for rate in RATES:
            steps.append(await step(site, store, machines, rate))
            if not steps[-1].complete:
                break
        if any(machine.lost for machine in streams):
            raise RuntimeError(f"{sum(machine.lost for machine in streams)} streams were lost")
        return steps, connecting, site.rss_mb()
    finally:
        for machine in streams:
            machine.close()


def _allow_files(count: int) -> None:
    """Raise our own limit of open files; the controller raises its own. RuntimeError when the machine forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise RuntimeError(f"{count} open files are needed, {hard} are allowed: ulimit -Hn {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


def run(world: World) -> dict[str, Any]:
    """`heartbeats_per_s`: the highest rate at which every beat was stored."""
    known: list[tuple[int, str]] = []
    _allow_files(MACHINES + FILES_BESIDE_STREAMS)
    with running(world, lambda database: known.extend(add_speaking_machines(database, MACHINES))) as site:
        store = HealthStore.open(site.settings)
        try:
            steps, connecting, rss = asyncio.run(climb(site, store, known))
        finally:
            store.close()
    best = max((one for one in steps if one.complete), key=lambda one: one.rate, default=None)
    return {
        "heartbeats_per_s": round(best.sent / STEP_SECONDS) if best else 0,
        "details": {
            "machines": MACHINES,
            "streams_opened_per_s": round(MACHINES / connecting, 1),
            "controller_rss_with_all_streams_mb": round(rss, 1),
            "steps": [vars(one) | {"complete": one.complete} for one in steps],
        },
    }
