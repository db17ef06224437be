"""The page docs/reference/storage-conformance.md, made from the recorded results of conformance runs.

`python -m openqrm.testing.storage_report write` makes it; `check` says what is stale or missing and ends with 1.
Records are made by runs of the suites (`storage_record`). What is shown in another way, such as by machines that boot
in the lab, and what cannot be run, has a record written by hand: `type`, `pool`, `export`, `date` and `shown_by` (what
shows it, or why it was not run).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.engine.plugins.catalogue import discover
from openqrm.plugin_api.drivers import Cap
from openqrm.testing.storage_code import fingerprint
from openqrm.testing.storage_own_suite import MachineSuite
from openqrm.testing.storage_suite import ExportSuite, PoolSuite

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from openqrm.engine.plugins.declarations import Declared
    from openqrm.plugin_api.drivers import StorageType

DIRECTORY = Path("docs/reference")
RECORDS, PAGE = "conformance", "storage-conformance.md"
_RESTART = "test_a_grant_survives_a_restart_and_so_does_a_revocation"
SHOWN_BY: dict[Cap, dict[str, str]] = {
    Cap.CLONE: {
        "test_a_clone_is_a_copy_of_its_own": "a copy of its own",
        "test_a_clone_has_all_that_is_in_a_tree": "all that is in a tree",
    },
    Cap.CLONE_COW: {"test_a_clone_shares_what_is_not_changed": "sharing"},
    Cap.FILL: {
        "test_an_archive_is_unpacked_whole": "a whole archive",
        "test_a_broken_archive_leaves_the_volume_empty": "a broken archive",
    },
    Cap.SNAPSHOT: {"test_a_snapshot_holds_only_what_differs": "only what differs"},
    Cap.RESIZE: {
        "test_a_volume_grows_with_its_file_system": "growing",
        "test_a_volume_does_not_shrink": "not shrinking",
    },
    Cap.LIST: {"test_a_volume_is_made_and_removed": "volumes"},
    Cap.AUTHORIZE: {
        "test_exactly_one_client": "one client",
        "test_a_client_reads_and_writes_the_volume_itself": "reading and writing",
        _RESTART: "a restart",
    },
    Cap.SHARED: {"test_exactly_one_client": "one client"},
    Cap.LEND: {
        "test_many_read_and_none_of_them_writes": "many readers",
        "test_lent_beside_one_that_writes": "a writer beside them",
        "test_what_is_lent_stays_so_over_a_restart": "a restart",
    },
    Cap.REVOKE_PROOF: {
        "test_nothing_is_written_after_a_revocation": "an open session",
        "test_nothing_is_written_after_a_revocation_while_the_link_is_down": "a cut link",
        _RESTART: "a restart",
    },
}
"""The tests that cannot pass without the capability, and in a word what each shows; without the first there is none."""
SUITES: dict[str, type] = {"pool": PoolSuite, "export": ExportSuite, "machine": MachineSuite}
BY_HAND = ("pool", "export")
"""What a record stands for that was not made by a run."""
IMPOSTOR = "test_a_machine_that_poses_as_another"
CHANGED = " †"
"""Behind the date of what was run on other code than there is, or on code that is not known."""
YES, NO_WAY, NOT_HERE, NOT_RUN, ELSEWHERE = "yes", "", "not on this host", "not run", "·"
HEAD = """<!-- Written by `python -m openqrm.testing.storage_report write` from recorded runs; do not edit. -->

# Storage conformance

What was run on the real thing: each row is a storage type, or a pool alone, on one kind of host. *yes*: declared, and
its tests passed, *without* those that were not run; *not on this host*: declared, and the driver found that the host
does not have it; empty: not declared, so refused; ·: the pool was run in another row. *revoke-proof* is the counter
test: a client that writes without end never reaches the volume again once its access was revoked, also after a cut link
and a restart of the server. *impostor*: another machine with the first one's address, MAC and name, but not its secret.

A namespace host is the lab's storage host: real server software in namespaces of one machine, with its kernel. When its
plug is pulled its processes end, and that kernel keeps what it had not written yet: what is on the disk after a power
cut is shown on a storage machine only, a virtual machine with a kernel, disks and a volume group of its own.

"""


def records(directory: Path) -> list[dict[str, Any]]:
    """All of them, by type and variant."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in (directory / RECORDS).glob("*.json")]
    return sorted(found, key=lambda each: (each["type"], each.get("variant", "")))


