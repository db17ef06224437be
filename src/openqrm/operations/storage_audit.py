"""Auditing a storage: who really has access, against leases and loans; and setting that right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from openqrm.domain.event import Severity
from openqrm.domain.model import Attr
from openqrm.domain.operation import StepRecord
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage, Volume
from openqrm.domain.user import UserRole
from openqrm.operations import loans
from openqrm.operations.grants import Access, client_of, prefixed
from openqrm.operations.storage_rights import Comparison, Finding, Right, Stray, compare, known_as
from openqrm.operations.storage_types import traits
from openqrm.plugin_api.operation import Arguments, Operation, Phase, needs
from openqrm.plugin_api.steps import Change, Irreversible, Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.changes import ChangeCall, ChangeFunction
    from openqrm.plugin_api.drivers import ExportDriver, Lends, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import Call, PlanContext
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Steps

FOUND, REPORT = "found", "report"
"""The steps whose outputs tell what there was before anything was set right, and what there is in the end."""
_TOLD = 20
"""So many findings get an event of their own."""
_SET_RIGHT = Irreversible(reason="access is set right as leases say; the way it was is not wanted back")


class AuditArguments(Arguments):
    """Whether to look only."""

    fix: Annotated[
        bool,
        Attr("Set right", help="take back what no lease or loan asks for, and grant what a running appliance misses"),
    ] = False


def targets(reader: Reader, call: Call) -> tuple[str, ...]:
    """While access is set right, nothing else works on the storage's volumes, or lets a machine read them."""
    storage = call.target
    assert isinstance(storage, Storage)  # noqa: S101  # the declaration's target
    if not call.arguments.fix:
        return ()
    numbers = [volume.id for volume in reader.find(Volume, storage_id=storage.id)]
    return tuple(target for number in numbers for target in (f"volume-{number}", loans.readers(number)))


def fix_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """The grants there are, if they are to be set right."""
    return audit_facts(context) if context.arguments.fix else ()


def audit_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """The grants there are."""
    storage = _target(context)
    return context.drivers.export(storage).facts(context.drivers.context(storage, context.read))


def plan_fix(context: PlanContext) -> Plan:
    """Take back and grant. What is granted again is not taken back if something later fails."""
    if not context.arguments.fix:
        return Plan()
    compared = _compared(context)
    found = Change(
        name=FOUND,
        title="Remember what was found",
        change="storage.note",
        arguments={"findings": [one.as_dict() for one in compared.findings()]},
        undo=Irreversible(reason="it was found"),
    )
    return Plan(steps=(found, *_fixes(context, compared)))


def plan_report(context: PlanContext) -> Plan:
    """What is not as leases and loans say, looked at anew."""
    remaining = _compared(context).findings()
    before = context.read.one(StepRecord, operation_id=context.operation_id, name=FOUND)
    findings = before.output["findings"] if before is not None else []
    left = {(one.kind, one.text) for one in remaining}
    fixed = [one for one in findings if (one["kind"], one["text"]) not in left]
    return Plan(steps=(report(_target(context), remaining, fixed),))


def report(
    storage: Storage, findings: Sequence[Finding], fixed: Sequence[dict[str, str]] = (), skipped: Sequence[str] = ()
) -> Change:
    """The step whose output is what the operation came to; each finding is a warning in the log. `skipped`: what could
    not be looked at now."""
    named = [{**one.as_dict(), "remedy": one.remedy.replace("STORAGE", storage.name)} for one in findings]
    return Change(
        name=REPORT,
        title=f"Report what is not right on storage {storage.name}",
        change="storage.report",
        arguments={"storage_id": storage.id, "findings": named, "fixed": list(fixed), "skipped": list(skipped)},
        undo=Irreversible(reason="a report stays"),
    )


def _compared(context: PlanContext) -> Comparison:
    storage = _target(context)
    place = context.drivers.context(storage, context.read)
    grants = context.drivers.export(storage).grants(place, context.facts)
    return compare(context.read, storage, traits(context.settings, storage), grants, context.operation_id)


