"""Hooks: what a started plug-in adds at named moments. Each is a pure function that returns steps or typed data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from datetime import datetime

    from openqrm.domain.appliance import Appliance
    from openqrm.domain.kernel import Kernel
    from openqrm.domain.resource import Resource
    from openqrm.plugin_api.calls import ServiceContext
    from openqrm.plugin_api.records import Reader
    from openqrm.plugin_api.steps import Steps


class BootChange(BaseModel):
    """A typed change of one machine's boot script."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arguments: tuple[str, ...] = ()
    """Added to the kernel line."""
    before_kernel: str | None = None
    """URL of an image that is loaded in place of the kernel, which becomes its first module (a hypervisor)."""
    extra_initrds: tuple[str, ...] = ()
    """URLs of further initrds."""


@dataclass(frozen=True)
class HookContext:
    """What a hook may look at: our database, the plug-in's settings, the installation's addresses."""

    read: Reader
    settings: Mapping[str, Any] = field(default_factory=dict)
    installation: Mapping[str, Any] = field(default_factory=dict)


ApplianceMoment = Literal["add", "remove", "start", "started", "stop", "stopped"]
"""Start and stop come before the machine is touched, started and stopped after. There is no resource at add, remove and
stopped."""
PresenceMoment = Literal["add", "remove"]

ApplianceHook = Callable[[HookContext, ApplianceMoment, "Appliance", "Resource | None"], "Steps"]
ResourceHook = Callable[[HookContext, PresenceMoment, "Resource"], "Steps"]
KernelHook = Callable[[HookContext, PresenceMoment, "Kernel"], "Steps"]
AssignHook = Callable[[HookContext, "Resource", "Appliance"], BootChange]
MonitorHook = Callable[["ServiceContext", "datetime"], Awaitable[None]]
"""It opens its own reads, and keeps none open while it waits for something else."""


@dataclass(frozen=True)
class HookSet:
    """The hooks of a plug-in as `module:function`; imported when the plug-in is started."""

    appliance: str | None = None
    resource: str | None = None
    kernel: str | None = None
    assign: str | None = None
    monitor: str | None = None
    """Called every 10 seconds; an async function."""