def outcome(record: Mapping[str, Any], test: str) -> str:
    """How a test ended, all its parameters together: failed, passed, skipped: WHY, or nothing when it was not run."""
    found = [how for name, how in record.get("tests", {}).items() if name.partition("[")[0] == test]
    for word in ("failed", "passed", "skipped"):
        for how in found:
            if how.startswith(word):
                return str(how)
    return ""


def page(directory: Path, declared: Declared) -> str:
    """The whole page."""
    found = records(directory)
    run = [each for each in found if "tests" in each]
    text = HEAD + _table(
        ("type", "host, software", "date", *map(str, SHOWN_BY), "impostor"), [_row(one) for one in run]
    )
    by_hand = [each for each in found if "tests" not in each]
    if by_hand:
        text += "## Shown in another way, or not run\n\n"
        text += _table(("type", "shown by", "date"), [(one["type"], one["shown_by"], _when(one)) for one in by_hand])
    halves = list(_by_halves(found, declared))
    if halves:
        text += "## By their halves\n\nJoins of a pool and an export that were each run with another one"
        text += "; *in part*: not all that its suite asks for.\n\n"
        text += _table(("type", "pool run with", "export run with"), halves)
    if CHANGED in text:
        text += f"{CHANGED.strip()} The code has changed since, or it is not known on what code that was run.\n\n"
    text += "## What was not run, and why\n\n"
    return text + "".join(_skipped(one) for one in run)


def _row(record: Mapping[str, Any]) -> Sequence[str]:
    software = ", ".join(f"{name} {version}" for name, version in record["software"].items())
    shown = [_cell(record, capability) for capability in SHOWN_BY]
    stranger = outcome(record, IMPOSTOR)
    impostor = "refused" if record["secrets"] else "let in: trusts the storage network"
    host = ": ".join(filter(None, (record["host"], software)))
    return (_name(record), host, _when(record), *shown, impostor if stranger == "passed" else stranger)


def _name(record: Mapping[str, Any]) -> str:
    alone = "" if record["export"] else " (pool alone)"
    return " ".join(filter(None, (record["type"], record.get("variant", "")))) + alone


def _cell(record: Mapping[str, Any], capability: Cap) -> str:
    if str(capability) not in record["declared"]:
        return NO_WAY
    tests = {test: what for test, what in SHOWN_BY[capability].items() if _has(record, test)}
    if not tests:
        return ELSEWHERE
    ended = [outcome(record, test) for test in tests]
    if "failed" in ended:
        return "failed"
    if ended[0] != "passed":
        return NOT_HERE if ended[0].startswith("skipped: this host has no") else NOT_RUN
    without = [what for test, what in tests.items() if not _whole(record, test)]
    return f"{YES}, without: {', '.join(without)}" if without else YES


def _has(record: Mapping[str, Any], test: str) -> bool:
    return any(hasattr(SUITES[suite], test) for suite in record["suites"])


def _whole(record: Mapping[str, Any], test: str) -> bool:
    """Whether it was run with all its parameters, but for those that are about what is not declared."""
    found = [how for name, how in record["tests"].items() if name.partition("[")[0] == test]
    return bool(found) and all(how == "passed" or "does not declare" in how for how in found)


def _when(record: Mapping[str, Any]) -> str:
    """The day of it, or the first and the last, and a mark where the code has changed."""
    run = record.get("run", {})
    days = sorted({run.get(test, record["date"]).partition(" ")[0] for test in record.get("tests", ())})
    text = " to ".join(dict.fromkeys((days[0], days[-1]))) if days else record["date"]
    return text + (CHANGED if _is_changed(record) else "")


def _is_changed(record: Mapping[str, Any]) -> bool:
    """Whether any of it was run on other code than there is, or nobody knows."""
    if "tests" not in record:
        return not _was_not(record)
    now = fingerprint(record.get("code", ()))
    return any(record.get("run", {}).get(test, "").partition(" ")[2] != now for test in record["tests"])


def _missing(record: Mapping[str, Any]) -> list[str]:
    """Tests of its suites that are in no run."""
    tests = {test for suite in record["suites"] for test in dir(SUITES[suite]) if test.startswith("test_")}
    return sorted(test for test in tests if not outcome(record, test))


