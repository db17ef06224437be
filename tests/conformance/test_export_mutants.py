"""The conformance suite of exports can fail: one that is broken on purpose, one rule at a time, is caught each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.testing import needs
from openqrm.testing.toy_storage.mutants import Mutant, export, is_caught, method, steps, text, told_in_words
from openqrm.testing.toy_storage.plugin import ToyExport
from openqrm.testing.toy_storage.rig import ToyRig, toy_rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, PROOF = "test_exactly_one_client", "test_nothing_is_written_after_a_revocation"
HAND = "test_a_grant_made_by_hand_is_found_and_withdrawn"
EXPORT_MUTANTS = (
    Mutant("two clients at once", ONE, (text("EXPORT", "/ours-{volume}.json", "/ours-{volume}-{client}.json"),)),
    Mutant("a revocation that does nothing", ONE, (export("revoke", "drop(mine)", "sys.exit()"),)),
    Mutant("granting does not happen", ONE, (export("authorize", "put(mine, True)", "sys.exit()"),)),
    Mutant("a secret stands in a command", ONE, (method(ToyExport, "run", told_in_words),)),
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
        "machines are told nothing",
        "test_attach_names_what_the_root_mount_needs",
        (method(ToyExport, "attach", lambda original, *given: {}),),
    ),
    Mutant(
        "grants are forgotten when the host dies",
        "test_a_grant_while_the_host_dies",
        server=("    reload(Path(sys.argv[2]))\n    Server", "    Server"),
        arguments=("authorize",),
    ),
    Mutant(
        "a grant whose answer was lost is an error",
        "test_a_grant_while_the_host_is_unreachable",
        (export("authorize", "put(mine, True)", "assert not os.path.exists(mine); put(mine, True)"),),
        arguments=("authorize",),
    ),
    Mutant(
        "long names of two volumes are one grant",
        "test_the_longest_name_is_granted",
        server=("grant[word] == asked[word]", "str(grant[word])[:-1] == str(asked[word])[:-1]"),
    ),
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyRig]:
    needs.root_and("mkfs.btrfs")
    with toy_rig(tmp_path_factory.mktemp("mutants")) as rig:
        yield rig


@pytest.mark.parametrize("mutant", EXPORT_MUTANTS, ids=lambda mutant: mutant.broken.replace(" ", "-"))
async def test_a_broken_one_is_caught(
    mutant: Mutant, running: ToyRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"{mutant.broken}: {await is_caught(mutant, running, tmp_path, monkeypatch)}")
