"""Reads what a boot decision looks at: a constant number of queries for each request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import NotFoundError, OpenqrmError
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import meant_to_run
from openqrm.domain.model import Mac
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.netboot.decisions import BOOTING_VERBS, UNDONE, BootDecision, BootFacts, decide

if TYPE_CHECKING:
    from openqrm.domain.machine import Handover
    from openqrm.plugin_api.hooks import BootChange
    from openqrm.plugin_api.operation import Hooks
    from openqrm.plugin_api.records import Reader

_LOG = logging.getLogger(__name__)
_MAC: TypeAdapter[str] = TypeAdapter(Mac)


def mac_of(text: str) -> str:
    """A MAC address as it stands in a URL, written with colons; NotFoundError when it is none."""
    try:
        return _MAC.validate_python(text[:40])
    except ValidationError as error:
        raise NotFoundError(f"{text[:40]!r} is not a MAC address") from error


def machine(reader: Reader, mac: str) -> Resource | None:
    """The resource whose boot NIC has this MAC."""
    return reader.one(Resource, mac=mac)


HandoverOf = Callable[["Reader", Resource, Lease], "Handover | None"]


def decision_for(
    reader: Reader, resource: Resource | None, hooks: Callable[[Reader], Hooks], handover_of: HandoverOf | None = None
) -> BootDecision:
    """What this machine boots now. Without `handover_of` every machine boots a kernel of ours."""
    default = next(iter(reader.find(Kernel, default=True, ready=True, limit=1)), None)
    if resource is None:
        return decide(BootFacts(default=default))
    lease = reader.one(Lease, held_resource=resource.id)
    appliance = reader.get(Appliance, lease.appliance_id) if lease else None
    kernel = None
    changes: tuple[BootChange, ...] = ()
    handover = None
    if lease is not None and appliance is not None and meant_to_run(lease, appliance):
        handover = handover_of(reader, resource, lease) if handover_of is not None else None
        kernel = reader.one(Kernel, id=appliance.kernel_id) if appliance.kernel_id is not None else None
        changes = _changes(reader, resource, appliance, hooks)
    orders = reader.find(
        MachineOrder, resource_id=resource.id, state__in=sorted(UNDONE), verb__in=sorted(BOOTING_VERBS), limit=8
    )
    lent = bool(reader.find(Loan, resource_id=resource.id, state=LeaseState.HELD, limit=1))
    return decide(BootFacts(default, resource, lease, appliance, kernel, orders, changes, lent, handover))


def _changes(
    reader: Reader, resource: Resource, appliance: Appliance, hooks: Callable[[Reader], Hooks]
) -> tuple[BootChange, ...]:
    """A plug-in whose hook fails must not keep a machine from booting at all."""
    try:
        return tuple(hooks(reader).assign(resource, appliance))
    except OpenqrmError as error:
        _LOG.error("boot of %s goes on without what plug-ins add: %s", resource.name, error)
        return ()
