"""Deferred values become real ones, only when a step is executed; secrets are masked in all that comes back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from openqrm.domain.errors import InvalidError
from openqrm.plugin_api.steps import deferred
from openqrm.plugin_api.values import MASK, Output, Secret, as_json


class Secrets(Protocol):
    """The encrypted store."""

    def get(self, key: str) -> str:
        """The secret; NotFoundError."""


@dataclass
class Resolver:
    """Fills in the values of one step. `used` collects the secrets, to be masked."""

    outputs: Mapping[str, Mapping[str, Any]]
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def used(self) -> tuple[str, ...]:
        """The secret texts, longest first, so that masking one leaves no part of another."""
        return tuple(sorted({text for text in self.secrets.values() if text}, key=len, reverse=True))

    def value(self, value: Any) -> Any:
        """The value with every deferred one inside filled in; InvalidError when an output is not there."""
        if isinstance(value, Output):
            made = self.outputs.get(value.step, {})
            if value.field not in made:
                raise InvalidError(f"step {value.step} made no {value.field}", field=value.field)
            return made[value.field]
        if isinstance(value, Secret):
            return self.secrets.get(value.key, value)
        if isinstance(value, dict):
            found = deferred(value) if value.get("type") in ("output", "secret") else []
            stored = len(found) == 1 and as_json(found[0]) == value
            return self.value(found[0]) if stored else {name: self.value(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        return value

    def text(self, value: Any) -> str:
        """As `value`, for what must be a string: arguments and file contents."""
        resolved = self.value(value)
        return resolved if isinstance(resolved, str) else str(resolved)

    def mask(self, value: Any) -> Any:
        """The value without the secrets."""
        return masked(value, self.used)


def secret_keys(value: Any) -> list[str]:
    """The secrets a step needs."""
    return [found.key for found in deferred(value) if isinstance(found, Secret)]


def masked(value: Any, secrets: Iterable[str]) -> Any:
    """Strings inside `value` with every secret replaced."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
        return value
    if isinstance(value, Mapping):
        return {masked(name, secrets): masked(item, secrets) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item, secrets) for item in value]
    return value
