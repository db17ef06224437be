"""Declarations name code as `package.module:name`; it is imported when used and not before."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def load(reference: str) -> Any:
    """The object a reference names. ImportError or AttributeError for a wrong one: a bug of its declaration."""
    module, _, name = reference.partition(":")
    if not name:
        raise ImportError(f"{reference!r} is not written module:name")
    return getattr(importlib.import_module(module), name)
