"""The whole OpenAPI document under generated input: no 5xx, no answer that is not documented, on each database."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

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
from openqrm.testing.database import open_database
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.wiring import ADMIN, add_users, context_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi import FastAPI

    from openqrm.store.database import SqlDatabase

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
)
EXAMPLES = int(os.environ.get("API_EXAMPLES", "6"))
"""For each of about ninety endpoints and each database; set API_EXAMPLES to search deeper."""
HEADERS = {"Authorization": f"Bearer {ADMIN.name}"}
NEVER_ENDS = "/v1/events/stream"
"""Has a test of its own in test_api.py: a generated request would wait for the end of its answer."""

seen: Counter[tuple[str, int]] = Counter()


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
    """So that generated calls find something to act on."""
    add_users(database)
    pipeline = context_of(database).pipeline

    def make(name: str, /, **arguments: Any) -> None:
        pipeline.call(name, ADMIN, None, arguments)

    make("resource.create", mac="52:54:00:00:00:01", address="10.0.0.1")
    make("resource.create", mac="52:54:00:00:00:02", address="10.0.0.2")
    make("network.create", name="lan", cidr="10.0.0.0/24", machines={"first": "10.0.0.10", "last": "10.0.0.20"})
    make("nic.create", resource_id=1, mac="52:54:00:00:00:03")
    make("address.allocate", network_id="lan")
    make("storage.create", name="nfs1", type="nfs", resource_id=1)
    make("token.create", name="ci")


@schema.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """A third of the targets exist."""
    del context
    if path_parameters and "which" in path_parameters and len(path_parameters["which"]) % 3 == 0:
        path_parameters["which"] = "1"
    return path_parameters


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
    case.validate_response(response, checks=list(CHECKS))


def test_the_search_reached_success_and_refusal() -> None:
    """Guards the test above: if all calls were refused at the door, it would prove nothing."""
    if not seen:
        pytest.skip("the generated test was not selected")
    for method, status in (("GET", 200), ("POST", 201), ("POST", 202), ("PATCH", 200), ("POST", 422), ("GET", 404)):
        assert seen[method, status], f"{method} never answered {status}: {sorted(seen.items())}"


@pytest.mark.timeout(300)
@schema.parametrize()
@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_every_page_wants_a_token_and_names_its_methods(case: schemathesis.Case[Any], in_memory: None) -> None:
    case.call_and_validate(headers=HEADERS, checks=[ignored_auth, unsupported_method])
