"""Ways to break the toy storage type on purpose, and to see whether the conformance suite notices."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import OpenqrmError
from openqrm.plugin_api.steps import Command
from openqrm.testing import storage_cuts, storage_export_suite, storage_fault_suite
from openqrm.testing.storage_suite import StorageSuite
from openqrm.testing.toy_storage import scripts

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.testing.toy_storage.rig import ToyRig

    Change = Callable[[pytest.MonkeyPatch], None]

SLOW = "sleep 1"
"""Most of what the command takes then, so that the suite's first cut comes meanwhile."""


@dataclass(frozen=True)
class Mutant:
    """What is broken, and the test that must see it."""

    broken: str
    test: str
    changes: tuple[Change, ...] = ()
    server: tuple[str, str] = ("", "")
    arguments: tuple[Any, ...] = ()


def _must_be_in(part: str, whole: str) -> None:
    """ValueError: a change that changes nothing breaks nothing."""
    if part not in whole:
        raise ValueError(f"{part!r} is not in {whole!r}")


def script(verb: str, old: str, new: str) -> Change:
    """Other text in a script of the pool."""
    return _replaced(scripts.SCRIPTS, verb, old, new)


def export(verb: str, old: str, new: str) -> Change:
    """Other text in a script of the export."""
    return _replaced(scripts.EXPORTS, verb, old, new)


def _replaced(texts: dict[str, str], verb: str, old: str, new: str) -> Change:
    _must_be_in(old, texts[verb])
    return lambda patch: patch.setitem(texts, verb, texts[verb].replace(old, new))


def text(name: str, old: str, new: str) -> Change:
    """Other text in what all scripts begin with."""
    whole: str = getattr(scripts, name)
    _must_be_in(old, whole)
    return lambda patch: patch.setattr(scripts, name, whole.replace(old, new))


def method(owner: type, name: str, changed: Callable[..., Any]) -> Change:
    """`changed` gets the original, then the arguments."""
    original = getattr(owner, name)
    return lambda patch: patch.setattr(owner, name, lambda *given, **named: changed(original, *given, **named))


def steps(owner: type, **fields: Any) -> Change:
    """Each step with other fields."""
    return method(
        owner,
        "run",
        lambda original, *given, **named: tuple(step.model_copy(update=fields) for step in original(*given, **named)),
    )


def told_in_words(original: Any, *given: Any, **named: Any) -> Any:
    """The secret stands in the command's words too."""
    made = original(*given, **named)
    if len(made) > 1:
        command = Command(argv=(*made[0].do.argv, made[0].do.input), input=made[0].do.input)
        made = (made[0].model_copy(update={"do": command}), *made[1:])
    return made


def another_generation(original: Any, *given: Any, **named: Any) -> Any:
    """Steps are gated by a generation that nobody asked for."""
    return tuple(
        step.model_copy(update={"gate": step.gate.model_copy(update={"generation": 99})})
        for step in original(*given, **named)
    )


def titled_anew(original: Any, *given: Any, **named: Any) -> Any:
    """The same facts give other steps each time."""
    return tuple(step.model_copy(update={"title": os.urandom(4).hex()}) for step in original(*given, **named))


def hurry(patch: pytest.MonkeyPatch) -> None:
    """This host does all at once: nothing has to be waited for as long as on real ones."""
    patch.setattr(storage_export_suite, "WATCHED_SECONDS", 0.3)
    patch.setattr(storage_cuts, "HELD_SECONDS", 0.5)
    patch.setattr(storage_fault_suite, "BACK_SECONDS", 1.0)


async def is_caught(mutant: Mutant, running: ToyRig, directory: Path, patch: pytest.MonkeyPatch) -> str:
    """What the test said that is to see it; AssertionError when it said nothing."""
    hurry(patch)
    for change in mutant.changes:
        change(patch)
    program = running.program
    running.program = _server(Path(program), mutant, directory)
    await running.restart()
    hosts = running.hosts()
    try:
        with pytest.raises((AssertionError, OpenqrmError, OSError, pytest.fail.Exception)) as caught:
            await _run(mutant, running.subject(hosts))
    finally:
        await hosts.close()
        running.program = program
    said = str(caught.value)
    assert "never cut" not in said, f"the test that is to see it saw nothing: {said}"  # noqa: S101
    return said


def _server(program: Path, mutant: Mutant, directory: Path) -> str:
    """The program of the mutant's server."""
    source = program.read_text(encoding="utf-8")
    _must_be_in(mutant.server[0], source)
    changed = directory / "server.py"
    changed.write_text(source.replace(*mutant.server) if mutant.server[0] else source, encoding="utf-8")
    return str(changed)


async def _run(mutant: Mutant, subject: Any) -> None:
    try:
        await getattr(StorageSuite(), mutant.test)(subject, *mutant.arguments)
    except pytest.skip.Exception as skipped:
        raise RuntimeError(f"{mutant.test} was skipped: {skipped}") from None
