"""`Change` steps and conditions: code that sees our database inside one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import UnsupportedError
from openqrm.engine.resolving import Resolver
from openqrm.plugin_api.changes import ChangeCall, Progress
from openqrm.plugin_api.values import as_json

if TYPE_CHECKING:
    from openqrm.plugin_api.changes import ChangeFunction, ConditionFunction
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.plugin_api.steps import Change, Wait

Outputs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Changes:
    """The registered changes. They get secrets as references: our database holds no clear ones either."""

    functions: Mapping[str, ChangeFunction]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def do(self, writer: Writer, step: Change, operation_id: int, outputs: Outputs) -> dict[str, Any]:
        """Execute a change; its output."""
        call = ChangeCall(operation_id, Resolver(outputs).value(step.arguments), settings=self.settings)
        output: dict[str, Any] = as_json(self._function(step.change)(writer, call) or {})
        return output

    def undo(self, writer: Writer, step: Change, operation_id: int, outputs: Outputs) -> None:
        """Execute its undo, which sees the output too."""
        if isinstance(step.undo, str):
            arguments = Resolver(outputs).value(step.undo_arguments)
            output = outputs.get(step.name, {})
            self._function(step.undo)(writer, ChangeCall(operation_id, arguments, output, self.settings))

    def _function(self, name: str) -> ChangeFunction:
        function = self.functions.get(name)
        if function is None:
            raise UnsupportedError(f"there is no change {name}", remedy="is the plug-in that brings it enabled?")
        return function


@dataclass(frozen=True)
class Conditions:
    """The registered conditions."""

    functions: Mapping[str, ConditionFunction]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def look(
        self, reader: Reader, step: Wait, operation_id: int, outputs: Outputs, *, undoing: bool = False
    ) -> Progress:
        """How far the step's condition, or the one of its undo, is."""
        name = step.undo_condition if undoing else step.condition
        function = self.functions.get(name or "")
        if function is None:
            raise UnsupportedError(f"there is no condition {name}", remedy="is the plug-in that brings it enabled?")
        call = ChangeCall(
            operation_id, Resolver(outputs).value(step.arguments), outputs.get(step.name, {}), self.settings
        )
        return function(reader, call)
