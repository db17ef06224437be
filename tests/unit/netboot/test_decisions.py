"""What a machine boots: every situation the protocol names."""

from __future__ import annotations

import pytest

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.machine import Handover
from openqrm.domain.resource import MachineOrder, Phase, Resource
from openqrm.netboot.decisions import BootFacts, decide
from openqrm.plugin_api.hooks import BootChange

DEFAULT = Kernel(id=1, name="default", version="6.1", arguments="quiet loglevel=4", default=True)
OTHER = Kernel(id=2, name="other", version="6.6", arguments="nosmt")
LEASE = Lease(id=1, image_id=1, resource_id=1, appliance_id=1, operation_id=1, generation=3)
CHANGE = BootChange(arguments=("console=ttyS0",), extra_initrds=("http://a/x",), before_kernel="http://a/xen")


def machine(phase: Phase, *, manual: bool = False) -> Resource:
    return Resource(id=1, name="node-1", mac="52:54:00:00:00:01", phase=phase, manual=manual)


def appliance(phase: AppliancePhase, desired: ApplianceDesired = ApplianceDesired.RUNNING) -> Appliance:
    return Appliance(id=1, name="web", image_id=1, phase=phase, desired=desired)


def order(verb: str, state: str) -> MachineOrder:
    return MachineOrder(id=1, resource_id=1, verb=verb, state=state)


def test_an_unknown_machine_boots_the_default_kernel_without_a_ticket() -> None:
    decision = decide(BootFacts(default=DEFAULT))
    assert decision.kernel is DEFAULT
    assert decision.arguments == ("quiet", "loglevel=4")
    assert not decision.ticket


@pytest.mark.parametrize("phase", [Phase.NEW, Phase.BOOTING, Phase.IDLE, Phase.OFF, Phase.ACTIVE])
def test_a_machine_without_a_lease_or_an_order_gets_no_ticket(phase: Phase) -> None:
    decision = decide(BootFacts(default=DEFAULT, resource=machine(phase)))
    assert (decision.kernel, decision.ticket) == (DEFAULT, False)


@pytest.mark.parametrize("phase", [AppliancePhase.STARTING, AppliancePhase.RUNNING])
def test_a_leased_machine_boots_its_appliances_kernel_with_a_ticket_and_the_plugins_changes(
    phase: AppliancePhase,
) -> None:
    facts = BootFacts(DEFAULT, machine(Phase.BOOTING), LEASE, appliance(phase), OTHER, changes=(CHANGE,))
    decision = decide(facts)
    assert decision.kernel is OTHER
    assert decision.arguments == ("nosmt", "console=ttyS0")
    assert decision.ticket
    assert decision.extra_initrds == ("http://a/x",)
    assert decision.before_kernel == "http://a/xen"


def test_an_appliance_without_a_kernel_of_its_own_boots_the_default() -> None:
    facts = BootFacts(DEFAULT, machine(Phase.BOOTING), LEASE, appliance(AppliancePhase.RUNNING))
    assert decide(facts).kernel is DEFAULT


@pytest.mark.parametrize(
    ("phase", "desired"),
    [
        (AppliancePhase.STOPPING, ApplianceDesired.STOPPED),
        (AppliancePhase.STOPPED, ApplianceDesired.STOPPED),
        (AppliancePhase.STARTING, ApplianceDesired.STOPPED),
    ],
)
def test_a_machine_whose_appliance_is_to_stop_boots_the_default_kernel(
    phase: AppliancePhase, desired: ApplianceDesired
) -> None:
    facts = BootFacts(DEFAULT, machine(Phase.IDLE), LEASE, appliance(phase, desired), OTHER, changes=(CHANGE,))
    decision = decide(facts)
    assert (decision.kernel, decision.before_kernel) == (DEFAULT, None)
    assert decision.ticket, "only a ticket takes it in while the lease is held"


@pytest.mark.parametrize(
    ("phase", "orders"), [(Phase.RETURNING, ()), (Phase.DEPLOYING, (order("idle", "acknowledged"),))]
)
def test_a_machine_that_is_sent_back_while_its_start_is_undone_boots_to_idle(
    phase: Phase, orders: tuple[MachineOrder, ...]
) -> None:
    starting = appliance(AppliancePhase.STARTING)
    decision = decide(BootFacts(DEFAULT, machine(phase), LEASE, starting, OTHER, orders, (CHANGE,)))
    assert (decision.kernel, decision.ticket, decision.before_kernel) == (DEFAULT, True, None)


@pytest.mark.parametrize("phase", [Phase.RETURNING, Phase.DEPLOYING])
def test_a_boot_the_controller_ordered_gets_a_ticket(phase: Phase) -> None:
    assert decide(BootFacts(default=DEFAULT, resource=machine(phase))).ticket


@pytest.mark.parametrize(
    ("verb", "state", "ticket"),
    [
        ("idle", "open", True),
        ("deploy", "acknowledged", True),
        ("idle", "done", False),
        ("deploy", "failed", False),
        ("inventory", "open", False),
        ("reboot", "open", False),
    ],
)
def test_an_order_that_leads_to_a_boot_and_is_not_finished_gets_a_ticket(verb: str, state: str, ticket: bool) -> None:
    facts = BootFacts(DEFAULT, machine(Phase.ACTIVE), orders=(order(verb, state),))
    assert decide(facts).ticket is ticket


def test_a_closed_box_never_gets_a_ticket() -> None:
    assert not decide(BootFacts(DEFAULT, machine(Phase.DEPLOYING, manual=True))).ticket


def test_without_any_kernel_the_reason_is_given() -> None:
    decision = decide(BootFacts(default=None, resource=machine(Phase.IDLE)))
    assert decision.kernel is None
    assert decision.reason == "no kernel is registered"


def test_a_machine_that_boots_a_disk_gets_neither_kernel_nor_ticket_while_its_appliance_runs() -> None:
    facts = BootFacts(
        DEFAULT, machine(Phase.BOOTING), LEASE, appliance(AppliancePhase.RUNNING), OTHER, handover=Handover("aoe:e1.1")
    )
    decision = decide(facts)
    assert (decision.kernel, decision.ticket, decision.handover) == (None, False, Handover("aoe:e1.1"))


def test_a_machine_that_boots_a_disk_is_sent_back_by_our_kernel() -> None:
    stopping = appliance(AppliancePhase.STOPPING, ApplianceDesired.STOPPED)
    facts = BootFacts(DEFAULT, machine(Phase.RETURNING), LEASE, stopping, OTHER, handover=Handover())
    decision = decide(facts)
    assert (decision.kernel, decision.ticket, decision.handover) == (DEFAULT, True, None)
