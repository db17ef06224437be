"""Changes and conditions over counters called *things*, and a site on virtual time, for tests of the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Event
from openqrm.domain.operation import Counter
from openqrm.domain.user import User
from openqrm.plugin_api.changes import Progress
from openqrm.plugin_api.steps import Command, Run
from openqrm.testing import virtual
from openqrm.testing.controller import Site
from openqrm.testing.fake_host import FakeHosts
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.testing.virtual import VirtualLoop


def make_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Make a thing called `called`."""
    return {"id": writer.insert(Counter(name=str(call.arguments["called"]))).id}


def unmake_thing(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Undo of `make_thing`."""
    writer.delete(Counter, int(call.output["id"]))
    return {}


def take(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """Refused while there is a thing called `busy`."""
    del call
    if writer.count(Counter, name="busy"):
        raise ConflictError("it is busy")
    return {}


def there(reader: Reader, call: ChangeCall) -> Progress:
    """Whether `called` is there; it will never be once there is one called `never`."""
    if reader.count(Counter, name="never"):
        return Progress(done=False, failed="it can no longer come")
    found = reader.one(Counter, name=call.arguments["called"])
    return Progress(done=found is not None, text="still waiting", output={"id": found.id} if found else {})


def known(reader: Reader, call: ChangeCall) -> Progress:
    """Whether there is a user named `called`."""
    found = reader.one(User, name=call.arguments["called"])
    return Progress(done=found is not None, output={"id": found.id} if found else {})


def gone(reader: Reader, call: ChangeCall) -> Progress:
    """Whether `called` is gone."""
    return Progress(done=not reader.count(Counter, name=call.arguments["called"]))


def far(reader: Reader, call: ChangeCall) -> Progress:
    """Whether the value of `called`, in percent, is 100."""
    found = reader.one(Counter, name=call.arguments["called"])
    percent = found.value if found else 0
    return Progress(done=percent >= 100, percent=percent, text=f"{percent} MB are copied")


CHANGES = {"thing.make": make_thing, "thing.unmake": unmake_thing, "thing.take": take}
CONDITIONS = {"thing.there": there, "thing.gone": gone, "thing.far": far, "user.known": known}


def play(story: Callable[[Site, FakeHosts, VirtualLoop], Awaitable[None]]) -> None:
    """On virtual time."""

    async def body(loop: VirtualLoop) -> None:
        hosts = FakeHosts()
        await story(Site(MemoryDatabase(clock=loop.now), hosts, CHANGES, CONDITIONS), hosts, loop)

    virtual.run(body)


def run(name: str, *argv: Any, **fields: Any) -> Run:
    """A command that makes `name` on a fake host, and its undo."""
    undo = fields.pop("undo", Command(argv=("unmake", name)))
    return Run(name=name, host=1, do=Command(argv=argv or ("make", name)), undo=undo, **fields)


def count(database: Any, name: str) -> int:
    """How many things are called `name`."""
    with database.read() as reader:
        found: int = reader.count(Counter, name=name)
        return found


def add(database: Any, name: str) -> None:
    """Make a thing in a transaction of its own."""
    with database.write() as writer:
        writer.insert(Counter(name=name))


def events(site: Site) -> list[Event]:
    """All events."""
    with site.database.read() as reader:
        return list(reader.find(Event))
