"""Hooks: pure functions that look and return steps. They act on nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.resource import SERVER_ID
from openqrm.plugin_api.steps import Command, Irreversible, Run

if TYPE_CHECKING:
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.hooks import HookContext
    from openqrm.plugin_api.steps import Steps


def resource(context: HookContext, moment: str, machine: Resource) -> Steps:
    """Say the greeting, on the server, when a machine is added."""
    if moment != "add":
        return ()
    return (
        Run(
            name="greet",
            title=f"Greet {machine.name}",
            host=SERVER_ID,
            do=Command(argv=("echo", context.settings["greeting"], machine.name)),
            undo=Irreversible(reason="what was said was said"),
        ),
    )