def _fixes(context: PlanContext, compared: Comparison) -> Steps:
    """Strays first; whoever has a right to a volume that something was taken from is granted it again."""
    steps: list[Steps] = []
    touched = {stray.volume.id for stray in compared.strays if stray.volume is not None}
    whole: set[int] = set()
    machines = context.read.find(Resource) if compared.strays else ()
    for number, stray in enumerate(compared.strays):
        volume = stray.volume.id if stray.volume is not None else None
        if volume in whole:
            continue
        taken, entire = _taken_back(context, stray, compared, machines)
        if entire and volume is not None:
            whole.add(volume)
        steps.append(prefixed(taken, f"take-{number}-"))
    missing = {id(right) for right in compared.missing}
    wanted = [
        right
        for held in compared.rights.values()
        for right in held
        if id(right) in missing or (right.required and right.volume.id in touched)
    ]
    for number, right in enumerate(wanted):
        steps.append(_kept(_granted(context, right, f"grant-{number}-")))
    return tuple(step for group in steps for step in group)


def _taken_back(
    context: PlanContext, stray: Stray, compared: Comparison, machines: Sequence[Resource]
) -> tuple[Steps, bool]:
    """The steps, and whether they take everybody's access to the volume.

    Behind the gate where the grant is one of ours, the machine is known, and nobody has a right to the volume.
    """
    storage = _target(context)
    place: StorageContext = context.drivers.context(storage, context.read)
    export: ExportDriver = context.drivers.export(storage)
    volume, grant = stray.volume, stray.grant
    machine = next((one for one in machines if known_as(grant.client, one)), None)
    if volume is None or machine is None or compared.rights.get(volume.id):
        return export.withdraw(place, grant, context.facts), False
    location = context.drivers.pool(storage).location(place, volume)
    if grant.writes:
        client = client_of(machine)
        return export.revoke(place, volume, location, client, volume.generation, context.facts), True
    lender: Lends = export  # type: ignore[assignment]  # what lends has such grants
    return lender.reclaim(place, volume, location, client_of(machine), context.facts), False


def _granted(context: PlanContext, right: Right, prefix: str) -> Steps:
    """With the secrets that the machine has already."""
    storage = _target(context)
    access = Access.of(context, storage, right.volume, right.machine, right.generation)
    if right.writes:
        found = access.export.authorize(
            access.place, access.volume, access.location, access.client, access.generation, context.facts
        )
    else:
        lender: Lends = access.export  # type: ignore[assignment]  # what was lent is on an export that lends
        found = lender.lend(access.place, access.volume, access.location, access.client, context.facts)
    return prefixed(found, prefix)


def _kept(steps: Steps) -> Steps:
    """Steps that are not undone: a machine runs by what they do."""
    return tuple(step.model_copy(update={"undo": _SET_RIGHT}) if hasattr(step, "undo") else step for step in steps)


def _target(context: PlanContext) -> Storage:
    assert isinstance(context.target, Storage)  # noqa: S101  # the declaration's target
    return context.target


def note(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`findings`: kept as the step's output."""
    del writer
    return {"findings": list(call.arguments["findings"])}


def tell(writer: Writer, call: ChangeCall) -> dict[str, Any]:
    """`storage_id`, `findings`, `fixed`, `skipped`: logged, and kept as the step's output."""
    storage = writer.get(Storage, int(call.arguments["storage_id"]))
    findings, fixed = list(call.arguments["findings"]), list(call.arguments["fixed"])
    for mark, severity, group in (("", Severity.WARNING, findings), ("set right: ", Severity.NOTICE, fixed)):
        for one in group[:_TOLD]:
            text = f"storage {storage.name}: {mark}{one['kind']}, {one['subject']}: {one['text']}"
            writer.event(text[:1000], severity=severity, source="storage", about=storage)
        if len(group) > _TOLD:
            text = f"storage {storage.name}: {mark}{len(group) - _TOLD} more, see operation {call.operation_id}"
            writer.event(text, severity=severity, source="storage", about=storage)
    skipped = list(call.arguments["skipped"])
    return {"storage": storage.name, "findings": findings, "fixed": fixed, "skipped": skipped}


REPORT_CHANGES: dict[str, ChangeFunction] = {"storage.note": note, "storage.report": tell}

_HERE = "openqrm.operations.storage_audit"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        name="storage.audit",
        title="Audit a storage",
        summary="Compare the accesses that a storage really gives with what leases and loans say.",
        target=Storage,
        arguments=AuditArguments,
        permission=needs(UserRole.ADMIN),
        targets=f"{_HERE}:targets",
        phases=(
            Phase("fix", plan=f"{_HERE}:plan_fix", facts=f"{_HERE}:fix_facts"),
            Phase("report", plan=f"{_HERE}:plan_report", facts=f"{_HERE}:audit_facts"),
        ),
        reports=True,
        destroys=True,
        destroys_when={"fix": True},
    ),
)
