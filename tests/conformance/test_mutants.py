"""The conformance suite can fail: a storage type that is broken on purpose, one rule at a time, is caught each time."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import OpenqrmError
from openqrm.plugin_api.steps import Command
from openqrm.testing import storage_copy_suite, storage_export_suite
from openqrm.testing.storage_suite import StorageSuite
from openqrm.testing.toy_storage import scripts
from openqrm.testing.toy_storage.plugin import ToyExport, ToyPool
from openqrm.testing.toy_storage.rig import ToyRig, toy_rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[pytest.MonkeyPatch], None]

SLOW = "sleep 3"
"""Longer than the suite's last moment to kill a command."""


@dataclass(frozen=True)
class Mutant:
    """What is broken, and the test that must see it."""

    broken: str
    test: str
    changes: tuple[Change, ...] = ()
    server: tuple[str, str] = ("", "")
    arguments: tuple[Any, ...] = ()


def script(verb: str, old: str, new: str) -> Change:
    return _replaced(scripts.SCRIPTS, verb, old, new)


def export(verb: str, old: str, new: str) -> Change:
    return _replaced(scripts.EXPORTS, verb, old, new)


def _replaced(texts: dict[str, str], verb: str, old: str, new: str) -> Change:
    assert old in texts[verb], f"{old!r} is not in {verb}"
    return lambda patch: patch.setitem(texts, verb, texts[verb].replace(old, new))


def text(name: str, old: str, new: str) -> Change:
    whole: str = getattr(scripts, name)
    assert old in whole, f"{old!r} is not in {name}"
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


def _told_in_words(original: Any, *given: Any, **named: Any) -> Any:
    made = original(*given, **named)
    if len(made) > 1:
        command = Command(argv=(*made[0].do.argv, made[0].do.input), input=made[0].do.input)
        made = (made[0].model_copy(update={"do": command}), *made[1:])
    return made


def _another_generation(original: Any, *given: Any, **named: Any) -> Any:
    return tuple(
        step.model_copy(update={"gate": step.gate.model_copy(update={"generation": 99})})
        for step in original(*given, **named)
    )


def _titled_anew(original: Any, *given: Any, **named: Any) -> Any:
    return tuple(step.model_copy(update={"title": os.urandom(4).hex()}) for step in original(*given, **named))


