"""The network cards a machine reports, kept as records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.event import Severity
from openqrm.domain.lease import Lease
from openqrm.domain.network import Nic
from openqrm.domain.resource import Health, Resource

if TYPE_CHECKING:
    from collections.abc import Collection

    from openqrm.operations.machine_report import Report
    from openqrm.plugin_api.records import Writer


def sync(writer: Writer, resource: Resource, report: Report) -> Nic | None:
    """Make the resource's NICs what the report says and return the boot NIC.

    Cards that are gone keep their record, since addresses hang on it. A card that moved here from another machine
    changes its owner, unless it is the one the other machine boots from, which is its identity, or the other machine
    is heard or leased: then it is still in there, whatever this one says.
    """
    reported = {nic.address: nic for nic in report.nics if nic.address is not None}
    wanted = sorted({*reported, report.mac})
    known = {nic.mac: nic for nic in writer.find(Nic, mac__in=wanted)}
    foreign = {mac: nic for mac, nic in known.items() if nic.resource_id != resource.id and mac != report.mac}
    kept = _kept_by_others(writer, resource, foreign.values()) if foreign else set()
    boot: Nic | None = None
    for mac in wanted:
        if mac in kept:
            continue
        nic = reported.get(mac)
        values = {
            "resource_id": resource.id,
            "name": (nic.name if nic else "")[:63],
            "boot": mac == report.mac,
            "driver": (nic.driver if nic else "")[:63],
            "speed_mbit": nic.speed_mbit if nic else 0,
        }
        row = known.get(mac)
        if row is None:
            row = writer.insert(Nic(mac=mac, **values))
        elif any(getattr(row, name) != value for name, value in values.items()):
            row = writer.update(row, **values)
        boot = row if mac == report.mac else boot
    return boot


def _kept_by_others(writer: Writer, resource: Resource, foreign: Collection[Nic]) -> set[str]:
    """The MACs among cards of other machines that do not move, with an event on those that somebody may covet."""
    kept = {other.mac for other in writer.find(Resource, mac__in=sorted(nic.mac for nic in foreign)) if other.mac}
    owners = sorted({nic.resource_id for nic in foreign if nic.mac not in kept})
    heard = {owner.id for owner in writer.find(Resource, id__in=owners, health=Health.OK)} if owners else set()
    leased = {lease.resource_id for lease in writer.find(Lease, held_resource__in=owners)} if owners else set()
    for nic in foreign:
        if nic.mac in kept or nic.resource_id not in heard | leased:
            continue
        kept.add(nic.mac)
        text = f"{resource.name} reports network card {nic.mac}, which is in resource {nic.resource_id}: not believed"
        writer.event(text, severity=Severity.WARNING, source="machines", about=resource)
    return kept
