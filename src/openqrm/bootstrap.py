"""The only place that wires implementations to ports: a whole controller from its installation."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openqrm.admin.setup import drop_old_password
from openqrm.api.application import create_app
from openqrm.api.context import ApiContext
from openqrm.api.node.app import create_node_app
from openqrm.api.node.context import NodeContext
from openqrm.api.timing import ServerTiming
from openqrm.domain.errors import OpenqrmError, UnavailableError, UnreachableError
from openqrm.domain.kernel import Kernel
from openqrm.domain.resource import Resource
from openqrm.domain.user import SYSTEM
from openqrm.engine.changes import Changes, Conditions
from openqrm.engine.execution import Ports
from openqrm.engine.notifier import Notifier
from openqrm.engine.planning import Planners
from openqrm.engine.plugins.contexts import Contexts
from openqrm.engine.plugins.drivers import drivers_over
from openqrm.engine.plugins.hooks import hooks_over
from openqrm.engine.plugins.monitor import Monitor
from openqrm.engine.plugins.supervisor import Supervisor, notifier
from openqrm.engine.runner import Runner
from openqrm.netboot.handover import Digests
from openqrm.netboot.listener import BootContext, BootServer
from openqrm.netboot.node_files import PackedFiles
from openqrm.netboot.programs import Programs
from openqrm.operations import handovers
from openqrm.operations.changes import CHANGES
from openqrm.operations.conditions import CONDITIONS
from openqrm.operations.core_orders import ORDER_CHANGES, forget_resource
from openqrm.operations.credentials import Authenticator
from openqrm.operations.machines import script_asked
from openqrm.operations.pipeline import Pipeline, Request, Services
from openqrm.operations.registry import Registry
from openqrm.operations.retention import Limits, Retention
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.remote.keys import installation_key
from openqrm.serving import Split, renew_certificate, servers, serving
from openqrm.store.health import HealthStore
from openqrm.store.histories import SqlPluginTables
from openqrm.store.journal import SqlJournal
from openqrm.store.lists import Filter, Page, list_records
from openqrm.store.lists import ListQuery as StoredQuery
from openqrm.store.measure import counting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.admin.setup import Installation
    from openqrm.api.lists import ListQuery
    from openqrm.domain.lease import Lease
    from openqrm.domain.machine import Handover
    from openqrm.domain.model import Record
    from openqrm.engine.ports import Hosts
    from openqrm.plugin_api.changes import ChangeCall
    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.store.database import SqlDatabase

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoints:
    """Where resources are reached, from the database. Blocking; `RemoteHosts` calls it in a thread."""

    database: SqlDatabase

    def lookup(self, resource_id: int) -> Endpoint:
        """NotFoundError, UnreachableError for one without an address."""
        with self.database.read() as reader:
            resource = reader.get(Resource, resource_id)
        if resource.address is None:
            raise UnreachableError(f"resource {resource.name} has no address")
        keys = tuple(resource.ssh_host_keys)
        return Endpoint(resource.address, host_keys=keys, first_use=resource.manual, name=resource.name)

    def learned(self, resource_id: int, key: str) -> None:
        """Pin the host key that a host made by hand showed first."""
        with self.database.write() as writer:
            resource = writer.get(Resource, resource_id)
            if not resource.ssh_host_keys:
                writer.update(resource, ssh_host_keys=(key,))


def remote_hosts(database: SqlDatabase, state_dir: Path) -> RemoteHosts:
    """Resources as the database knows them, reached with the installation's key."""
    endpoints = Endpoints(database)
    return RemoteHosts(
        lookup=endpoints.lookup,
        learned=endpoints.learned,
        key_file=installation_key(state_dir).private_file,
        local_gate=state_dir / "gate",
    )


@dataclass(frozen=True)
class StoredSecrets:
    """Implements the engine's `Secrets` port."""

    database: SqlDatabase

    def get(self, key: str) -> str:
        """The secret in the clear; NotFoundError."""
        with self.database.read() as reader:
            return reader.get_secret(key)


