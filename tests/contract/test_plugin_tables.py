"""A plug-in with an entity: its tables come with `plugin init`, follow its declarations, and go only when asked."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import httpx
import pytest
from pydantic import Field
from sqlalchemy import inspect, select

from openqrm.admin import reference
from openqrm.api.application import create_app
from openqrm.domain.errors import ConflictError, UnavailableError, UnsupportedError
from openqrm.domain.model import Attr, Entity, Id, Name, Record, Text
from openqrm.domain.resource import Resource
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.engine.plugins.entities import all_entities, entity_fault
from openqrm.operations import core_plugins
from openqrm.operations.registry import Registry
from openqrm.plugin_api.operation import Arguments, Operation
from openqrm.plugin_api.plugin import Family, Plugin
from openqrm.store import migrations
from openqrm.store.histories import history_of
from openqrm.testing.database import open_database
from openqrm.testing.wiring import ADMIN, add_users, context_of, pipeline_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openqrm.operations.pipeline import Pipeline
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.database import PostgresServer

MODULE = "made_ledger"


class Entry(Record):
    """The first version of an entity."""

    entity: ClassVar[Entity] = Entity("ledger-entry", "ledger-entries", "Entry", "A line of the ledger")
    name: Annotated[Name, Attr("Name", unique=True, search=True, listed=True)]
    resource_id: Annotated[Id | None, Attr("Resource", ref="resource", filter=True)] = None


class ColouredEntry(Record):
    """The second version: one field more, with a default for the rows that exist."""

    entity: ClassVar[Entity] = Entry.entity
    name: Annotated[Name, Attr("Name", unique=True, search=True, listed=True)]
    resource_id: Annotated[Id | None, Attr("Resource", ref="resource", filter=True)] = None
    colour: Annotated[Text, Attr("Colour", listed=True)] = "grey"
    amounts: Annotated[dict[str, int], Attr("Amounts")] = Field(default_factory=dict)


class Enter(Arguments):
    """What is entered."""

    name: Annotated[Name, Attr("Name")]
    resource_id: Annotated[Id | None, Attr("Resource", ref="resource")] = None


def enter(writer: Writer, call: Call) -> Record:
    """Through the plug-in's newest record."""
    kind = NOW[-1].entities[0]
    return writer.insert(kind(**call.arguments.model_dump()))


FIRST = Plugin(
    name="ledger",
    family=Family.OTHER,
    title="Ledger",
    summary="A plug-in with tables",
    module=MODULE,
    entities=(Entry,),
    operations=(
        Operation(
            name="ledger-entry.create",
            title="Enter",
            summary="Make an entry",
            arguments=Enter,
            creates=Entry,
            act=f"{__name__}:enter",
        ),
    ),
)
SECOND = replace(FIRST, entities=(ColouredEntry,))
NOW: list[Plugin] = [FIRST]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The plug-in's package, with its first revision."""
    package = tmp_path / MODULE
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    NOW[:] = [FIRST]
    assert migrations.write_revision("first", FIRST) == package / "migrations" / "0001_first.py"
    assert migrations.write_revision("again", FIRST) is None
    yield package / "migrations"
    sys.modules.pop(MODULE, None)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def start(
    request: pytest.FixtureRequest, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Plugin], SqlDatabase]]:
    """Starts a controller's database with one version of the plug-in, as `setup.prepare` does."""
    opened: list[SqlDatabase] = []
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres_server")
    url = server.empty() if server else f"sqlite:///{tmp_path}/a.db"

    def start(plugin: Plugin) -> SqlDatabase:
        NOW.append(plugin)
        found = catalogues.of([plugin])
        monkeypatch.setattr(core_plugins, "installed", lambda: found)
        database = open_database(url, all_entities(found.plugins))
        fresh = not opened
        opened.append(database)
        migrations.upgrade(database)
        assert migrations.upgrade_plugins(database, found.plugins) == {}
        with database.write() as writer:
            catalogues.register(writer, found)
        if fresh:
            add_users(database)
        return database

    yield start
    for database in opened:
        database.close()
    if server:
        server.drop(url)


