"""`ScriptPool`: what a pool's script says, and what is planned or refused from it. Its steps are in case files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.admin.skeletons.storage.plugin import PLUGIN
from openqrm.domain.errors import ConflictError, NoCapacityError
from openqrm.domain.storage import Storage, Volume
from openqrm.plugin_api.drivers import Cap, NoSettings, StorageContext, confirmed
from openqrm.plugin_api.facts import Facts
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.script_pool import ABSENT, parse

if TYPE_CHECKING:
    from openqrm.plugin_api.script_pool import ScriptPool

(DECLARED,) = PLUGIN.provides
CONTEXT = StorageContext(Storage(name="s", type="t", resource_id=5), 5, "192.0.2.5", DECLARED.spec(), NoSettings())  # type: ignore[union-attr]  # a pool
VOLUME = Volume(id=7, name="web", storage_id=1, size_mb=100)


@pytest.fixture
def pool() -> ScriptPool:
    found: ScriptPool = load(DECLARED.driver)()  # type: ignore[union-attr]  # a pool
    return found


def facts(pool: ScriptPool, output: str | None) -> Facts:
    (fact,) = pool.facts(CONTEXT)
    assert fact.absent == (ABSENT,)
    return Facts({fact.name: fact.missing if output is None else fact.parse(output)})


def test_what_the_script_says() -> None:
    found = parse("free_mb 12\nvolume web 30\nvolume lost+found\nvolume tree\nleftover /a b\nlacks clone-cow\n")
    assert found.free_mb == 12
    assert found.volumes == {"web": 30, "tree": 0}
    assert found.leftovers == ("/a b",)
    assert found.lacks == {"clone-cow"}


@pytest.mark.parametrize("output", ["nonsense\n", "free_mb many\n"])
def test_what_is_no_answer_is_refused(output: str) -> None:
    with pytest.raises(ValueError, match=re.escape(output.rsplit(maxsplit=1)[-1])):
        parse(output)


def test_what_is_larger_than_the_pool_is_refused(pool: ScriptPool) -> None:
    with pytest.raises(NoCapacityError, match="asks for 100 MB; storage s has 99 MB free"):
        pool.create(CONTEXT, VOLUME, facts(pool, "free_mb 99\n"))
    with pytest.raises(NoCapacityError):
        pool.clone(CONTEXT, VOLUME, VOLUME, facts(pool, "free_mb 99\n"))
    assert pool.create(CONTEXT, VOLUME, facts(pool, "free_mb 100\n"))


@pytest.mark.parametrize("verb", ["create", "clone", "fill", "remove", "entries", "leftovers"])
def test_a_place_that_is_not_there(pool: ScriptPool, verb: str) -> None:
    given: dict[str, tuple[Any, ...]] = {"clone": (VOLUME, VOLUME), "fill": (VOLUME, "/a"), "entries": ()}
    arguments = given | {"leftovers": ()}
    with pytest.raises(ConflictError, match="there is no pool in /srv/sample on its host"):
        getattr(pool, verb)(CONTEXT, *arguments.get(verb, (VOLUME,)), facts(pool, None))


def test_what_a_host_lacks_is_not_confirmed(pool: ScriptPool) -> None:
    said = facts(pool, "free_mb 1\nlacks clone\n")
    assert not confirmed(pool, Cap.CLONE, CONTEXT, said)
    assert confirmed(pool, Cap.FILL, CONTEXT, said)
    assert not confirmed(pool, Cap.FILL, CONTEXT, facts(pool, None))


def test_somebodys_directory_of_any_name_is_no_volume() -> None:
    assert parse(
        "free_mb 5\nvolume web 7\nvolume web big\nvolume a b c\nvolume a 1 2 3\nvolume \nvolume db\n"
    ).volumes == {
        "web": 7,
        "db": 0,
    }


def test_what_volumes_may_still_take_is_not_free(pool: ScriptPool) -> None:
    said = facts(pool, "free_mb 300\nvolume web 200 80\nvolume full 50 60\nvolume db 100\n")
    with pytest.raises(NoCapacityError, match="has 300 MB free, of which its volumes may still take 120 MB"):
        pool.create(CONTEXT, VOLUME.model_copy(update={"size_mb": 181}), said)
    assert pool.create(CONTEXT, VOLUME.model_copy(update={"size_mb": 180}), said)


def test_words_that_only_the_class_understands() -> None:
    assert parse("has lvm\nhas groups one two\n").has == {"lvm": "", "groups": "one two"}


def test_a_class_says_where_its_volumes_are(pool: ScriptPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one place, for what is listed, handed out and planned; the script is told the name. No id counts."""
    monkeypatch.setattr(type(pool), "place_of", lambda self, context, name: f"{self.place(context)}/{name[0]}/{name}")
    (entry,) = pool.entries(CONTEXT, facts(pool, "free_mb 300\nvolume web 200\n"))
    found_again = VOLUME.model_copy(update={"id": 99})
    assert entry.root_device == pool.location(CONTEXT, VOLUME) == pool.location(CONTEXT, found_again)
    assert entry.root_device == "/srv/sample/w/web"
    (step,) = pool.create(CONTEXT, VOLUME, facts(pool, "free_mb 300\n"))
    assert step.title == "Create /srv/sample/w/web"
    assert pool.command(CONTEXT, VOLUME, "create").argv[3:6] == ("create", "/srv/sample", "web")
