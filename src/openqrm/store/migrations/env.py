"""Run by Alembic for every command, on the connection that `openqrm.store.migrations` gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

from alembic import context
from alembic.operations.ops import AddColumnOp, ModifyTableOps
from sqlalchemy import JSON, BigInteger, DefaultClause, String, Text, text

from openqrm.store.codec import encode_value, shapes
from openqrm.store.tables import UtcTime

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import MigrationScript
    from alembic.runtime.migration import MigrationContext

    from openqrm.store.histories import History
    from openqrm.store.tables import Schema


def render(kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Types are written as the helpers of `store.tables` that carry the differences between databases.

    A plug-in's revisions import nothing of ours: there they are written out.
    """
    if kind != "type":
        return False
    if history.tables is not None:
        return _written_out(item, autogen)
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


def _written_out(item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """The same types in SQLAlchemy's own words; Alembic spells the others rightly by itself."""
    if isinstance(item, UtcTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, JSON):
        autogen.imports.add("from sqlalchemy.dialects import postgresql")
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


def default_of(schema: Schema, table: str, field: str) -> Any:
    """What rows that exist already get in a new field that may not be empty; None when its declaration has none."""
    for projection in schema.projections.values():
        if projection.table.name == table and field in projection.fields:
            info = projection.record.model_fields[field]
            if info.is_required():
                return None
            value = encode_value(shapes(projection.record)[field], info.get_default(call_default_factory=True))
            plain = value if isinstance(value, str) else json.dumps(value)
            return text(plain) if isinstance(value, bool) else plain
    return None


def finish(found: MigrationContext, revision: Any, scripts: list[MigrationScript]) -> None:
    """No revision without a difference; new fields bring their defaults for the rows that exist."""
    del found, revision
    if not scripts or scripts[0].upgrade_ops is None:
        return
    if scripts[0].upgrade_ops.is_empty():
        scripts[:] = []
        return
    for change in scripts[0].upgrade_ops.ops:
        for one in change.ops if isinstance(change, ModifyTableOps) else ():
            if isinstance(one, AddColumnOp) and not one.column.nullable:
                default = default_of(context.config.attributes["schema"], one.table_name, one.column.name)
                one.column.server_default = DefaultClause(default) if default is not None else None


def included(item: Any, name: str | None, kind: str, reflected: bool, other: Any) -> bool:
    """A plug-in's revisions are about its own tables."""
    del item, reflected, other
    return kind != "table" or history.tables is None or name in history.tables


history: History = context.config.attributes["history"]
context.configure(
    version_table=history.version_table,
    include_object=included,
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["schema"].metadata,
    render_item=render,
    render_as_batch=True,
    process_revision_directives=finish,
    transactional_ddl=True,
)
context.run_migrations()
