"""The state of an installed plug-in."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from openqrm.domain.model import Attr, Entity, Name, Record, Text
from openqrm.domain.states import Row, StateTable


class PluginPhase(StrEnum):
    """Disabled: no function. Enabled: initialised. Started: its services run."""

    DISABLED = "disabled"
    ENABLED = "enabled"
    STARTED = "started"


PLUGIN_PHASES = StateTable(
    name="plug-in state",
    initial=PluginPhase.DISABLED,
    states=tuple(PluginPhase),
    rows=(
        Row(PluginPhase.DISABLED, "init", PluginPhase.ENABLED, "its tables and settings are made"),
        Row(PluginPhase.ENABLED, "start", PluginPhase.STARTED, "its services run and start with the server"),
        Row(PluginPhase.STARTED, "stop", PluginPhase.ENABLED, "its services are stopped"),
        Row(PluginPhase.ENABLED, "uninstall", PluginPhase.DISABLED, "its settings are dropped, its tables when asked"),
    ),
)


class PluginState(Record):
    """What the installation wants of a plug-in, and its settings."""

    entity: ClassVar[Entity] = Entity(
        name="plugin",
        plural="plugins",
        title="Plug-in",
        summary="Disabled, enabled or started",
        states={"state": PLUGIN_PHASES},
    )

    name: Annotated[Name, Attr("Name", unique=True, filter=True, search=True, listed=True, immutable=True)]
    family: Annotated[Name, Attr("Family", filter=True, listed=True, derived=True)]
    title: Annotated[Text, Attr("Title", search=True, listed=True, derived=True)] = ""
    state: Annotated[PluginPhase, Attr("State", filter=True, listed=True, derived=True)] = PluginPhase.DISABLED
    provides: Annotated[
        dict[str, Any], Attr("Provides", help="pools, exports and storage types, with what they can", derived=True)
    ] = Field(default_factory=dict)
    settings: Annotated[dict[str, Any], Attr("Settings", help="fields the plug-in declares")] = Field(
        default_factory=dict
    )
