"""What plans of storage drivers look like, whatever the host: pure, gated, storable. Part of the conformance suites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.plugin_api import steps as plugin_steps
from openqrm.plugin_api.drivers import Cap
from openqrm.plugin_api.steps import Command, Irreversible, Plan, Run, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.steps import Steps
    from openqrm.testing.storage_subject import Subject

GENERATION = 7


class PoolPlanSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_plans_of_the_pool_are_data(self, subject: Subject) -> None:
        """The same facts give the same steps, every step is gated by its volume, and the journal can keep it."""
        pool, context, facts = subject.pool, subject.context(), await subject.pool_facts()
        volume, source = (subject.volume().model_copy(update={"generation": GENERATION}) for _ in range(2))
        plans: dict[str, Callable[[], Steps]] = {
            "create": lambda: pool.create(context, volume, facts),
            "remove": lambda: pool.remove(context, volume, facts),
        }
        if Cap.CLONE in subject.declared:
            plans["clone"] = lambda: pool.clone(context, source, volume, facts)
        if Cap.FILL in subject.declared:
            plans["fill"] = lambda: pool.fill(context, volume, "/var/tmp/a.tar", facts)  # noqa: S108  # not made
        for verb, plan in plans.items():
            first, second = plan(), plan()
            assert first == second, f"{verb} is planned differently from the same facts"
            check_plan(verb, first, volume, GENERATION, subject.host)
            if verb != "remove":
                assert all(not isinstance(step, Run) or isinstance(step.undo, Command) for step in first), verb

    async def test_a_location_is_of_one_volume(self, subject: Subject) -> None:
        """It follows from the name alone: what a scan finds is recorded under another id."""
        one, other = subject.volume(), subject.volume()
        assert subject.where(one.model_copy(update={"id": other.id})) == subject.where(one), "by id, not by name"
        assert subject.where(one).startswith("/")
        assert subject.where(one) == subject.where(one)
        assert subject.where(one) != subject.where(other)


class ExportPlanSuite:
    """Inherit and provide the fixture `subject`."""

    async def test_plans_of_the_export_are_data(self, subject: Subject) -> None:
        subject.require(Cap.AUTHORIZE)
        volume, client = subject.volume(), subject.clients[0]
        check_plan("authorize", await subject.authorize(volume, client, 3), volume, 3, subject.host)
        check_plan("revoke", await subject.revoke(volume, client, 3), volume, 3, subject.host)
        steps = await subject.authorize(volume, client, 3)
        assert all(isinstance(step.undo, Command) for step in steps if isinstance(step, Run)), "authorize has an undo"
        first, second = [await subject.revoke(volume, client, 3) for _ in range(2)]
        assert first == second
        if Cap.LEND in subject.declared:
            check_plan("lend", await subject.lend(volume, client), volume, None, subject.host)
            check_plan("reclaim", await subject.reclaim(volume, client), volume, None, subject.host)


def check_plan(verb: str, steps: Steps, volume: Volume, generation: int | None, host: int) -> None:
    """AssertionError when steps could not be stored, act elsewhere, or are not gated. No generation: any will do."""
    assert steps, f"{verb} has no steps"
    assert Plan(steps=steps).steps == steps, verb  # which refuses two steps of one name
    for step in steps:
        assert plugin_steps.load(step.model_dump(mode="json")) == step, f"{verb}: {step.name} cannot be stored"
        assert isinstance(step, Run | Write), f"{verb}: {step.name} is neither Run nor Write"
        assert step.host == host, f"{verb}: {step.name} acts on another host"
        assert step.gate is not None, f"{verb}: {step.name} has no gate"
        assert step.gate.volume == f"volume-{volume.id}", f"{verb}: {step.name} has the gate of {step.gate.volume}"
        assert generation in (None, step.gate.generation), f"{verb}: {step.name} has another generation"
        if isinstance(step, Run):
            assert isinstance(step.undo, Command | Irreversible)