_HALF = 'mkdir "$path"; ' + SLOW + '; cp -a "$5/." "$path"; exit 0\ncp'
KILLED, FULL = "test_killed_in_the_middle", "test_a_pool_that_gets_full"
ONE, PROOF = "test_exactly_one_client", "test_nothing_is_written_after_a_revocation"
MADE, HAND = "test_a_volume_is_made_and_removed", "test_a_grant_made_by_hand_is_found_and_withdrawn"
POOL_MUTANTS = (
    Mutant("made twice is an error", MADE, (script("create", '[ -e "$path" ] || ', ""),)),
    Mutant("removing removes nothing", MADE, (script("remove", 'rm -rf "$path"', "true"),)),
    Mutant("removed twice is an error", MADE, (script("remove", 'rm -f "$made"', 'rm "$made"'),)),
    Mutant(
        "what others made is taken over",
        "test_what_was_there_before_is_not_touched",
        (script("create", "ours\n", ""),),
    ),
    Mutant(
        "the undo removes what others made",
        "test_what_was_there_before_is_not_touched",
        (script("undo", "*) exit 0 ;;", "*) ;;"),),
    ),
    Mutant(
        "a repeated creation begins anew",
        "test_a_repeated_creation_keeps_what_is_in_it",
        (script("create", "ours\n", 'ours\nrm -rf "$path"\n'),),
    ),
    Mutant(
        "names that begin alike go too",
        "test_one_volume_is_removed_and_no_other",
        (script("remove", 'rm -rf "$path"', 'rm -rf "$path"*'),),
    ),
    Mutant(
        "a clone is hard links",
        "test_a_clone_is_a_copy_of_its_own",
        (script("clone", "cp -a --reflink=auto", "cp -al"),),
    ),
    Mutant(
        "a repeated clone copies again",
        "test_a_clone_is_a_copy_of_its_own",
        (script("clone", '[ ! -e "$path" ] || exit 0', 'rm -rf "$path"'),),
    ),
    Mutant(
        "a clone loses owners and attributes",
        "test_a_clone_has_all_that_is_in_a_tree",
        (script("clone", "cp -a", "cp -r"),),
    ),
    Mutant(
        "a clone copies every block",
        "test_a_clone_shares_what_is_not_changed",
        (script("clone", "--reflink=auto", "--reflink=never"),),
    ),
    Mutant(
        "a snapshot copies every block",
        "test_a_snapshot_holds_only_what_differs",
        (script("clone", "--reflink=auto", "--reflink=never"),),
    ),
    Mutant(
        "a snapshot is the source itself",
        "test_a_snapshot_holds_only_what_differs",
        (script("clone", "cp -a --reflink=auto", "cp -al"),),
    ),
    Mutant(
        "half a clone is shown as a volume",
        KILLED,
        (script("clone", "cp -a --reflink=auto", _HALF),),
        arguments=("clone",),
    ),
    Mutant(
        "half a clone is named by nobody",
        KILLED,
        (script("clone", 'sync "$new"', SLOW), text("FACTS", 'echo "leftover', ': "leftover')),
        arguments=("clone",),
    ),
    Mutant(
        "a killed clone is not begun anew",
        KILLED,
        (script("clone", 'sync "$new"', SLOW), script("clone", 'rm -rf "$new"\n', '[ ! -e "$new" ] || exit 1\n')),
        arguments=("clone",),
    ),
    Mutant(
        "the undo leaves half an archive",
        KILLED,
        (
            script("fill", 'mv -T "$new" "$path"', SLOW + '; mv -T "$new" "$path"'),
            script("undo", 'rm -rf "$new"', "true"),
        ),
        arguments=("fill",),
    ),
    Mutant(
        "owners in an archive are lost",
        "test_an_archive_is_unpacked_whole",
        (script("fill", "--same-owner", "--no-same-owner"),),
        arguments=(False,),
    ),
    Mutant(
        "only one way to pack is known",
        "test_an_archive_is_unpacked_whole",
        (
            script(
                "fill",
                "tar -xf",
                '[ "$(head -c 2 "$5" | od -An -tx1)" != " 1f 8b" ]; tar -xf',
            ),
        ),
        arguments=(True,),
    ),
    Mutant(
        "half an archive is left in the volume",
        "test_a_broken_archive_leaves_the_volume_empty",
        (script("fill", '-C "$new"', '-C "$path"'),),
    ),
    Mutant(
        "it does not grow",
        "test_a_volume_grows_with_its_file_system",
        (script("resize", 'note "$id $4"', "true"),),
    ),
    Mutant(
        "growing loses what was in it",
        "test_a_volume_grows_with_its_file_system",
        (script("resize", "ours", 'ours; rm -rf "$path"; mkdir "$path"'),),
    ),
    Mutant(
        "it shrinks",
        "test_a_volume_does_not_shrink",
        (
            method(
                ToyPool,
                "resize",
                lambda original, self, context, volume, size_mb, facts: self.run(
                    context, volume, "resize", size=size_mb
                ),
            ),
        ),
    ),
    Mutant(
        "more is promised than there is",
        "test_more_than_the_pool_has",
        (method(ToyPool, "room", lambda original, *given: None),),
    ),
    Mutant(
        "a full pool keeps rubbish",
        FULL,
        (script("remove", 'rm -rf "$new"', "true"), script("undo", 'rm -rf "$new"', "true")),
        arguments=("fill",),
    ),
    Mutant(
        "a failed copy is taken for whole",
        FULL,
        (script("fill", "--xattrs-include='*'", "--xattrs-include='*' || true"),),
        arguments=("fill",),
    ),
    Mutant(
        "long names are cut",
        "test_names_at_their_limits",
        (text("POOL", "name=$2", 'name=$(echo "$2" | cut -c1-62)'),),
    ),
    Mutant(
        "nothing is undone",
        "test_undone_after_a_failure_at_each_step",
        (script("undo", 'rm -rf "$path"', "true"),),
        arguments=("create",),
    ),
    Mutant(
        "the undo leaves a note",
        "test_undone_after_a_failure_at_each_step",
        (script("undo", 'rm -f "$made"', "true"),),
        arguments=("clone",),
    ),
    Mutant("steps have no gate", "test_plans_of_the_pool_are_data", (steps(ToyPool, gate=None),)),
    Mutant(
        "steps have the gate of another generation",
        "test_plans_of_the_pool_are_data",
        (method(ToyPool, "run", _another_generation),),
    ),
    Mutant("plans depend on chance", "test_plans_of_the_pool_are_data", (method(ToyPool, "run", _titled_anew),)),
    Mutant(
        "the late are not held back", "test_a_stale_generation_makes_and_removes_nothing", (steps(ToyPool, gate=None),)
    ),
    Mutant(
        "two at once fall over each other",
        "test_two_callers_make_one_volume",
        (steps(ToyPool, gate=None), script("create", 'note "$id $size"', 'note "$id $size"; sleep 1')),
    ),
    Mutant(
        "volumes share a place",
        "test_a_location_is_of_one_volume",
        (method(ToyPool, "location", lambda original, self, context, volume: "/srv"),),
    ),
)
EXPORT_MUTANTS = (
    Mutant("two clients at once", ONE, (text("EXPORT", "/ours-{volume}.json", "/ours-{volume}-{client}.json"),)),
    Mutant("a revocation that does nothing", ONE, (export("revoke", "drop(mine)", "sys.exit()"),)),
    Mutant("granting does not happen", ONE, (export("authorize", "put(mine, True)", "sys.exit()"),)),
    Mutant("a secret stands in a command", ONE, (method(ToyExport, "run", _told_in_words),)),
    Mutant(
        "a client reads only",
        "test_a_client_reads_and_writes_the_volume_itself",
        (export("authorize", "True", "False"),),
    ),
    Mutant("open sessions go on", PROOF, server=("session.closed = True", "pass")),
    Mutant(
        "open sessions go on behind a cut link",
        "test_nothing_is_written_after_a_revocation_while_the_link_is_down",
        server=("session.closed = True", "pass"),
    ),
    Mutant(
        "grants are forgotten at a restart",
        "test_a_grant_survives_a_restart_and_so_does_a_revocation",
        server=("    reload(Path(sys.argv[2]))\n    Server", "    Server"),
    ),
    Mutant(
        "what was revoked is back after a restart",
        "test_a_grant_survives_a_restart_and_so_does_a_revocation",
        (export("revoke", "drop(mine)", 'os.path.exists(mine) and os.rename(mine, mine + ".old")'),),
        server=(
            "LIVE.clear()",
            "[f.rename(f.with_suffix('')) for f in directory.glob('*.old') if not LIVE]; LIVE.clear()",
        ),
    ),
    Mutant(
        "the secret is not asked for", "test_a_machine_that_poses_as_another", server=('"client", "secret"', '"client"')
    ),
    Mutant(
        "the first secret stays",
        "test_a_secret_is_of_one_grant",
        (
            export(
                "authorize", "put", 'secret = json.load(open(mine))["secret"] if os.path.exists(mine) else secret\nput'
            ),
        ),
    ),
    Mutant(
        "grants show the secrets",
        "test_secrets_are_told_to_nobody_else",
        (export("list", 'grant.pop("secret")', 'grant["client"] += grant.pop("secret")'),),
    ),
    Mutant(
        "grants made by hand are not seen",
        HAND,
        (export("list", "    print(", '    if name[:4] in ("ours", "lent"): print('),),
    ),
    Mutant("grants made by hand stay", HAND, (export("withdraw", "        drop(file)", "        pass"),)),
    Mutant(
        "what is ours is withdrawn too",
        HAND,
        (
            export(
                "withdraw",
                'not os.path.basename(file).startswith(("ours-", "lent-")) and (grant["path"], grant["client"]) == ',
                'grant["path"] == path or ',
            ),
        ),
    ),
    Mutant("what is lent can be written", "test_many_read_and_none_of_them_writes", (export("lend", "False", "True"),)),
    Mutant(
        "one borrower only",
        "test_many_read_and_none_of_them_writes",
        (text("EXPORT", "/lent-{volume}-{client}", "/lent-{volume}"),),
    ),
    Mutant(
        "lending takes it from its writer",
        "test_lent_beside_one_that_writes",
        (export("lend", "put(lent, False)", "put(lent, False); drop(mine)"),),
    ),
    Mutant(
        "revoking ends what is lent",
        "test_lent_beside_one_that_writes",
        (export("revoke", "drop(mine)", 'drop(mine); [drop(f) for f, g in known() if g["volume"] == volume]'),),
    ),
    Mutant(
        "nothing is reclaimed", "test_what_is_lent_stays_so_over_a_restart", (export("reclaim", "drop(lent)", "pass"),)
    ),
    Mutant(
        "a grant is not undone",
        "test_a_grant_is_undone_after_a_failure_at_each_step",
        (export("revoke", "drop(mine)", "sys.exit()"),),
        arguments=("authorize",),
    ),
    Mutant(
        "a grant done twice is an error",
        "test_a_grant_repeated_after_a_failure_at_each_step",
        (export("authorize", "put(mine, True)", "assert not os.path.exists(mine); put(mine, True)"),),
        arguments=("authorize",),
    ),
    Mutant("grants have no gate", "test_a_stale_generation_changes_nothing", (steps(ToyExport, gate=None),)),
    Mutant("steps of grants have no gate", "test_plans_of_the_export_are_data", (steps(ToyExport, gate=None),)),
    Mutant(
        "two callers make two grants",
        "test_two_callers_make_one_grant",
        (text("EXPORT", "/ours-{volume}.json", "/ours-{volume}-{client}.json"),),
    ),
    Mutant(
        "who has no address is let in",
        "test_what_a_client_without_address_gets",
        (method(ToyExport, "authorize", lambda original, *given: ()),),
    ),
    Mutant(
        "machines are told what no hook reads",
        "test_attach_names_what_the_root_mount_needs",
        (method(ToyExport, "attach", lambda original, *given: {"SERVER": "x"}),),
    ),
    Mutant(
        "long names of two volumes are one grant",
        "test_the_longest_name_is_granted",
        server=("grant[word] == asked[word]", "str(grant[word])[:-1] == str(asked[word])[:-1]"),
    ),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyRig]:
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs", path="/usr/sbin:/sbin:" + os.environ["PATH"]) is None:
        pytest.skip("needs root and: mkfs.btrfs")
    with toy_rig(tmp_path_factory.mktemp("mutants")) as rig:
        yield rig