def _skipped(record: Mapping[str, Any]) -> str:
    reasons: dict[str, list[str]] = {}
    for test, how in record["tests"].items():
        if how.startswith("skipped: ") and "does not declare" not in how:
            reasons.setdefault(how.removeprefix("skipped: "), []).append(f"`{test}`")
    if missing := _missing(record):
        reasons["not run yet"] = [f"`{test}`" for test in missing]
    passed = sum(how == "passed" for how in record["tests"].values())
    lines = [f"**{_name(record)}**: {passed} tests passed.\n\n"]
    lines += [f"- {reason}: {', '.join(tests)}\n" for reason, tests in sorted(reasons.items())]
    return "".join(lines) + ("\n" if reasons else "")


def _by_halves(found: Sequence[Mapping[str, Any]], declared: Declared) -> Iterable[Sequence[str]]:
    own = {each["type"] for each in found}
    for name, (_, joined) in sorted(declared.types.items()):
        pools, exports = _halves(found, joined, declared)
        if name not in own and pools and exports:
            yield name, ", ".join(pools), ", ".join(exports)


def _halves(found: Sequence[Mapping[str, Any]], joined: StorageType, declared: Declared) -> tuple[list[str], list[str]]:
    """The types in whose records the pool of a join was run, and those in whose records its export was."""
    entry = declared.exports.get(joined.export)
    handed = {joined.export, entry[1].through if entry is not None else ""} - {""}
    found = [each for each in found if not _was_not(each)]
    pools = [_half(each) for each in found if each["pool"] == joined.pool and "pool" in each.get("suites", BY_HAND)]
    exports = [_half(each) for each in found if each["export"] in handed and "export" in each.get("suites", BY_HAND)]
    return list(dict.fromkeys(pools)), list(dict.fromkeys(exports))


def _half(record: Mapping[str, Any]) -> str:
    """How the type is called where it stands for another one."""
    part = bool(_missing(record)) if "tests" in record else str(record.get("shown_by", "")).startswith("in part")
    return f"{record['type']} *in part*" if part else str(record["type"])


def _was_not(record: Mapping[str, Any]) -> bool:
    """Whether the record only says why there was no run."""
    return str(record.get("shown_by", "")).startswith("not run")


def faults(directory: Path, declared: Declared) -> list[str]:
    """What is missing or stale: a declared type without a record, tests that were not run, failures, the page.

    That the code has changed since is none, nor that a test was not run since: it has to be on the page.
    """
    found = records(directory)
    said = [fault for each in found if "tests" in each for fault in _faults_of(each, declared)]
    for name, (plugin, joined) in declared.types.items():
        if any(each["type"] == name or (_was_not(each) and each["pool"] == joined.pool) for each in found):
            continue  # or the page says why its pool was not run
        pools, exports = _halves(found, joined, declared)
        own = joined in plugin.provides and not declared.exports[joined.export][1].through
        if own or not (pools and exports):
            said.append(f"storage type {name} has no record of a conformance run")
    file = directory / PAGE
    if not file.exists() or file.read_text(encoding="utf-8") != page(directory, declared):
        said.append(f"{file} is stale: python -m openqrm.testing.storage_report write")
    return said


def _faults_of(record: Mapping[str, Any], declared: Declared) -> Iterable[str]:
    name = _name(record)
    sides = [declared.pools.get(record["pool"]), declared.exports.get(record["export"])]
    now = sorted({str(one) for side in sides if side is not None for one in side[1].capabilities})
    if now != record["declared"]:
        yield f"{name}: its capabilities are others since it was run"
    missing = _missing(record)
    if missing and not _is_changed(record):  # else the page says both
        yield f"{name}: not run: {', '.join(missing[:3])}{f' and {len(missing) - 3} more' if missing[3:] else ''}"
    for test, how in record["tests"].items():
        if how == "failed":
            yield f"{name}: {test} failed"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"


def main(argv: Sequence[str]) -> int:
    """Run `write` or `check`: 0 done or up to date, 1 something is missing or stale."""
    parser = argparse.ArgumentParser(prog="python -m openqrm.testing.storage_report", description=__doc__)
    parser.add_argument("verb", choices=("write", "check"))
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    given = parser.parse_args(argv)
    declared = discover().declared
    if given.verb == "write":
        (given.directory / PAGE).write_text(page(given.directory, declared), encoding="utf-8")
        return 0
    said = faults(given.directory, declared)
    for fault in said:
        print(fault, file=sys.stderr)
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
