"""Whether a storage's type can do what is asked, known in the moment of the call.

Planning asks the drivers again: whether the plug-in is enabled, and what the very host can do, is known there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.domain.errors import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from openqrm.domain.storage import Storage
    from openqrm.plugin_api.drivers import Cap


def require(settings: Mapping[str, Any], storage: Storage, capability: Cap, field: str | None = None) -> None:
    """UnsupportedError when the storage's type is known and declares no such capability."""
    known = settings.get("storage_types", {}).get(storage.type)
    if known is not None and capability not in known["capabilities"]:
        raise UnsupportedError(
            f"storage {storage.name} ({storage.type}) cannot {capability}",
            field=field,
            remedy=f"it can: {', '.join(known['capabilities']) or 'nothing of that kind'}",
        )
