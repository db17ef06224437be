"""What started plug-ins add to a plan: their hook functions, called in dependency order. Implements `Hooks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from openqrm.domain.errors import OpenqrmError
from openqrm.plugin_api.hooks import BootChange
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.steps import Call, Step, Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from openqrm.domain.appliance import Appliance
    from openqrm.domain.model import Record
    from openqrm.domain.resource import Resource
    from openqrm.engine.plugins.contexts import Contexts
    from openqrm.plugin_api.operation import Hooks
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader

_STEPS: TypeAdapter[tuple[Step, ...]] = TypeAdapter(tuple[Step, ...])


class HookFailedError(OpenqrmError):
    """A plug-in's hook raised or returned what it must not: a bug of that plug-in, and named as such."""

    code = "hook-failed"
    status = 502


@dataclass(frozen=True)
class PluginHooks:
    """Hooks over one read of our database."""

    contexts: Contexts
    reader: Reader

    def appliance(self, moment: str, appliance: Appliance, resource: Resource | None) -> Steps:
        """Steps of all started plug-ins for a moment of an appliance; HookFailedError."""
        return self._steps("appliance", moment, appliance, resource)

    def resource(self, moment: str, resource: Resource) -> Steps:
        """Steps of all started plug-ins for a moment of a resource; HookFailedError."""
        return self._steps("resource", moment, resource)

    def kernel(self, moment: str, kernel: Record) -> Steps:
        """Steps of all started plug-ins for a moment of a kernel; HookFailedError."""
        return self._steps("kernel", moment, kernel)

    def assign(self, resource: Resource, appliance: Appliance) -> Sequence[BootChange]:
        """What started plug-ins change in the machine's boot script; HookFailedError."""
        changes: list[BootChange] = []
        for plugin in self._with("assign"):
            change = self._called(plugin, "assign", resource, appliance)
            if not isinstance(change, BootChange):
                raise _fault(plugin, "assign", f"it returned {type(change).__name__}, not a BootChange")
            changes.append(change)
        return tuple(changes)

    def _steps(self, hook: str, moment: str, *subject: Any) -> Steps:
        found: list[Step] = []
        for plugin in self._with(hook):
            steps = self._called(plugin, hook, moment, *subject)
            try:
                # One plan may hold the steps of several moments, such as start and started.
                renamed = prefixed(f"{plugin.name}-{moment}", tuple(steps))
                for reference in (each for step in renamed for each in references(step)):
                    load(reference)
                found += renamed
            except (TypeError, ValidationError, AttributeError, ImportError) as error:
                raise _fault(plugin, f"{hook} {moment}", f"its steps are wrong: {error}") from error
        return tuple(found)

    def _with(self, hook: str) -> list[Plugin]:
        return [one for one in self.contexts.catalogue.started(self.reader) if getattr(one.hooks, hook) is not None]

    def _called(self, plugin: Plugin, hook: str, *arguments: Any) -> Any:
        reference: str = getattr(plugin.hooks, hook)
        try:
            return load(reference)(self.contexts.hook(plugin, self.reader), *arguments)
        except OpenqrmError as error:
            raise _fault(plugin, hook, error.detail, error.remedy) from error
        except Exception as error:
            raise _fault(plugin, hook, f"{type(error).__name__}: {error}") from error


def hooks_over(contexts: Contexts) -> Callable[[Reader], Hooks]:
    """A factory of `Hooks` for each read."""
    return lambda reader: PluginHooks(contexts, reader)


def references(step: Step) -> tuple[str, ...]:
    """The functions a step names, so that a wrong one is found while it is planned."""
    if not isinstance(step, Call):
        return ()
    return tuple(each for each in (step.function, step.verify, step.undo) if isinstance(each, str))


def prefixed(prefix: str, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps renamed to `prefix-name`, with the outputs they take from each other renamed as well."""
    names = {step.name for step in steps}
    bodies = []
    for step in steps:
        body = _renamed(step.model_dump(mode="json"), prefix, names)
        bodies.append(body | {"name": f"{prefix}-{step.name}"})
    return _STEPS.validate_python(bodies)


def _renamed(value: Any, prefix: str, names: set[str]) -> Any:
    if isinstance(value, dict):
        if value.get("type") == "output" and set(value) == {"type", "step", "field"} and value["step"] in names:
            return value | {"step": f"{prefix}-{value['step']}"}
        return {key: _renamed(item, prefix, names) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(item, prefix, names) for item in value]
    return value


def _fault(plugin: Plugin, hook: str, reason: str, remedy: str | None = None) -> HookFailedError:
    return HookFailedError(
        f"plug-in {plugin.name}: its {hook} hook failed: {reason}",
        remedy=remedy or f"mend it, or: openqrm plugin stop {plugin.name}",
    )
