"""A place on a storage host belongs to one storage: an image in two records would run on two machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import ConflictError
from openqrm.domain.resource import SERVER_ID, Phase, Resource
from openqrm.domain.storage import Storage, Volume, VolumePhase
from openqrm.operations.places import overlap
from openqrm.operations.storage_scan import plan_scan
from openqrm.plugin_api.drivers import StorageContext
from openqrm.plugin_api.facts import Facts
from openqrm.plugin_api.operation import PlanContext
from openqrm.plugin_api.script_pool import ScriptFacts, parse
from openqrm.plugins.storage.dir.driver import DirPool
from openqrm.plugins.storage.dir.plugin import DirSettings
from openqrm.plugins.storage.nfs.plugin import NfsSettings
from openqrm.testing.wiring import ADMIN, NoDrivers, add_users, pipeline_of

if TYPE_CHECKING:
    from openqrm.operations.pipeline import Pipeline
    from openqrm.plugin_api.records import Reader
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase

HOST = "10.0.0.2"


class NfsDrivers(NoDrivers):
    """The directory pool; the server itself is reached at `HOST`, as in an installation with that address."""

    def context(self, storage: Storage, reader: Reader) -> StorageContext:
        """As the controller does it."""
        address = reader.get(Resource, storage.resource_id).address or HOST
        return StorageContext(storage, storage.resource_id, address, _own(storage), NfsSettings())

    def pool(self, storage: Storage) -> DirPool:
        """The real one."""
        del storage
        return DirPool()


def _own(storage: Storage) -> DirSettings:
    return DirSettings(directory=storage.settings["directory"])


@pytest.fixture
def pipeline(database: SqlDatabase | MemoryDatabase) -> Pipeline:
    """Storage `first` in /srv/a of one host; a second record of that host, the server at its address, another host."""
    add_users(database)
    with database.write() as writer:
        writer.insert(Resource(id=SERVER_ID, name="server", type="server", phase=Phase.ACTIVE))
        for number, (name, address) in enumerate((("host", HOST), ("twin", HOST), ("elsewhere", "10.0.0.3")), start=1):
            writer.insert(Resource(name=name, mac=f"52:54:00:00:00:0{number}", address=address, manual=True))
    made = pipeline_of(database, drivers=NfsDrivers())
    add(made, "first", "host", "/srv/a")
    return made


def add(pipeline: Pipeline, name: str, host: str, directory: str) -> Any:
    arguments = {"name": name, "type": "nfs", "resource_id": host, "settings": {"directory": directory}}
    return pipeline.call("storage.create", ADMIN, None, arguments).record


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("/srv/a", "/srv/a", True),
        ("/srv/a", "/srv/a/b", True),
        ("/srv", "/srv/a", True),
        ("/srv/a", "/srv/ab", False),
        ("/srv/a", "/srv/b", False),
        ("/", "/srv", True),
        ("vg0", "vg0", True),
        ("vg0", "vg1", False),
        ("tank/images/", "tank//images/web", True),
    ],
)
def test_places_overlap(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is expected
    assert overlap(other, one) is expected


@pytest.mark.parametrize("host", ["host", "twin", "server"])
@pytest.mark.parametrize("directory", ["/srv/a", "/srv/a/b", "/srv"])
def test_a_place_that_is_another_storages_is_refused(pipeline: Pipeline, host: str, directory: str) -> None:
    with pytest.raises(ConflictError, match=rf"storage first keeps its volumes in /srv/a on {HOST}") as caught:
        add(pipeline, "second", host, directory)
    assert caught.value.field == "settings"


def test_beside_it_and_elsewhere_there_is_room(pipeline: Pipeline) -> None:
    assert add(pipeline, "beside", "twin", "/srv/ab").name == "beside"
    assert add(pipeline, "away", "elsewhere", "/srv/a").name == "away"


def test_a_change_is_refused_as_well(pipeline: Pipeline) -> None:
    with pipeline.database.write() as writer:
        twin = writer.one(Resource, name="twin")
        assert twin
        settings = {"directory": "/srv/a"}
        writer.insert(Storage(name="second", type="nfs", resource_id=twin.id, settings=settings))
    with pytest.raises(ConflictError, match="storage first keeps its volumes"):
        pipeline.call("storage.update", ADMIN, "second", {"settings": {"directory": "/srv/a", "server": "kernel"}})
    assert pipeline.call("storage.update", ADMIN, "second", {"name": "other"}).status == "done"


@pytest.mark.parametrize(("directory", "expected"), [("/srv/a/web", ["db"]), ("/srv/a/web/deep", ["db"]), ("/srv", [])])
def test_a_scan_leaves_out_what_is_another_storages(pipeline: Pipeline, directory: str, expected: list[str]) -> None:
    """Records of both may be there from before this was refused."""
    with pipeline.database.write() as writer:
        twin, first = writer.one(Resource, name="twin"), writer.one(Storage, name="first")
        assert twin
        assert first
        writer.insert(Storage(name="inner", type="nfs", resource_id=twin.id, settings={"directory": directory}))
        writer.insert(Volume(name="known", storage_id=first.id, phase=VolumePhase.READY))
        place = NfsDrivers().context(first, writer)
        facts = Facts({DirPool().facts(place)[0].name: _found("db", "known", "web")})
        context = PlanContext(1, ADMIN, first, None, writer, facts, None, NfsDrivers())  # type: ignore[arg-type]  # no hooks
        steps = plan_scan(context).steps
    assert [step.title for step in steps] == [f"Record volume {name}" for name in expected]


def _found(*names: str) -> ScriptFacts:
    return parse("".join(f"volume {name}\n" for name in names))
