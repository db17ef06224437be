"""What operations know of a storage's type without its drivers: data that enabled and installed plug-ins declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.plugin_api.drivers import Start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.storage import Storage


@dataclass(frozen=True)
class Traits:
    """See `Export` in `plugin_api.drivers`; `through` is the deployment type whose hook mounts the volume itself."""

    own_machine: bool = False
    in_memory: bool = False
    start: Start = Start.ROOT
    secrets: tuple[str, ...] = ()
    through: str = ""
    capabilities: frozenset[str] = frozenset()

    @property
    def agentless(self) -> bool:
        """Whether the machine boots a system of its own, in which our agent need not be."""
        return self.start is not Start.ROOT


def traits(settings: Mapping[str, Any], storage: Storage) -> Traits:
    """Of a storage's type; what is usual for one that no installed plug-in brings."""
    known = settings.get("storage_types", {}).get(storage.type)
    if known is None:
        return Traits()
    return Traits(
        own_machine=known["own_machine"],
        in_memory=known["in_memory"],
        start=Start(known["start"]),
        secrets=tuple(known["secrets"]),
        through=known["through"],
        capabilities=frozenset(known["capabilities"]),
    )
