"""The one way every call goes: authorize, validate, look up, check states, remember, audit, act or enqueue."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from openqrm.domain.errors import ConflictError, ForbiddenError, InvalidError, NotFoundError, UnsupportedError
from openqrm.domain.model import Record, public
from openqrm.domain.operation import Operation as OperationRecord
from openqrm.domain.operation import OperationStatus
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.user import SYSTEM
from openqrm.operations import audit, versions
from openqrm.operations.arguments import validated
from openqrm.operations.authorize import authorize, authorize_again
from openqrm.operations.enqueue import DryRun, Enqueuer, shown_body
from openqrm.operations.lookup import find
from openqrm.plugin_api.loading import load
from openqrm.plugin_api.operation import Call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from openqrm.domain.user import Actor
    from openqrm.engine.changes import Changes
    from openqrm.engine.journal import Journal
    from openqrm.engine.ports import Database, PluginTables
    from openqrm.operations.registry import Registry
    from openqrm.plugin_api.operation import Drivers, Operation
    from openqrm.plugin_api.records import Reader, Writer


@dataclass(frozen=True)
class Outcome:
    """What a call came to.

    `done`: our database was changed, `record` is what was made or changed (None for a removal). `accepted`: the
    `operation` is queued. `planned`: a dry run, `steps` is what would be done; nothing was stored.
    """

    status: Literal["done", "accepted", "planned"]
    record: Record | None = None
    operation: OperationRecord | None = None
    steps: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Request:
    """One call as a surface hands it in. `versions`: the target must still have one of these."""

    name: str
    actor: Actor
    target: int | str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    dry_run: bool = False
    wait: bool = False
    versions: tuple[str, ...] = ()
    rerun_of: int | None = None


@dataclass(frozen=True)
class Services:
    """What the pipeline needs beside the database, whose commits wake the engine."""

    journal: Journal
    changes: Changes
    drivers: Callable[[Reader], Drivers]
    dry_run: DryRun
    tables: PluginTables


@dataclass(frozen=True)
class CoreCall(Call):
    """A call as the core's own operations see it: they may ask drivers, and queue others in the same transaction."""

    drivers: Callable[[Reader], Drivers] = field(kw_only=True)
    again: Callable[[Request], OperationRecord] = field(kw_only=True)
    permit: Callable[[OperationRecord], None] = field(kw_only=True)
    """Refuses one who may not do that operation."""
    tables: PluginTables = field(kw_only=True)

    def queue(self, name: str, target: int) -> OperationRecord:
        """Queue an internal operation that follows from this one."""
        return self.again(Request(name, SYSTEM, target))


class _RolledBackError(Exception):
    """Ends a dry run's transaction without storing anything."""


