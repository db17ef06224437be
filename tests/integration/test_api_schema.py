"""The whole OpenAPI document under generated input: no 5xx, no answer that is not documented, on each database."""

from __future__ import annotations

import itertools
import os
from collections import Counter, defaultdict
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from openqrm.api.application import create_app
from openqrm.api.projection import endpoints
from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.event import Severity
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease, LeaseState
from openqrm.domain.network import Address, AddressRange, Network, Nic
from openqrm.domain.operation import Operation, OperationStatus, StepRecord
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import MachineOrder, Resource
from openqrm.domain.resource import Phase as ResourcePhase
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.domain.user import Token, User, UserRole
from openqrm.operations.core_plugins import installed
from openqrm.operations.registry import Registry
from openqrm.testing.database import open_database
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.wiring import ADMIN, add_users, context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from openqrm.plugin_api.records import Writer
    from openqrm.store.database import SqlDatabase

T = TypeVar("T", bound=StrEnum)
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)
EXAMPLES = int(os.environ.get("API_EXAMPLES", "6"))
"""For each of about ninety endpoints and each database; set API_EXAMPLES to search deeper."""
REACHED = {200, 201, 202, 204, 409}
"""Answers of an operation that looked at its target; 409: its state is in the way."""
HEADERS = {"Authorization": f"Bearer {ADMIN.name}"}
NEVER_ENDS = "/v1/events/stream"
"""Has a test of its own in test_api.py: a generated request would wait for the end of its answer."""

COPIES = 40
TURNS: defaultdict[tuple[str, ...], itertools.count[int]] = defaultdict(lambda: itertools.count(1))
"""By method, path and argument: what one endpoint is given does not depend on the calls of the others."""
seen: Counter[tuple[str, int]] = Counter()
reached: defaultdict[tuple[str, str], set[int]] = defaultdict(set)


class Current:
    """The application of the database in turn; the document is the same for all."""

    def __init__(self) -> None:
        self.app: FastAPI = create_app(context_of(MemoryDatabase()))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


CURRENT = Current()
schema = schemathesis.openapi.from_asgi("/v1/openapi.json", CURRENT).exclude(path=NEVER_ENDS)


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def served(request: pytest.FixtureRequest) -> Iterator[str]:
    """The API over a database that has one of most things."""
    server = request.getfixturevalue("postgres_server") if request.param == "postgresql" else None
    url = server.fresh() if server else request.getfixturevalue("sqlite_files").fresh()
    database = open_database(url)
    populate(database)
    CURRENT.app = create_app(context_of(database))
    yield request.param
    database.close()
    if server:
        server.drop(url)


@pytest.fixture(scope="module")
def in_memory() -> None:
    """The API over a database that is no server: for what does not depend on one."""
    database = MemoryDatabase()
    add_users(database)
    CURRENT.app = create_app(context_of(database))


def populate(database: SqlDatabase) -> None:
    """`COPIES` of every entity, in every state by turns, so that generated calls find something to act on."""
    add_users(database)
    with database.write() as writer:
        for number in range(1, COPIES + 1):
            _one_of_each(writer, number)


def _turn(states: type[T], number: int) -> T:
    return list(states)[number % len(states)]