def tables(database: SqlDatabase) -> set[str]:
    with database.engine.connect() as connection:
        return {name for name in inspect(connection).get_table_names() if name.startswith("ledger")}


def call(pipeline: Pipeline, name: str, target: str | None = None, /, **arguments: Any) -> Any:
    return pipeline.call(name, ADMIN, target, arguments).record


def of(database: SqlDatabase) -> Pipeline:
    return pipeline_of(database, [NOW[-1]])


async def got(database: SqlDatabase, path: str) -> httpx.Response:
    app = create_app(context_of(database, of(database)))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://c", headers={"Authorization": "Bearer admin"}
    ) as c:
        return await c.get(path)


async def test_tables_come_with_init_and_are_kept_until_they_are_dropped(
    start: Callable[[Plugin], SqlDatabase],
) -> None:
    database = start(FIRST)
    pipeline = of(database)
    assert tables(database) == set()
    with pytest.raises(UnsupportedError, match="plug-in ledger, which is disabled"):
        call(pipeline, "ledger-entry.create", name="early")
    for path in ("/v1/ledger-entries", "/v1/ledger-entries/1"):
        answer = await got(database, path)
        assert (answer.status_code, answer.json()["remedy"]) == (409, "openqrm plugin init ledger")

    call(pipeline, "plugin.init", "ledger")
    assert tables(database) == {"ledger_entries", "ledger_alembic_version"}
    with database.write() as writer:
        resource = writer.insert(Resource(id=0, name="server"))
    made = call(pipeline, "ledger-entry.create", name="rent", resource_id="server")
    assert made.resource_id == resource.id
    assert [one["name"] for one in (await got(database, "/v1/ledger-entries?q=rent")).json()["items"]] == ["rent"]
    with database.write() as writer, pytest.raises(ConflictError, match="entry rent"):
        writer.delete(Resource, resource.id)

    call(pipeline, "plugin.uninstall", "ledger")
    assert "ledger_entries" in tables(database)
    assert (await got(database, "/v1/ledger-entries")).status_code == 409
    call(pipeline, "plugin.init", "ledger")
    assert (await got(database, "/v1/ledger-entries/rent")).json()["id"] == made.id

    call(pipeline, "plugin.uninstall", "ledger", drop_data=True)
    assert tables(database) == set()
    with database.read() as reader:
        words = database.schema.words
        assert reader.connection.execute(select(words).where(words.c.entity == "ledger-entry")).all() == []
    call(pipeline, "plugin.init", "ledger")
    assert (await got(database, "/v1/ledger-entries")).json()["items"] == []


async def test_a_field_that_is_added_later(start: Callable[[Plugin], SqlDatabase], folder: Path) -> None:
    database = start(FIRST)
    call(of(database), "plugin.init", "ledger")
    call(of(database), "ledger-entry.create", name="rent")
    written = migrations.write_revision("colours", SECOND)
    assert written == folder / "0002_colours.py"
    text = written.read_text()
    assert "openqrm" not in text, "a plug-in's revisions import nothing of ours"
    assert "create_table" not in text
    newer = start(SECOND)
    assert migrations.current(newer, history_of(SECOND)) == "0002"
    shown = (await got(newer, "/v1/ledger-entries/rent")).json()
    assert (shown["colour"], shown["amounts"]) == ("grey", {})
    with newer.write() as writer:
        entry = writer.update(writer.find(ColouredEntry)[0], colour="red", amounts={"a": 1})
    assert entry.amounts == {"a": 1}
    with pytest.raises(ConflictError):
        call(of(newer), "ledger-entry.create", name="rent")
    with newer.read() as reader:
        assert [row.name for row in reader.find(ColouredEntry, colour="red")] == ["rent"]


