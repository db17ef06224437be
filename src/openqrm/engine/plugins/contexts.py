"""What a plug-in's code gets to work with: its own directory and settings, and what it may know of the installation."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.domain.plugin_state import PluginState
from openqrm.engine.plugins.catalogue import settings_of
from openqrm.plugin_api.calls import CallContext, ServiceContext
from openqrm.plugin_api.hooks import HookContext

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.plugin_api.plugin import Plugin
    from openqrm.plugin_api.records import Reader


@dataclass(frozen=True)
class Contexts:
    """Makes contexts. `read` opens a consistent read of our database; `installation` is `Settings.installation()`."""

    catalogue: Catalogue
    read: Callable[[], AbstractContextManager[Reader]]
    installation: Mapping[str, Any] = field(default_factory=dict)

    def directory(self, name: str) -> Path:
        """The private directory of a plug-in (`core` for the core's own calls), made when it is not there."""
        directory = Path(self.installation["state_dir"]) / "plugins" / name
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def settings(self, plugin: Plugin, reader: Reader) -> dict[str, Any]:
        """The plug-in's settings, defaults filled in; InvalidError when stored ones no longer fit."""
        row = reader.one(PluginState, name=plugin.name)
        return settings_of(plugin, row.settings if row else {}).model_dump(mode="json")

    def call(self, function: str, operation_id: int, step: str, epoch: int) -> CallContext:
        """For a `Call` step: the function's plug-in is found by its module."""
        owner = self.catalogue.owner(function)
        settings: dict[str, Any] = {}
        if owner is not None:
            with self.read() as reader:
                settings = self.settings(owner, reader)
        directory = self.directory(owner.name if owner else "core")
        return CallContext(operation_id, step, epoch, self.read, directory, settings, self.installation)

    def service(self, plugin: Plugin) -> ServiceContext:
        """For a service's `prepare` and `ready`, and for the `monitor` hook."""
        with self.read() as reader:
            settings = self.settings(plugin, reader)
        return ServiceContext(self.read, self.directory(plugin.name), settings, self.installation)

    def hook(self, plugin: Plugin, reader: Reader) -> HookContext:
        """For hooks, which look at the database through the caller's own read."""
        return HookContext(reader, self.settings(plugin, reader), self.installation)