def _one_of_each(writer: Writer, number: int) -> None:
    """A chain of records, each pointing to the one before; the states of the last ones need not fit together."""
    phase = _turn(ResourcePhase, number)
    mac = f"52:54:00:00:00:{number:02x}"
    box = writer.insert(Resource(name=f"box-{number}", mac=mac, address=f"10.0.0.{number}", phase=phase, boot_id="b"))
    network = writer.insert(
        Network(
            name=f"lan-{number}",
            cidr=f"10.{number}.0.0/24",
            machines=AddressRange(first=f"10.{number}.0.10", last=f"10.{number}.0.200"),
        )
    )
    nic = writer.insert(Nic(resource_id=box.id, mac=mac, network_id=network.id))
    writer.insert(Address(network_id=network.id, address=f"10.{number}.0.9", nic_id=nic.id))
    kernel = writer.insert(Kernel(name=f"kernel-{number}", version="6.1", ready=number % 2 == 1))
    if number == 1:
        writer.update(kernel, default=True, default_mark=1)
    storage = writer.insert(Storage(name=f"nfs-{number}", type="nfs", resource_id=box.id))
    volume = writer.insert(Volume(name="debian", storage_id=storage.id, phase=_turn(VolumePhase, number)))
    writer.insert(Volume(name="spare", storage_id=storage.id, phase=_turn(VolumePhase, number)))
    image = writer.insert(Image(name=f"image-{number}", volume_id=volume.id))
    if number % 3 == 0:
        writer.insert(Image(name=f"spare-{number}", volume_id=volume.id + 1))
    operation = writer.insert(
        Operation(
            name=("kernel.add", "appliance.start", "gone.away")[number % 3],
            target_kind=("", "appliance", "resource")[number % 3],
            target_id=(None, number, 10**6)[number % 3],
            arguments={"name": f"again-{number}", "version": "6.1"} if number % 3 == 0 else {},
            status=_turn(OperationStatus, number),
        )
    )
    writer.insert(StepRecord(operation_id=operation.id, position=0, name="plan", kind="planning"))
    appliance = writer.insert(
        Appliance(name=f"web-{number}", image_id=image.id, phase=_turn(AppliancePhase, number), kernel_id=kernel.id)
    )
    lease = {"image_id": image.id, "resource_id": box.id, "appliance_id": appliance.id, "operation_id": operation.id}
    held = {"held_image": image.id, "held_resource": box.id, "held_appliance": appliance.id}
    writer.insert(Lease(**lease, generation=1, **(held if number % 4 == 0 else {"state": LeaseState.RELEASED})))
    writer.insert(MachineOrder(resource_id=box.id, verb="idle"))
    plugins = installed().plugins
    writer.insert(
        PluginState(
            name=plugins[number].name if number < len(plugins) else f"plugin-{number}",
            family="other",
            state=_turn(PluginPhase, number),
        )
    )
    user = writer.insert(User(name=f"user-{number}", role=_turn(UserRole, number)))
    writer.insert(Token(name=f"token-{number}", user_id=user.id, token_hash=f"{number}"))
    writer.event(f"something {number}", severity=Severity.WARNING, source="test")


def _turn_of(context: Any, argument: str = "") -> int:
    return next(TURNS[context.operation.method.upper(), context.operation.path, argument])


@schema.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Two thirds of the targets exist; what is removed is none of those that other calls look for."""
    if path_parameters and "which" in path_parameters and (turn := _turn_of(context)) % 3:
        half = COPIES // 2
        chosen = turn % half + 1
        path_parameters["which"] = str(chosen + half if context.operation.method.upper() == "DELETE" else chosen)
    return path_parameters


@schema.hook
def map_body(context: Any, body: Any) -> Any:
    """Two thirds of what an argument refers to exist, too."""
    if isinstance(body, dict):
        for name, value in body.items():
            # An identity or a name: both are taken. One more than the target's number, so that a move goes elsewhere.
            if name.endswith("_id") and isinstance(value, int | str) and (turn := _turn_of(context, name)) % 3:
                body[name] = (turn + 1) % COPIES + 1
            # Names that a plug-in made up: a generated one is none of them.
            if name == "settings" and isinstance(value, dict) and _turn_of(context, name) % 3:
                body[name] = {}
    return body


@schema.hook
def map_headers(context: Any, headers: Any) -> Any:
    """A third of the calls have a generated `If-Match` and key; with them few would come as far as the target."""
    return headers if _turn_of(context, "headers") % 3 == 0 else {}


@pytest.mark.timeout(900)
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_every_answer_is_documented(case: schemathesis.Case[Any], served: str) -> None:
    response = case.call(headers=HEADERS)
    seen[case.method, response.status_code] += 1
    reached[case.method.upper(), case.operation.path].add(response.status_code)
    case.validate_response(response, checks=list(CHECKS))


def test_the_search_reached_success_and_refusal() -> None:
    """Guards the test above: if all calls were refused at the door, it would prove nothing."""
    if not seen:
        pytest.skip("the generated test was not selected")
    for method, status in (("GET", 200), ("POST", 201), ("POST", 202), ("PATCH", 200), ("POST", 422), ("GET", 404)):
        assert seen[method, status], f"{method} never answered {status}: {sorted(seen.items())}"


def test_every_operation_with_a_target_reached_one() -> None:
    if not reached:
        pytest.skip("the generated test was not selected")
    offered = [(place.method, place.path) for place in endpoints(Registry.of_installation()) if "{" in place.path]
    never = {place: sorted(reached[place]) for place in offered if not reached[place] & REACHED}
    assert not never, never


@pytest.mark.timeout(300)
@schema.parametrize()
@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_page_wants_a_token_and_names_its_methods(case: schemathesis.Case[Any], in_memory: None) -> None:
    case.call_and_validate(headers=HEADERS, checks=[ignored_auth, unsupported_method])