def test_data_of_a_disabled_plugin_is_upgraded_too(start: Callable[[Plugin], SqlDatabase], folder: Path) -> None:
    database = start(FIRST)
    call(of(database), "plugin.init", "ledger")
    call(of(database), "ledger-entry.create", name="rent")
    call(of(database), "plugin.uninstall", "ledger")
    migrations.write_revision("colours", SECOND)
    newer = start(SECOND)
    call(of(newer), "plugin.init", "ledger")
    with newer.read() as reader:
        assert [entry.colour for entry in reader.find(ColouredEntry)] == ["grey"]


def test_an_enabled_plugin_that_gets_its_first_entity(start: Callable[[Plugin], SqlDatabase]) -> None:
    database = start(replace(FIRST, entities=(), operations=()))
    call(of(database), "plugin.init", "ledger")
    assert tables(database) == set()
    assert tables(start(FIRST)) == {"ledger_entries", "ledger_alembic_version"}


def test_a_revision_that_fails_leaves_out_the_plugin_and_changes_nothing(
    start: Callable[[Plugin], SqlDatabase], folder: Path
) -> None:
    database = start(FIRST)
    call(of(database), "plugin.init", "ledger")
    migrations.write_revision("colours", SECOND)
    broken = folder / "0002_colours.py"
    broken.write_text(
        broken.read_text().replace("# ### end Alembic", 'raise RuntimeError("bad luck")\n    # ### end', 1)
    )
    failed = migrations.upgrade_plugins(database, [FIRST])
    assert "bad luck" in failed["ledger"]
    assert migrations.current(database, history_of(FIRST)) == "0001"
    with database.engine.connect() as connection:
        assert "colour" not in {column["name"] for column in inspect(connection).get_columns("ledger_entries")}
    broken.write_text("this is no Python")
    assert "ledger" in migrations.upgrade_plugins(database, [FIRST])


def test_a_database_of_a_newer_plugin_is_refused(start: Callable[[Plugin], SqlDatabase]) -> None:
    database = start(FIRST)
    call(of(database), "plugin.init", "ledger")
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger_alembic_version SET version_num = '9999'")
    with pytest.raises(UnavailableError, match="9999"):
        migrations.upgrade(database, history=history_of(FIRST))


def test_the_core_does_not_mind_a_plugin_that_is_gone(start: Callable[[Plugin], SqlDatabase]) -> None:
    database = start(FIRST)
    call(of(database), "plugin.init", "ledger")
    without = open_database(database.url.render_as_string(hide_password=False))
    assert migrations.upgrade(without) == (migrations.head(), migrations.head())
    without.close()


def test_the_reference_has_its_entities() -> None:
    page = reference.entities_page(Registry.of_installation([FIRST]))
    assert "`GET /v1/ledger-entries`, `openqrm ledger-entry list`" in page


@pytest.mark.parametrize(
    ("entity", "fault"),
    [
        (Entity("entry", "ledger-entries", "E", "s"), "entry does not begin with ledger-"),
        (Entity("ledger-entry", "entries", "E", "s"), "entries does not begin with ledger-"),
        (Entity("ledger-entry", "ledger-entries", "E", "s"), "refers to moon"),
    ],
)
def test_names_and_references_that_do_not_fit(entity: Entity, fault: str) -> None:
    class Wrong(Record):
        """An entity that cannot be."""

        resource_id: Annotated[Id, Attr("Moon", ref="moon")] = 1

    Wrong.entity = entity
    assert fault in (entity_fault(replace(FIRST, entities=(Wrong,)), {}) or "")
    assert "already declared" in (entity_fault(FIRST, {"ledger-entry": Entry}) or "")


def test_a_plugin_whose_entities_clash_is_left_out() -> None:
    other = replace(FIRST, name="ledger-entry", module="other", operations=())
    found = core_plugins.without_clashes(catalogues.of([FIRST, other]))
    assert [plugin.name for plugin in found.plugins] == ["ledger"]
    assert found.broken[0].name == "ledger-entry"


def test_errors_are_ours(start: Callable[[Plugin], SqlDatabase], folder: Path) -> None:
    for file in folder.glob("*.py"):
        file.unlink()
    database = start(FIRST)
    with pytest.raises(UnavailableError, match="no revisions"):
        call(of(database), "plugin.init", "ledger")
