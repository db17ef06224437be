"""Declaration of the `dhcpd` plug-in."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.hooks import HookSet
from openqrm.plugin_api.plugin import Dependency, Family, Plugin, Requires, Service


class DhcpdSettings(BaseModel):
    """What an operator may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    discovery_seconds: Annotated[
        int,
        Field(ge=60, le=86400),
        Attr("Discovery lease", unit="s", help="how long an address is lent to a machine that is not known yet"),
    ] = 120


PLUGIN = Plugin(
    name="dhcpd",
    family=Family.NETWORK,
    title="DHCP server",
    summary="Addresses and boot parameters for machines, by Kea; one host at a time, never a restart",
    module="openqrm.plugins.network.dhcpd",
    hooks=HookSet(
        resource="openqrm.plugins.network.dhcpd.hooks:resource",
        monitor="openqrm.plugins.network.dhcpd.service:follow_networks",
    ),
    services=(
        Service(
            name="kea-dhcp4",
            prepare="openqrm.plugins.network.dhcpd.service:prepare",
            ready="openqrm.plugins.network.dhcpd.service:ready",
        ),
        Service(name="no-router", prepare="openqrm.plugins.network.dhcpd.service:prepare_no_router"),
    ),
    settings=DhcpdSettings,
    requires=Requires(commands=(Dependency("kea-dhcp4", "kea-dhcp4-server"),)),
)
