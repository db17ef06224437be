"""Exports made of one script: what the script says, and which paths are a pool's."""

from __future__ import annotations

import pytest

from openqrm.domain.errors import MissingDependencyError
from openqrm.domain.storage import Storage, Volume
from openqrm.plugin_api.drivers import Client, Grant, NoSettings, StorageContext
from openqrm.plugin_api.facts import Facts
from openqrm.plugin_api.script_export import ExportFacts, ScriptLender, around, parse, within
from openqrm.plugin_api.steps import Command, Run


@pytest.mark.parametrize(
    ("path", "place", "inside"),
    [
        ("/home/someone/disk.img", "", True),
        ("/srv/images/web.img", "/srv/images", True),
        ("/srv/images/web.img", "/srv/images/", True),
        ("/srv/images-of-others/web.img", "/srv/images", False),
        ("/mnt/srv/images/web.img", "/srv/images", False),
        ("/dev/vg0/web", "vg0/block/pool", True),
        ("/dev/vg01/web", "vg0/block/pool", False),
        ("/dev/mapper/vg0-web", "vg0/block/pool", True),
        ("/dev/mapper/vg--san-web", "vg-san", True),
        ("/dev/mapper/vg0--san-web", "vg0", False),
        ("/dev/zvol/tank/images/web", "tank/images", True),
        ("/dev/zvol/tank/others/web", "tank/images", False),
        ("/tank/web", "tank/images", True),
    ],
)
def test_what_lies_in_a_pool(path: str, place: str, inside: bool) -> None:
    assert within(path, place) is inside


@pytest.mark.parametrize(
    ("path", "place", "has_it"),
    [
        ("/srv/images", "/srv/images", True),
        ("/srv/images/", "/srv/images", True),
        ("/srv", "/srv/images", True),
        ("/", "/srv/images", True),
        ("/srv/image", "/srv/images", False),
        ("/srv/images/web.img", "/srv/images", False),
        ("/", "vg0/block/pool", False),
    ],
)
def test_what_holds_a_pool(path: str, place: str, has_it: bool) -> None:
    assert around(path, place) is has_it


def test_what_the_script_says() -> None:
    said = "has tls\nhas interface eth1\ngrant volume-7 192.0.2.7 3 /srv/a b.img\nother any /dev/vg0/x\n"
    grants = (Grant("volume-7", "192.0.2.7", 3, "/srv/a b.img"), Grant("", "any", -1, "/dev/vg0/x"))
    assert parse(said) == ExportFacts({"tls": "", "interface": "eth1"}, grants)


def test_what_it_must_not_say() -> None:
    with pytest.raises(ValueError, match="none of: has, grant, other"):
        parse("interface eth1\n")


class Loans(ScriptLender):
    """An export whose host may have one of two servers, and which says so in its own words."""

    package = "openqrm.plugins.storage.nfs"
    scripts = ("shell:say",)

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        if not found.has:
            raise MissingDependencyError(f"{context.address} has no server")

    def made_with(self, context: StorageContext, found: ExportFacts) -> tuple[str, ...]:
        return tuple(found.has)

    def parse(self, output: str) -> ExportFacts:
        return ExportFacts(dict.fromkeys(output.split(), ""), ())


def _calls(said: str, verb: str) -> tuple[list[tuple[object, ...]], Run]:
    """What a verb and its undo are told on a host that said this, and the step."""
    export = Loans()
    storage = Storage(id=1, name="store", type="toy", resource_id=5)
    context = StorageContext(storage, 5, "192.0.2.5", NoSettings(), NoSettings())
    volume = Volume(id=12, name="web", storage_id=1, generation=4)
    client = Client(3, "192.0.2.33", "52:54:00:00:00:03", "node-3")
    fact = export.facts(context)[0]
    facts = Facts(answers={fact.question: fact.parse(said)})
    more = {"generation": 7} if verb == "authorize" else {}
    (step,) = getattr(export, verb)(context, volume, "/srv/web", client, facts=facts, **more)
    assert isinstance(step, Run)
    commands = [command for command in (step.do, step.undo) if isinstance(command, Command)]
    return [command.argv[3:] for command in commands], step


def test_a_grant_is_made_with_the_software_of_the_host() -> None:
    place, machine = ("volume-12", "/srv/web"), "52:54:00:00:00:03"
    assert _calls("second", "authorize")[0] == [("authorize", *place, machine, "7", "second"), ("revoke", *place)]


def test_lending_is_undone_by_reclaiming() -> None:
    words = ("volume-12", "/srv/web", "52:54:00:00:00:03")
    calls, step = _calls("second", "lend")
    assert calls == [("lend", *words, "second"), ("reclaim", *words)]
    assert step.gate is not None
    assert (step.gate.volume, step.gate.generation) == ("volume-12", 4)
    assert _calls("", "reclaim")[0] == [("reclaim", *words)]


@pytest.mark.parametrize("verb", ["authorize", "lend"])
def test_nothing_is_granted_by_a_host_that_lacks_the_software(verb: str) -> None:
    with pytest.raises(MissingDependencyError, match="has no server"):
        _calls("", verb)
