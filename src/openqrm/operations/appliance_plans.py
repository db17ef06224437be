"""How an appliance is started, stopped and released: pure planners over leases, exports and hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.operations.appliance_transfers import Transfers, once, wanted
from openqrm.operations.grants import Access, prefixed
from openqrm.operations.storage_types import traits
from openqrm.plugin_api.drivers import Start
from openqrm.plugin_api.steps import Change, Irreversible, Plan, Wait
from openqrm.plugin_api.values import Output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.facts import Fact
    from openqrm.plugin_api.operation import PlanContext
    from openqrm.plugin_api.steps import Steps

_DEPLOY_SECONDS = 900
_COPY_SECONDS = 24 * 3600
"""A large image over a slow network, or whole disks."""
_HUMAN_SECONDS = 24 * 3600
"""For what a person, or a whole disk, has to do."""
_RETURN_SECONDS = 900
"""Firmware, PXE and a large server's memory test take minutes; the state tables have the same limits."""
_FORWARD = Irreversible(reason="a stop goes forward")


class _Deployment:
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
        self.kind = traits(context.settings, self.storage)
        self.access = Access.of(context, self.storage, self.volume, self.resource, self.lease.generation)
        self.transfers = Transfers(context, self.appliance)
        self._context = context

    @property
    def revocable(self) -> bool:
        """Whether every storage that the machine may write to can prove access revoked."""
        written = (self.access, *(access for _, access in self.transfers.writes))
        return all(access.revocable(self._context) for access in written)


def export_facts(context: PlanContext) -> Sequence[Fact[Any]]:
    """What the exports must know of their hosts to grant and revoke."""
    parts = _Deployment(context)
    return (*parts.access.facts(), *parts.transfers.facts())


def plan_start(context: PlanContext) -> Plan:
    """Grant access, deploy, wait for the agent inside the image. Undone in reverse."""
    parts = _Deployment(context)
    return Plan(
        steps=(
            *parts.access.grant(context),
            *parts.transfers.grant(),
            *context.hooks.appliance("start", parts.appliance, parts.resource),
            *_deploy(parts),
            *_deployed(context, parts),
            *_mark_running(parts),
            *context.hooks.appliance("started", parts.appliance, parts.resource),
        )
    )


def _deployed(context: PlanContext, parts: _Deployment) -> Steps:
    """What the machine needed to get there, and needs no longer."""
    if parts.kind.start is Start.DISK:
        return prefixed(parts.access.revoke(context), "end-")
    if parts.kind.in_memory:
        return ()
    return (*parts.transfers.end(), *once(parts.image))


def _deploy(parts: _Deployment) -> Steps:
    machine = {"resource_id": parts.resource.id}
    return (
        Wait(
            name="ready",
            title=f"{parts.resource.name} is idle",
            condition="resource.ready",
            undo_condition="resource.back",
            arguments=machine | {"revocable": parts.revocable},
            timeout=120,
            undo_timeout=_HUMAN_SECONDS if parts.kind.agentless else _RETURN_SECONDS,
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
            arguments=machine | {"verb": "deploy", "details": {"lease_id": parts.lease.id}},
            undo="order.recall",
        ),
        Wait(
            name="running-image",
            title=f"{parts.resource.name} speaks from inside {parts.image.name}",
            condition="resource.image-running",
            arguments=machine
            | {"lease_id": parts.lease.id, "order_id": Output(step="deploy", field="order_id").model_dump()},
            timeout=_COPY_SECONDS if parts.kind.start is Start.DISK or wanted(parts.image) else _DEPLOY_SECONDS,
        ),
    )


def _mark_running(parts: _Deployment) -> Steps:
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
    parts = _Deployment(context)
    return Plan(
        steps=(
            *context.hooks.appliance("stop", parts.appliance, parts.resource),
            *_send_back(parts),
            *(_take_disks(context, parts) if parts.kind.start is Start.DISK else ()),
            *parts.access.revoke(context),
            *parts.transfers.end(),
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


def _send_back(parts: _Deployment) -> Steps:
    """To idle, and proved to be there. A system without our agent cannot be asked: somebody restarts the machine."""
    machine = {"resource_id": parts.resource.id}
    name, image = parts.resource.name, parts.image.name
    asked = f"Restart {name}: its system has no agent that could be asked to" if parts.kind.agentless else ""
    return (
        Change(
            name="give-back",
            title=f"{name} goes back to the idle pool",
            change="resource.give-back",
            arguments=machine,
            undo=_FORWARD,
        ),
        Change(
            name="idle",
            title=f"Order {name} to shut down and idle",
            change="order.issue",
            arguments=machine | {"verb": "idle"},
            undo=_FORWARD,
        ),
        Wait(
            name="gone",
            title=asked or f"{name} is proved gone from {image}",
            condition="resource.gone",
            arguments=machine
            | {"boot_id": Output(step="idle", field="boot_id").model_dump(), "revocable": parts.revocable},
            timeout=_HUMAN_SECONDS if parts.kind.agentless else _RETURN_SECONDS,
        ),
    )


def _take_disks(context: PlanContext, parts: _Deployment) -> Steps:
    """What is on the machine's disks now goes back into the image, 1:1."""
    machine = {"resource_id": parts.resource.id}
    return (
        Wait(
            name="there",
            title=f"{parts.resource.name} is idle, so that its disks can be read",
            condition="resource.ready",
            arguments=machine,
            timeout=_HUMAN_SECONDS,
        ),
        *prefixed(parts.access.grant(context), "grab-"),
        Change(
            name="grab",
            title=f"Order {parts.resource.name} to take its disks into {parts.image.name}",
            change="order.issue",
            arguments=machine | {"verb": "grab", "details": {"volume_id": parts.volume.id}},
            undo=_FORWARD,
        ),
        Wait(
            name="grabbed",
            title=f"{parts.resource.name}'s disks are in {parts.image.name}",
            condition="worker.transferred",
            arguments={"order_id": Output(step="grab", field="order_id").model_dump()},
            timeout=_HUMAN_SECONDS,
        ),
    )


def _release(parts: _Deployment) -> Change:
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
    """Take back what an abandoned operation left: the grants on storages, the loans, then the lease."""
    parts = _Deployment(context)
    return Plan(steps=(*parts.access.revoke(context), *parts.transfers.end(), _release(parts)))