class Controller:
    """Everything of one controller. `hosts` may be replaced for benches and tests."""

    def __init__(self, installation: Installation, hosts: Hosts | None = None) -> None:
        self.installation = installation
        self.settings = installation.settings
        self.database = installation.database
        self.catalogue = installation.catalogue
        self.hosts = hosts or remote_hosts(self.database, self.settings.state_dir)
        self.contexts = Contexts(self.catalogue, self.database.read, self.settings.installation())
        self.hooks = hooks_over(self.contexts)
        self.drivers = drivers_over(self.contexts)
        self.shared = self._shared_settings()
        changes = CHANGES | ORDER_CHANGES | {"resource.forget": self._forget_resource}
        self.changes = Changes(changes, self.shared)
        self.journal = SqlJournal(self.database)
        self.registry = Registry.of_installation(self.catalogue.plugins)
        self.secrets = StoredSecrets(self.database)
        self.planners = self._planners()
        services = Services(self.journal, self.changes, self.drivers, self.planners.dry_run, SqlPluginTables())
        self.pipeline = Pipeline(self.database, self.registry, services, self.shared)
        self.runner = self._runner()
        self.supervisor = Supervisor(self.contexts, self.database)
        self.monitor = Monitor(self.contexts, self.database)
        self.retention = Retention(self.database, self._limits())
        self.health = HealthStore.open(self.settings)
        machines = self._node_context()
        self.around = machines.around
        self.node = create_node_app(machines)
        self._ended = asyncio.Event()
        self._failed = False
        self.boot = BootServer(self._boot_context(), self.settings.address, self.settings.boot_port)
        self.app = Split(ServerTiming(create_app(self._api_context()), counting), self.node)

    def _shared_settings(self) -> Mapping[str, Any]:
        """What operations and changes know of the installation; `storage_types` and `deployments` by storage type."""
        return {**self.settings.installation(), **self.catalogue.declared.storage_settings()}

    def _planners(self) -> Planners:
        return Planners(
            database=self.database,
            hosts=self.hosts,
            secrets=self.secrets,
            operation=self.registry.operation,
            entities=self.registry.entities,
            hooks=self.hooks,
            drivers=self.drivers,
            changes=self.changes,
            settings=self.shared,
            own_settings=self._own_settings,
        )

    def _own_settings(self, operation: str, reader: Reader) -> Mapping[str, Any]:
        """The settings of the plug-in that declares an operation; none for the core's own."""
        owner = self.registry.owners.get(operation)
        return self.contexts.settings(self.catalogue.get(owner), reader) if owner else {}

    def _runner(self) -> Runner:
        ports = Ports(
            database=self.database,
            hosts=self.hosts,
            changes=self.changes,
            conditions=Conditions(CONDITIONS, self.shared),
            plan=self.planners.plan,
            secrets=self.secrets,
            call_context=self.contexts.call,
            notifier=Notifier(),
        )
        alone = self.database.dialect == "sqlite"
        return Runner(ports, self.journal, workers=self.settings.workers, alone=alone)

    def _limits(self) -> Limits:
        given = self.settings
        return Limits(given.keep_events_days, given.keep_events, given.keep_operations_days, given.keep_operations)

    def _api_context(self) -> ApiContext:
        authenticator = Authenticator(self.database, self.installation.session_key)
        return ApiContext(self.pipeline, self._page, authenticator, self.database.on_commit)

    def _page(self, record: type[Record], query: ListQuery) -> Page[Any]:
        filters = tuple(Filter(*one) for one in query.filters)
        asked = StoredQuery(filters, query.search, query.sort, query.cursor, query.limit)
        with self.database.read() as reader:
            return list_records(reader, record, asked)

    def _node_context(self) -> NodeContext:
        return NodeContext(
            database=self.database,
            observed=self.database,
            drivers=self.drivers,
            hooks=self.hooks,
            files=PackedFiles(self.catalogue, Programs(self.settings.state_dir / "programs")),
            health=self.health,
            enrol=self._enrol,
            api_url=self.settings.url,
            boot_url=self.settings.boot_url,
            authorized_key=self.installation.key.public,
            digest=Digests(self.settings.boot_dir),
            secret=self.secrets.get,
            settings=self.shared,
            heartbeat_seconds=self.settings.heartbeat_seconds,
            moved=self.hosts.forget if isinstance(self.hosts, RemoteHosts) else None,
        )

    def _boot_context(self) -> BootContext:
        return BootContext(
            database=self.database,
            hooks=self.hooks,
            boot_dir=self.settings.boot_dir,
            boot_url=self.settings.boot_url,
            api_url=self.settings.url,
            seen=self._script_asked,
            handover_of=self._handover,
            handed_over=handovers.handed_over,
        )

    def _handover(self, reader: Reader, resource: Resource, lease: Lease) -> Handover | None:
        return handovers.handover(reader, resource, lease, self.around)

    def _script_asked(self, writer: Writer, resource: Resource) -> bool:
        return script_asked(writer, resource, connected=self.node.state.hub.alive(resource.id))

    def _enrol(self, writer: Writer, resource_id: int) -> None:
        """Plug-ins learn of a machine that was never seen before."""
        self.pipeline.within(writer, Request("resource.announce", SYSTEM, resource_id))

    def _forget_resource(self, writer: Writer, call: ChangeCall) -> dict[str, Any]:
        """A resource goes with its heartbeats, which another database holds; if this is rolled back, it beats again."""
        output = forget_resource(writer, call)
        self.health.forget(int(call.arguments["resource_id"]))
        return output

    async def serve(self) -> None:
        """Run until SIGTERM or SIGINT. OSError when an address is in use or not ours; UnavailableError when a part of
        the controller ended by itself, so that whoever watches this process starts it again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ended.set)
        async with contextlib.AsyncExitStack() as stack:
            await self.start(stack)
            await self._ended.wait()
            log.info("ending")
        if self._failed:
            raise UnavailableError("a part of the controller ended by itself; the log says why")

    def _vital(self, *tasks: asyncio.Task[None]) -> None:
        """The process ends with any of these: half a controller would look like a whole one."""
        for task in tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._ended.is_set():
            return
        log.critical("%r ended by itself: the controller ends", task, exc_info=task.exception())
        self._failed = True
        self._ended.set()

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Start everything; `stack` ends it in reverse."""
        loop = asyncio.get_running_loop()
        self.planners.attach()
        wake_supervisor = notifier(self.supervisor, loop)
        self.database.on_commit(lambda commit: self.runner.ports.notifier.notify(commit.touched))
        self.database.on_commit(
            lambda commit: wake_supervisor() if any(kind == "plugin" for kind, _ in commit.touched) else None
        )
        self.database.on_commit(
            lambda commit: (
                drop_old_password(self.database, self.settings.state_dir)
                if any(kind == "user" for kind, _ in commit.touched)
                else None
            )
        )
        await self.node.state.hub.start()
        self._vital(*self.node.state.hub.tasks)
        stack.push_async_callback(self.node.state.hub.stop)
        self.boot.start()
        stack.callback(self.boot.stop)
        await self.runner.start()
        stack.push_async_callback(self.runner.stop)
        self._vital(*self.runner.tasks)
        serving_at = servers(self.settings, self.app)
        for server in serving_at:
            self._vital(await serving(server, stack))
        for work in (
            self.supervisor.run(),
            self.monitor.run(),
            self.retention.run(),
            renew_certificate(self.settings, serving_at),
        ):
            task = asyncio.create_task(work)
            self._vital(task)
            stack.push_async_callback(_cancelled, task)
        await asyncio.to_thread(self._first_kernel)
        log.info("serving %s, machines boot from %s", self.settings.url, self.settings.boot_url)

    def _first_kernel(self) -> None:
        """A new installation gets a default kernel from the server's own, where its files are installed."""
        version = Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii").strip()
        if not Path(f"/boot/vmlinuz-{version}").exists() or not Path(f"/lib/modules/{version}").is_dir():
            return
        with self.database.read() as reader:
            if reader.count(Kernel):
                return
        with contextlib.suppress(OpenqrmError):
            self.pipeline.call("kernel.add", SYSTEM, None, {"name": "default", "version": version})


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
