"""Run by Alembic for every command, on the connection that `openqrm.store.migrations` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from alembic import context
from sqlalchemy import JSON, BigInteger, String, Text

from openqrm.store.tables import UtcTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext


def render(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Types are written as the helpers of `store.tables` that carry the differences between databases."""
    if kind != "type":
        return False
    found: str | None = None
    if isinstance(item, UtcTime):
        found = "UtcTime()"
    elif isinstance(item, BigInteger):
        found = "big_integer()"
    elif isinstance(item, JSON):
        found = "json()"
    elif isinstance(item, Text | String):
        found = f"text({item.length})"
    if found is None:
        return False
    autogen.imports.add(f"from openqrm.store.tables import {found.partition('(')[0]}")
    return found


def skip_empty(found: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    """No revision without a difference."""
    del found, revision
    if scripts and scripts[0].upgrade_ops is not None and scripts[0].upgrade_ops.is_empty():
        scripts[:] = []


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["schema"].metadata,
    render_item=render,
    render_as_batch=True,
    process_revision_directives=skip_empty,
    transactional_ddl=True,
)
context.run_migrations()
