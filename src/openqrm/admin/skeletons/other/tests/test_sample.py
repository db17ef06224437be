"""The hook's plan: a resource in, exact steps out."""

from __future__ import annotations

from openqrm.admin.skeletons.other.hooks import resource
from openqrm.domain.resource import Resource
from openqrm.plugin_api.hooks import HookContext
from openqrm.testing.memory import MemoryDatabase


def test_a_new_machine_is_greeted_and_a_removed_one_is_not() -> None:
    with MemoryDatabase().read() as reader:
        context = HookContext(reader, {"greeting": "hello"})
        machine = Resource(name="node1", mac="52:54:00:00:00:01")
        (step,) = resource(context, "add", machine)
        assert step.kind == "run"
        assert step.do.argv == ("echo", "hello", "node1")
        assert resource(context, "remove", machine) == ()
