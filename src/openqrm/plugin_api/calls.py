"""What a `Call` step's function and a supervised service get to work with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from openqrm.plugin_api.records import Reader


@dataclass(frozen=True)
class CallContext:
    """`read` opens a consistent read of our database. `settings` are the plug-in's own."""

    operation_id: int
    step: str
    epoch: int
    read: Callable[[], AbstractContextManager[Reader]]
    directory: Path
    """The plug-in's private directory on the server."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    installation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ServiceContext:
    """For `prepare` and `ready` of a service, and for the `monitor` hook."""

    read: Callable[[], AbstractContextManager[Reader]]
    directory: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    installation: Mapping[str, Any] = field(default_factory=dict)


CallFunction = Callable[..., Awaitable[dict[str, Any]]]
