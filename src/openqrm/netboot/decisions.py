"""What a machine boots now: a pure function of what the database says about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from openqrm.domain.machine import meant_to_run
from openqrm.domain.resource import Phase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.domain.appliance import Appliance
    from openqrm.domain.kernel import Kernel
    from openqrm.domain.lease import Lease
    from openqrm.domain.machine import Handover
    from openqrm.domain.resource import MachineOrder, Resource
    from openqrm.plugin_api.hooks import BootChange

BOOTING_VERBS = frozenset({"deploy", "idle"})
"""Orders after which the controller awaits a boot of its own making."""
UNDONE = frozenset({"open", "acknowledged"})
"""States of an order the machine still has to finish."""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """All that a decision looks at. `kernel` is the one of the leased appliance, `default` that of idle machines."""

    default: Kernel | None
    resource: Resource | None = None
    lease: Lease | None = None
    appliance: Appliance | None = None
    kernel: Kernel | None = None
    orders: Sequence[MachineOrder] = ()
    changes: Sequence[BootChange] = ()
    lent: bool = False
    """Whether it holds a loan: it copies volumes for an operation."""
    handover: Handover | None = None


@dataclass(frozen=True, slots=True)
class BootDecision:
    """What to boot and why. `kernel` is None when there is none to boot, or a disk is booted in its place (`handover`);
    `ticket`: a boot ticket comes along."""

    kernel: Kernel | None
    arguments: tuple[str, ...] = ()
    ticket: bool = False
    extra_initrds: tuple[str, ...] = ()
    before_kernel: str | None = None
    reason: str = ""
    handover: Handover | None = None


def awaited(facts: BootFacts) -> str | None:
    """Why a boot of this machine is awaited by the controller; None when it is not, and then there is no ticket."""
    if facts.resource is None or facts.resource.manual:
        return None
    if meant_to_run(facts.lease, facts.appliance):
        return "its appliance is meant to run"
    if facts.lease is not None:
        return "an appliance holds it"  # without a ticket it could never be proved gone, however late it boots
    if facts.lent:
        return "an operation holds it"
    if facts.resource.phase in (Phase.DEPLOYING, Phase.RETURNING):
        return f"it is {facts.resource.phase}"
    pending = [order.verb for order in facts.orders if order.verb in BOOTING_VERBS and order.state in UNDONE]
    return f"it was ordered to {pending[0]}" if pending else None


def sent_back(facts: BootFacts) -> bool:
    """Whether the machine is on its way to idle, although its appliance is not stopped yet (a start that is undone)."""
    ordered = any(order.verb == "idle" and order.state in UNDONE for order in facts.orders)
    return ordered or (facts.resource is not None and facts.resource.phase is Phase.RETURNING)


def decide(facts: BootFacts) -> BootDecision:
    """An unknown or idle machine boots the default kernel; a leased one its appliance's, with the plug-ins' changes."""
    running = meant_to_run(facts.lease, facts.appliance) and not sent_back(facts)
    kernel = (facts.kernel or facts.default) if running else facts.default
    reason = awaited(facts)
    if running and facts.handover is not None:
        return BootDecision(None, reason=reason or "", handover=facts.handover)
    if kernel is None:
        return BootDecision(None, reason="no kernel is registered")
    changes = facts.changes if running else ()
    own = tuple(kernel.arguments.split())
    added = tuple(word for change in changes for word in change.arguments)
    return BootDecision(
        kernel=kernel,
        arguments=own + added,
        ticket=reason is not None,
        extra_initrds=tuple(url for change in changes for url in change.extra_initrds),
        before_kernel=next((change.before_kernel for change in reversed(changes) if change.before_kernel), None),
        reason=reason or ("unknown machine" if facts.resource is None else "idle"),
    )
