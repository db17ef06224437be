"""The conformance suite of pools can fail: one that is broken on purpose, one rule at a time, is caught each time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from openqrm.testing import needs
from openqrm.testing.toy_storage.mutants import (
    SLOW,
    Mutant,
    another_generation,
    is_caught,
    method,
    script,
    steps,
    text,
    titled_anew,
)
from openqrm.testing.toy_storage.plugin import ToyPool
from openqrm.testing.toy_storage.rig import ToyRig, toy_rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HALF = 'mkdir "$path"; ' + SLOW + '; cp -a "$5/." "$path"; exit 0\ncp'
_FIFTH = (
    'count=$(($(stat -c %s "$new/big") / 5242880)); dd if="$new/big" of="$new/x" bs=1M count=$count; '
    'dd if="$new/x" of="$new/big" bs=1M conv=notrunc,fsync; rm "$new/x"'
)
DIES, CUT_OFF = "test_a_host_that_dies_in_the_middle", "test_unreachable_in_the_middle"
_LATER = """setsid sh -c 'sleep 3; mv -T "$1" "$2"' sh "$new" "$path" </dev/null >/dev/null 2>&1 8>&- 9>&- &"""
KILLED, FULL = "test_killed_in_the_middle", "test_a_pool_that_gets_full"
MADE = "test_a_volume_is_made_and_removed"
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
        "a clone copies a fifth of what there is",
        "test_a_clone_shares_what_is_not_changed",
        (script("clone", 'sync "$new"', f'{_FIFTH}; sync "$new"'),),
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
        "half a clone is shown when the host died",
        DIES,
        (script("clone", "cp -a --reflink=auto", _HALF),),
        arguments=("clone",),
    ),
    Mutant(
        "half a clone is shown while the host is off the network",
        CUT_OFF,
        (script("clone", "cp -a --reflink=auto", _HALF),),
        arguments=("clone",),
    ),
    Mutant(
        "a host that died does not go on",
        DIES,
        (script("clone", 'sync "$new"', SLOW), script("clone", 'rm -rf "$new"\n', '[ ! -e "$new" ] || exit 1\n')),
        arguments=("clone",),
    ),
    Mutant(
        "a resize whose answer was lost is an error",
        CUT_OFF,
        (script("resize", "ours\n", 'ours\n[ "$(noted)" != "$id $4" ] || exit 1\n'),),
        arguments=("resize",),
    ),
    Mutant(
        "it answers before it is done",
        "test_what_was_done_is_there_after_a_power_cut",
        (script("fill", 'mv -T "$new" "$path"', _LATER),),
    ),
    Mutant(
        "leftovers are never named",
        "test_what_is_no_volume_is_named",
        (
            method(ToyPool, "leftovers", lambda original, *given: ()),
            script("fill", 'mv -T "$new" "$path"', SLOW + '; mv -T "$new" "$path"'),
        ),
    ),
    Mutant(
        "sizes are forgotten",
        "test_the_smallest_sizes",
        (script("create", 'note "$id $size"', 'note "$id 0"'),),
        arguments=(3,),
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
        arguments=("fill",),
    ),
    Mutant(
        "growing loses what was in it",
        "test_a_volume_grows_with_its_file_system",
        (script("resize", "ours", 'ours; rm -rf "$path"; mkdir "$path"'),),
        arguments=("fill",),
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
        (method(ToyPool, "run", another_generation),),
    ),
    Mutant("plans depend on chance", "test_plans_of_the_pool_are_data", (method(ToyPool, "run", titled_anew),)),
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
    Mutant(
        "a volume is where its id says",
        "test_a_location_is_of_one_volume",
        (method(ToyPool, "location", lambda original, self, context, volume: f"/srv/{volume.id}"),),
    ),
    Mutant(
        "a volume is listed where it is not",
        MADE,
        (
            method(
                ToyPool,
                "entries",
                lambda original, *given: [replace(each, root_device=each.name) for each in original(*given)],
            ),
        ),
    ),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyRig]:
    needs.root_and("mkfs.btrfs")
    with toy_rig(tmp_path_factory.mktemp("mutants")) as rig:
        yield rig


@pytest.mark.parametrize("mutant", POOL_MUTANTS, ids=lambda mutant: mutant.broken.replace(" ", "-"))
async def test_a_broken_one_is_caught(
    mutant: Mutant, running: ToyRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"{mutant.broken}: {await is_caught(mutant, running, tmp_path, monkeypatch)}")
