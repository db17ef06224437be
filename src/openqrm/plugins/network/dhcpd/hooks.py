"""The resource hook: a machine's addresses in DHCP, one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.network import Address, Network, Nic
from openqrm.plugin_api.steps import Call, Step
from openqrm.plugins.network.dhcpd.configuration import served, within
from openqrm.plugins.network.dhcpd.leases import Host, by_hand

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.hooks import HookContext
    from openqrm.plugin_api.steps import Steps

_LEASES = "openqrm.plugins.network.dhcpd.leases"


def resource(context: HookContext, moment: str, machine: Resource) -> Steps:
    """Add or remove all addresses that are allocated to the machine's NICs in machine ranges we serve."""
    if moment not in {"add", "remove"}:
        return ()
    return tuple(_step(moment, number, host) for number, host in enumerate(_hosts(context, machine), start=1))


def _hosts(context: HookContext, machine: Resource) -> list[Host]:
    networks = {one.id: one for one in served(context.read.find(Network))}
    nics = {nic.id: nic.mac for nic in context.read.find(Nic, resource_id=machine.id)}
    entries = context.read.find(Address, nic_id__in=sorted(nics)) if nics else ()
    found = [
        Host(entry.network_id, entry.address, nics[entry.nic_id])
        for entry in entries
        if entry.nic_id is not None
        and entry.network_id in networks
        and within(networks[entry.network_id].machines, entry.address)
    ]
    return found + by_hand(networks.values(), machine, {host.mac for host in found})


def _step(moment: str, number: int, host: Host) -> Step:
    other = {"add": "remove", "remove": "add"}[moment]
    arguments = {"network_id": host.network_id, "address": host.address, "mac": host.mac}
    verb = "give" if moment == "add" else "take back"
    return Call(
        name=f"lease-{moment}-{number}",
        title=f"DHCP: {verb} {host.address} ({host.mac})",
        timeout=30,
        function=f"{_LEASES}:{moment}",
        arguments=arguments,
        verify=f"{_LEASES}:is_{'added' if moment == 'add' else 'removed'}",
        undo=f"{_LEASES}:{other}",
        undo_arguments=arguments,
    )