class Pipeline:
    """Synchronous; asynchronous surfaces call it in bounded threads."""

    def __init__(
        self, database: Database, registry: Registry, services: Services, settings: Mapping[str, Any] | None = None
    ) -> None:
        self.database = database
        self.registry = registry
        self._services = services
        self._enqueuer = Enqueuer(services.journal, services.changes)
        self._settings = dict(settings or {})

    def call(
        self,
        name: str,
        actor: Actor,
        target: int | str | None,
        arguments: Mapping[str, Any],
        *,
        idempotency_key: str | None = None,
        dry_run: bool = False,
        wait: bool = False,
        versions: tuple[str, ...] = (),
    ) -> Outcome:
        """Do what the operation says or refuse with one of the domain's errors, having changed nothing."""
        request = Request(name, actor, target, arguments, idempotency_key, dry_run, wait, versions)
        with self.database.read() as reader:
            earlier = self._earlier(reader, request)
            if earlier is not None:
                return earlier
            prepared = self._prepare(reader, request)
        if dry_run:
            return self._dry_run(request, prepared)
        try:
            return self._write(request, prepared)
        except ConflictError:
            repeated = self._repeated(request) or self._waiting(request, prepared)
            if repeated is None:
                raise
            return repeated

    def _write(self, request: Request, prepared: Call, *, admitted: bool = True) -> Outcome:
        with self.database.write() as writer:
            return self.within(writer, request, prepared, admitted=admitted)

    def _waiting(self, request: Request, prepared: Call) -> Outcome | None:
        """Queue a call that met a conflict and may wait for it to go away."""
        if not (request.wait and self.registry.operation(request.name).waits):
            return None
        return self._write(request, prepared, admitted=False)

    def within(
        self, writer: Writer, request: Request, prepared: Call | None = None, *, admitted: bool = True
    ) -> Outcome:
        """The same inside a transaction that is already open; everything is checked again there."""
        earlier = self._earlier(writer, request)
        if earlier is not None:
            return earlier
        operation = self.registry.operation(request.name)
        call = self._renewed(writer, request, prepared) if prepared else self._prepare(writer, request)
        if call.target is not None:
            versions.require(call.target, request.versions)
        if operation.act:
            return self._act(writer, request, operation, call)
        record = self._enqueuer.enqueue(writer, operation, call, request, admitted=admitted)
        audit.asked(writer, call, operation_id=record.id)
        return Outcome("accepted", operation=record)

    def _earlier(self, reader: Reader, request: Request) -> Outcome | None:
        """The first outcome under the same idempotency key; ConflictError when that was another call."""
        if request.key is None or request.dry_run:
            return None
        row = reader.one(OperationRecord, actor=request.actor.name, idempotency_key=request.key)
        if row is None:
            return None
        if not self._same_call(reader, row, request):
            raise ConflictError(
                f"this idempotency key was used for {row.name} (operation {row.id}) with other arguments",
                remedy="use a new key for a new call",
            )
        operation = self.registry.operation(row.name)
        if operation.phases:
            return Outcome("accepted", operation=row)
        return Outcome("done", record=self._snapshot(row, operation), operation=row)

    def _same_call(self, reader: Reader, row: OperationRecord, request: Request) -> bool:
        """Compared as validated, so that a name and its id are the same; secrets are not kept and not compared."""
        if row.name != request.name or not audit.same_target(row, request.target):
            return False
        operation = self.registry.operation(request.name)
        try:
            arguments = validated(operation.arguments, request.arguments, reader, self.registry.entities)
        except InvalidError:
            return False
        call = Call(operation=operation.name, actor=request.actor, target=None, arguments=arguments)
        return audit.masked(call) == audit.masked_row(operation, row)

    def _snapshot(self, row: OperationRecord, operation: Operation) -> Record | None:
        """What the first call answered, without what is shown only once."""
        if not row.result or "record" not in row.result:
            return None
        kind = operation.creates or self.registry.entity(row.result["kind"])
        return kind.model_validate(row.result["record"])

    def _repeated(self, request: Request) -> Outcome | None:
        """After a conflict: the same call under the same key may have won the race."""
        if request.key is None:
            return None
        with self.database.read() as reader:
            return self._earlier(reader, request)

    def _prepare(self, reader: Reader, request: Request) -> Call:
        operation = self.registry.operation(request.name)
        if operation.internal and request.actor != SYSTEM:
            raise NotFoundError(f"there is no operation {request.name}")
        self.require_enabled(reader, operation.name, self.registry.owners.get(operation.name))
        target = self._target(reader, operation, request)
        authorize(operation, request.actor, target)
        arguments = validated(
            operation.arguments,
            request.arguments,
            reader,
            self.registry.entities,
            stored=request.rerun_of is not None,
        )
        self._allowed(operation, target)
        return Call(
            operation=operation.name, actor=request.actor, target=target, arguments=arguments, settings=self._settings
        )

    def _renewed(self, writer: Writer, request: Request, prepared: Call) -> Call:
        """The prepared call with its target as it is now, in this transaction."""
        if prepared.target is None:
            return prepared
        target = writer.get(type(prepared.target), prepared.target.id)
        operation = self.registry.operation(request.name)
        authorize(operation, request.actor, target)
        self._allowed(operation, target)
        return replace(prepared, target=target)

    def _target(self, reader: Reader, operation: Operation, request: Request) -> Record | None:
        if operation.target is None:
            if request.target is not None:
                raise UnsupportedError(f"{operation.name} has no target")
            return None
        if request.target is None:
            raise NotFoundError(f"{operation.name} needs a target: the id or name of a {operation.target.entity.name}")
        try:
            return find(reader, operation.target, request.target)
        except NotFoundError:
            if not operation.permission(request.actor, operation.name, None):
                raise ForbiddenError(f"{request.actor.name} may not do {operation.name}") from None
            raise

    @staticmethod
    def require_enabled(reader: Reader, name: str, owner: str | None) -> None:
        """UnsupportedError for an operation or entity of a plug-in that is disabled: its tables may not be there."""
        if owner is None:
            return
        state = reader.one(PluginState, name=owner)
        if state is None or state.state == PluginPhase.DISABLED:
            raise UnsupportedError(
                f"{name} belongs to plug-in {owner}, which is disabled", remedy=f"openqrm plugin init {owner}"
            )

    def _allowed(self, operation: Operation, target: Record | None) -> None:
        for name, states in operation.allowed.items():
            present = str(getattr(target, name))
            if present not in {str(state) for state in states}:
                assert target is not None  # noqa: S101  # the registry refuses allowed states without a target
                raise ConflictError(
                    f"{target.entity.name} {audit.label(target)} has {name} {present}",
                    remedy=f"{operation.name} is possible when it is {' or '.join(sorted(states))}",
                )

    def _act(self, writer: Writer, request: Request, operation: Operation, call: Call) -> Outcome:
        queued: list[OperationRecord] = []
        record = load(operation.act or "")(writer, self._core(writer, call, queued))
        if isinstance(record, OperationRecord) and record in queued:
            audit.asked(writer, call, operation_id=record.id)
            return Outcome("accepted", operation=record)
        row = self._remember(writer, request, call, record) if request.key else None
        audit.done(writer, call, record, operation_id=row.id if row else None)
        return Outcome("done", record=record, operation=row)

    def _core(self, writer: Writer, call: Call, queued: list[OperationRecord]) -> CoreCall:
        def again(request: Request) -> OperationRecord:
            outcome = self.within(writer, request) if self.registry.operation(request.name).phases else None
            if outcome is None or outcome.operation is None:
                raise UnsupportedError(f"{request.name} is done at once: call it anew instead of running it again")
            queued.append(outcome.operation)
            return outcome.operation

        fields = {name: getattr(call, name) for name in Call.__dataclass_fields__}

        def permit(asked: OperationRecord) -> None:
            authorize_again(self.registry, writer, call.actor, asked)

        services = self._services
        return CoreCall(**fields, drivers=services.drivers, again=again, permit=permit, tables=services.tables)

    def _remember(self, writer: Writer, request: Request, call: Call, record: Record | None) -> OperationRecord:
        result: dict[str, Any] | None = None
        if record is not None:
            kind = self.registry.entity(record.entity.name)
            shown = public(record)
            fields = {name: value for name, value in shown.items() if name in kind.model_fields}
            result = {"kind": record.entity.name, "id": record.id, "record": fields}
        row = audit.row(call, request.key)
        return writer.insert(
            row.model_copy(
                update={
                    "status": OperationStatus.DONE,
                    "progress": 100,
                    "started_at": writer.now,
                    "finished_at": writer.now,
                    "result": result,
                }
            )
        )

    def _dry_run(self, request: Request, prepared: Call) -> Outcome:
        operation = self.registry.operation(request.name)
        if not operation.act:
            steps = self._services.dry_run(operation, prepared)
            return Outcome("planned", steps=[shown_body(step.model_dump(mode="json")) for step in steps])
        return Outcome("planned", record=self._tried(operation, prepared), steps=[])

    def _tried(self, operation: Operation, call: Call) -> Record | None:
        """What `act` would make, in a transaction that is rolled back."""
        found: list[Record | None] = []

        def give_up(writer: Writer) -> NoReturn:
            found.append(load(operation.act or "")(writer, self._core(writer, call, [])))
            raise _RolledBackError

        with suppress(_RolledBackError), self.database.write() as writer:
            give_up(writer)
        return found[0]
