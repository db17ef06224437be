"""How an appliance is started, stopped and released: pure planners over leases, exports and hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError, UnsupportedError
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.plugin_api.drivers import Cap, Client, confirmed
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.drivers import ExportDriver, StorageContext
    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.steps import Steps

_DEPLOY_SECONDS = 900
_RETURN_SECONDS = 900
"""Firmware, PXE and a large server's memory test take minutes; the state tables have the same limits."""
_FORWARD = Irreversible(reason="a stop goes forward")


class _Parts:
    """Everything a running appliance consists of, looked up once per planning."""

    def __init__(self, context: PlanContext) -> None:
        target: Appliance = context.target  # type: ignore[assignment]  # the declaration's target is Appliance
        read = context.read
        self.appliance = read.get(Appliance, target.id)
        held = read.find(Lease, appliance_id=self.appliance.id, state=LeaseState.HELD, limit=1)
        if not held:
            raise ConflictError(f"appliance {self.appliance.name} holds no lease")
        self.lease = held[0]
        self.image = read.get(Image, self.lease.image_id)
        self.volume = read.get(Volume, self.image.volume_id)
        self.storage = read.get(Storage, self.volume.storage_id)
        self.resource = read.get(Resource, self.lease.resource_id)
        self.place: StorageContext = context.drivers.context(self.storage, read)
        self.export: ExportDriver = context.drivers.export(self.storage)
        self.location = context.drivers.pool(self.storage).location(self.place, self.volume)
        self.client = Client(self.resource.id, self.resource.address or "", self.resource.mac or "", self.resource.name)
        self._declared = _declares(context, self.storage, Cap.REVOKE_PROOF)
        self._facts = context.facts

    @property
    def revocable(self) -> bool:
        """Whether this storage host can prove access revoked; asked when the export's facts are there."""
        return self._declared and confirmed(self.export, Cap.REVOKE_PROOF, self.place, self._facts)


def _declares(context: PlanContext, storage: Storage, capability: Cap) -> bool:
    try:
        context.drivers.require(storage, capability)
    except UnsupportedError:
        return False
    return True


def export_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the export must know of its host to grant and revoke."""
    parts = _Parts(context)
    return parts.export.facts(parts.place)


def plan_start(context: PlanContext) -> Plan:
    """Grant access, deploy, wait for the agent inside the image. Undone in reverse."""
    parts = _Parts(context)
    generation = parts.lease.generation
    granted = parts.export.authorize(parts.place, parts.volume, parts.location, parts.client, generation, context.facts)
    return Plan(
        steps=(
            *granted,
            *context.hooks.appliance("start", parts.appliance, parts.resource),
            *_deploy(parts),
            *_mark_running(parts),
            *context.hooks.appliance("started", parts.appliance, parts.resource),
        )
    )


def _deploy(parts: _Parts) -> Steps:
    machine = {"resource_id": parts.resource.id}
    return (
        Wait(
            name="ready",
            title=f"{parts.resource.name} is idle",
            condition="resource.ready",
            undo_condition="resource.back",
            arguments=machine | {"revocable": parts.revocable},
            timeout=120,
            undo_timeout=_RETURN_SECONDS,
        ),
        Change(
            name="take",
            title=f"Take {parts.resource.name} out of the idle pool",
            change="resource.take",
            arguments=machine,
            undo="resource.give-back",
            undo_arguments=machine,
        ),
        Change(
            name="deploy",
            title=f"Order {parts.resource.name} to mount and run {parts.image.name}",
            change="order.issue",
            arguments=machine | {"verb": "deploy"},
            undo="order.recall",
        ),
        Wait(
            name="running-image",
            title=f"{parts.resource.name} speaks from inside {parts.image.name}",
            condition="resource.image-running",
            arguments=machine
            | {"lease_id": parts.lease.id, "order_id": Output(step="deploy", field="order_id").model_dump()},
            timeout=_DEPLOY_SECONDS,
        ),
    )


def _mark_running(parts: _Parts) -> Steps:
    state = {"entity": "appliance", "id": parts.appliance.id}
    return (
        Change(
            name="running",
            title=f"Mark {parts.appliance.name} as running",
            change="state.apply",
            arguments=state | {"event": "started", "set": {"started_at": "now", "health": "ok"}},
            undo="state.apply",
            undo_arguments=state | {"event": "start-failing", "set": {"started_at": None, "health": "unknown"}},
        ),
    )


def plan_stop(context: PlanContext) -> Plan:
    """Shut down, prove the machine gone, revoke, release. Goes forward only."""
    parts = _Parts(context)
    machine = {"resource_id": parts.resource.id}
    revoked = parts.export.revoke(
        parts.place, parts.volume, parts.location, parts.client, parts.lease.generation, context.facts
    )
    return Plan(
        steps=(
            *context.hooks.appliance("stop", parts.appliance, parts.resource),
            Change(
                name="give-back",
                title=f"{parts.resource.name} goes back to the idle pool",
                change="resource.give-back",
                arguments=machine,
                undo=_FORWARD,
            ),
            Change(
                name="idle",
                title=f"Order {parts.resource.name} to shut down and idle",
                change="order.issue",
                arguments=machine | {"verb": "idle"},
                undo=_FORWARD,
            ),
            Wait(
                name="gone",
                title=f"{parts.resource.name} is proved gone from {parts.image.name}",
                condition="resource.gone",
                arguments=machine
                | {"boot_id": Output(step="idle", field="boot_id").model_dump(), "revocable": parts.revocable},
                timeout=_RETURN_SECONDS,
            ),
            *revoked,
            _release(parts),
            Change(
                name="stopped",
                title=f"Mark {parts.appliance.name} as stopped",
                change="state.apply",
                arguments={
                    "entity": "appliance",
                    "id": parts.appliance.id,
                    "event": "stopped",
                    "set": {"started_at": None, "health": "unknown"},
                },
                undo=_FORWARD,
            ),
            *context.hooks.appliance("stopped", parts.appliance, None),
        )
    )


def _release(parts: _Parts) -> Change:
    return Change(
        name="release",
        title="Release the lease",
        change="lease.release",
        arguments={"lease_id": parts.lease.id},
        undo=_FORWARD,
    )


def plan_announce(context: PlanContext) -> Plan:
    """What the plug-ins do when there is a new appliance."""
    target: Appliance = context.target  # type: ignore[assignment]  # the declaration's target is Appliance
    return Plan(steps=context.hooks.appliance("add", target, None))


def plan_remove(context: PlanContext) -> Plan:
    """The plug-ins forget it, then we do."""
    target: Appliance = context.target  # type: ignore[assignment]  # the declaration's target is Appliance
    forget = Change(
        name="forget",
        title=f"Forget {target.name}",
        change="appliance.forget",
        arguments={"appliance_id": target.id},
        undo=Irreversible(reason="a removal goes forward"),
    )
    return Plan(steps=(*context.hooks.appliance("remove", target, None), forget))


def plan_release(context: PlanContext) -> Plan:
    """Take back what an abandoned operation left: the grant on the storage, then the lease."""
    parts = _Parts(context)
    revoked = parts.export.revoke(
        parts.place, parts.volume, parts.location, parts.client, parts.lease.generation, context.facts
    )
    return Plan(steps=(*revoked, _release(parts)))