@pytest.mark.parametrize("mutant", [*POOL_MUTANTS, *EXPORT_MUTANTS], ids=lambda mutant: mutant.broken.replace(" ", "-"))
async def test_a_broken_storage_type_is_caught(
    mutant: Mutant, running: ToyRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_export_suite, "WATCHED_SECONDS", 0.3)
    monkeypatch.setattr(storage_copy_suite, "ALLOWANCE_SECONDS", 60.0)
    for change in mutant.changes:
        change(monkeypatch)
    program = running.program
    running.program = _server(Path(program), mutant, tmp_path)
    await running.restart()
    hosts = running.hosts()
    try:
        with pytest.raises((AssertionError, OpenqrmError, OSError, pytest.fail.Exception)) as caught:
            await _run(mutant, running.subject(hosts))
        print(f"{mutant.broken}: {caught.value}")
    finally:
        await hosts.close()
        running.program = program


def _server(program: Path, mutant: Mutant, directory: Path) -> str:
    """The program of the mutant's server."""
    source = program.read_text(encoding="utf-8")
    assert mutant.server[0] in source
    changed = directory / "server.py"
    changed.write_text(source.replace(*mutant.server) if mutant.server[0] else source, encoding="utf-8")
    return str(changed)


async def _run(mutant: Mutant, subject: Any) -> None:
    try:
        await getattr(StorageSuite(), mutant.test)(subject, *mutant.arguments)
    except pytest.skip.Exception as skipped:
        raise RuntimeError(f"{mutant.test} was skipped: {skipped}") from None
