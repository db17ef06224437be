"""The network cards a machine reports, kept as records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.network import Nic
from openqrm.domain.resource import Resource

if TYPE_CHECKING:
    from openqrm.operations.machine_report import Report
    from openqrm.plugin_api.records import Writer


def sync(writer: Writer, resource: Resource, report: Report) -> Nic | None:
    """Make the resource's NICs what the report says and return the boot NIC.

    Cards that are gone keep their record, since addresses hang on it. A card that moved here from another machine
    changes its owner, unless it is the one the other machine boots from: that is its identity.
    """
    reported = {nic.address: nic for nic in report.nics if nic.address is not None}
    wanted = sorted({*reported, report.mac})
    known = {nic.mac: nic for nic in writer.find(Nic, mac__in=wanted)}
    elsewhere = [mac for mac, nic in known.items() if nic.resource_id != resource.id and mac != report.mac]
    identities = {other.mac for other in writer.find(Resource, mac__in=elsewhere)} if elsewhere else set()
    boot: Nic | None = None
    for mac in wanted:
        if mac in identities:
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
