"""The API as its callers see it: statuses, headers, problems, versions and lists."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.errors import UnavailableError
from openqrm.operations.credentials import Authenticator, create_first_admin, use_passwords
from openqrm.operations.passwords import CHEAP, Passwords
from openqrm.operations.pipeline import Outcome, Pipeline
from openqrm.testing.api_client import client_of
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.wiring import KnownTokens, add_users, pipeline_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

    from openqrm.domain.user import Actor
    from openqrm.store.database import SqlDatabase

BOX = {"mac": "52:54:00:aa:00:01", "address": "10.0.0.5", "name": "box"}
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


@pytest.fixture
async def client(database: SqlDatabase | MemoryDatabase) -> AsyncIterator[httpx.AsyncClient]:
    add_users(database)
    async with client_of(database) as found:
        yield found


async def test_a_record_through_its_life(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/resources", json=BOX)
    assert made.status_code == 201
    assert made.headers["location"] == f"/v1/resources/{made.json()['id']}"
    shown = await client.get("/v1/resources/box")
    assert shown.json() == made.json()
    assert shown.headers["etag"] == made.headers["etag"]
    changed = await client.patch("/v1/resources/box", json={"group": "g"}, headers={"If-Match": shown.headers["etag"]})
    assert (changed.status_code, changed.json()["group"]) == (200, "g")
    stale = await client.patch("/v1/resources/box", json={"group": "h"}, headers={"If-Match": shown.headers["etag"]})
    assert (stale.status_code, stale.json()["code"]) == (412, "changed")
    same = await client.get("/v1/resources/box", headers={"If-None-Match": changed.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    removal = await client.delete("/v1/resources/box")
    assert removal.status_code == 202
    followed = await client.get(removal.headers["location"])
    assert (followed.json()["name"], followed.json()["status"]) == ("resource.remove", "queued")
    steps = await client.get(f"{removal.headers['location']}/steps")
    assert [step["kind"] for step in steps.json()["items"]] == ["planning"]


async def test_what_is_wrong_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/resources", json={"mac": "zz", "address": "10.0.0.5", "x": 1})
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    problem = answer.json()
    assert (problem["code"], problem["field"]) == ("invalid", "mac")
    assert "52:54:00:12:34:56" in problem["detail"]
    assert [error["field"] for error in problem["errors"]] == ["mac", "x"]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/resources/nothing", 404, "not-found"),
        ("GET", "/v1/unicorns", 404, "not-found"),
        ("GET", "/v1/resources/", 404, "not-found"),
        ("DELETE", "/v1/resources/", 404, "not-found"),
        ("PUT", "/v1/resources", 405, "method-not-allowed"),
        ("GET", "/v1/resources?colour=red", 422, "invalid"),
        ("GET", "/v1/resources?phase=flying", 422, "invalid"),
        ("GET", "/v1/resources?limit=0", 422, "invalid"),
        ("GET", "/v1/resources?sort=comment", 422, "invalid"),
        ("GET", "/v1/resources?cursor=xyz", 422, "invalid"),
        ("DELETE", "/v1/resources/0?dry_run=maybe", 422, "invalid"),
    ],
)
async def test_refusals(client: httpx.AsyncClient, method: str, path: str, status: int, code: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json()["code"] == code


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", JSON, 422),
        (b"[]", JSON, 422),
        (b'{"mac": NaN}', JSON, 422),
        (b"\xff\xfe", JSON, 422),
        (b"[" * 200_000, JSON, 422),
        (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"x" * 1_000_001, JSON, 413),
        (json.dumps({**BOX, "name": "x" * 10_000_000}).encode(), JSON, 413),
    ],
)
async def test_bodies_that_are_not_taken(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await client.post("/v1/resources", content=body, headers=headers)
    assert answer.status_code == status
    assert (await client.get("/v1/resources")).json()["items"] == []


async def test_a_long_body_of_unknown_length_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    sent = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield b"x" * 100_000

    answer = await client.post("/v1/resources", content=parts(), headers=JSON)
    assert answer.status_code == 413
    assert sent < 100


async def test_keys_and_dry_runs(client: httpx.AsyncClient) -> None:
    planned = await client.post("/v1/resources?dry_run=true", json=BOX)
    assert (planned.status_code, planned.json()["record"]["name"]) == (200, "box")
    assert (await client.get("/v1/resources")).json()["total"] == 0
    for _ in range(2):
        made = await client.post("/v1/resources", json=BOX, headers={"Idempotency-Key": "k"})
        assert made.status_code == 201
    other = await client.post("/v1/resources", json=BOX | {"name": "x"}, headers={"Idempotency-Key": "k"})
    assert other.status_code == 409
    bad = await client.post("/v1/resources", json=BOX, headers={"Idempotency-Key": "k" * 201})
    assert bad.status_code == 422


async def test_a_key_is_shown_once_and_hashes_never(client: httpx.AsyncClient) -> None:
    made = await client.post("/v1/tokens", json={"name": "ci"}, headers={"Idempotency-Key": "k"})
    assert made.json()["token"].startswith("oq_")
    again = await client.post("/v1/tokens", json={"name": "ci"}, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["token"]) == (201, None)
    everything = [made.text, again.text, (await client.get("/v1/tokens")).text, (await client.get("/v1/users")).text]
    everything += [(await client.get("/v1/events")).text, (await client.get("/v1/operations")).text]
    assert "hash" not in "".join(everything)


async def test_roles(database: SqlDatabase | MemoryDatabase) -> None:
    add_users(database)
    async with client_of(database, "") as nobody, client_of(database, "victor") as viewer:
        assert (await nobody.get("/v1/health")).json()["status"] == "ok"
        refused = await nobody.get("/v1/resources")
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        wrong = await nobody.get("/v1/resources", headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        assert (await viewer.get("/v1/resources")).status_code == 200
        assert (await viewer.post("/v1/resources", json=BOX)).status_code == 403
        assert [user["name"] for user in (await viewer.get("/v1/users")).json()["items"]] == ["victor"]
        assert (await viewer.get("/v1/users/admin")).status_code == 404
        assert (await viewer.get("/v1/users?id=1")).json()["items"] == []


async def test_login_with_the_real_credentials(database: SqlDatabase | MemoryDatabase) -> None:
    use_passwords(Passwords(CHEAP))
    with database.write() as writer:
        password = create_first_admin(writer)
    authentication = Authenticator(database, "key")
    async with client_of(database, "", authentication=authentication) as client:
        answer = await client.post("/v1/login", json={"name": "admin", "password": password})
        assert (answer.status_code, answer.json()["role"]) == (200, "admin")
        bearer = {"Authorization": f"Bearer {answer.json()['token']}"}
        assert (await client.get("/v1/resources", headers=bearer)).status_code == 200
        wrong = await client.post("/v1/login", json={"name": "admin", "password": "wrong"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "unauthenticated")
        assert (await client.post("/v1/login", json={"name": "admin"})).json()["field"] == "password"
        assert (await client.post("/v1/logout", headers=bearer)).status_code == 204
        assert (await client.get("/v1/resources", headers=bearer)).status_code == 401
        assert (await client.post("/v1/logout", headers=bearer)).status_code == 401


async def test_passwords_and_dry_runs_leave_threads_for_others(database: SqlDatabase | MemoryDatabase) -> None:
    """While many try passwords and many dry runs hang, a list answers at once; the rest of the dry runs get 503."""
    hold, most = threading.Event(), {"basic": 0, "dry": 0}
    present = {"basic": 0, "dry": 0}
    guard = threading.Lock()

    def busy(kind: str) -> None:
        with guard:
            present[kind] += 1
            most[kind] = max(most[kind], present[kind])
        hold.wait(20)
        with guard:
            present[kind] -= 1

    class Slow(KnownTokens):
        def authenticate(self, header: str | None, address: str = "") -> Actor:
            busy("basic")
            return super().authenticate(header, address)

    class Hanging(Pipeline):
        def call(self, *given: Any, **further: Any) -> Outcome:
            if further["dry_run"]:
                busy("dry")
            return super().call(*given, **further)

    add_users(database)
    made = pipeline_of(database)
    made.__class__ = Hanging
    context: dict[str, Any] = {"authentication": Slow(), "pipeline": made, "dry_run_seconds": 0.2}
    async with client_of(database, **context) as client, asyncio.TaskGroup() as tasks:
        basic = {"Authorization": "Basic YWRtaW46eA=="}
        guesses = [tasks.create_task(client.get("/v1/users", headers=basic)) for _ in range(40)]
        dry = [tasks.create_task(client.post("/v1/resources?dry_run=true", json=BOX)) for _ in range(40)]
        try:
            async with asyncio.timeout(5):
                for refused in itertools.islice(asyncio.as_completed(dry), 36):
                    assert (await refused).json()["code"] == "unavailable"
                assert (await client.get("/v1/users")).status_code == 200
        finally:
            hold.set()
    assert most == {"basic": 2, "dry": 4}
    assert sorted(each.result().status_code for each in dry) == [200] * 4 + [503] * 36
    assert {each.result().status_code for each in guesses} == {401}


async def test_lists_page_sort_search_and_filter(client: httpx.AsyncClient) -> None:
    for number in range(7):
        box = {
            "mac": f"52:54:00:aa:00:{number:02}",
            "address": f"10.0.0.{5 + number}",
            "name": f"box-{number}",
            "group": "ab"[number % 2],
        }
        assert (await client.post("/v1/resources", json=box)).status_code == 201
    names, cursor = [], ""
    while True:
        page = (await client.get(f"/v1/resources?limit=3&sort=-name{cursor}")).json()
        names += [item["name"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert names == [f"box-{number}" for number in reversed(range(7))]
    grouped = (await client.get("/v1/resources?group=b&id__gt=2")).json()
    assert [item["name"] for item in grouped["items"]] == ["box-3", "box-5"]
    found = (await client.get("/v1/resources?q=box-6")).json()
    assert [item["name"] for item in found["items"]] == ["box-6"]


async def test_references_by_name(client: httpx.AsyncClient) -> None:
    await client.post("/v1/networks", json={"name": "lan", "cidr": "10.0.0.0/24"})
    taken = await client.post("/v1/addresses", json={"network_id": "lan", "address": "10.0.0.7"})
    assert taken.status_code == 201
    unknown = await client.post("/v1/addresses", json={"network_id": "wan"})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "network_id")


async def test_the_schema_for_command_lines_is_tagged(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/schema")
    assert answer.json()["entities"]["resource"]["plural"] == "resources"
    again = await client.get("/v1/schema", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


async def test_the_documentation_needs_no_other_server(client: httpx.AsyncClient) -> None:
    answer = await client.get("/docs", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert "/v1/appliances/{which}/start" in answer.text
    assert "<script" not in answer.text
    assert "//" not in answer.text.replace("https://HOST", "")


async def test_a_database_that_is_away() -> None:
    database = MemoryDatabase()
    add_users(database)
    async with client_of(database) as client:

        def away() -> Any:
            raise UnavailableError("the database is away", remedy="try again")

        database.read = away  # type: ignore[method-assign]  # as if the server were gone
        for path in ("/v1/resources", "/v1/health"):
            answer = await client.get(path)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert answer.json()["code"] == "unavailable"


async def test_a_bug_says_nothing_of_the_inside() -> None:
    database = MemoryDatabase()
    add_users(database)
    async with client_of(database) as client:

        def broken() -> Any:
            raise RuntimeError("secret detail")

        database.read = broken  # type: ignore[method-assign]  # a bug
        answer = await client.get("/v1/resources")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text


async def test_a_hundred_calls_at_once_lose_nothing(client: httpx.AsyncClient) -> None:
    await client.post(
        "/v1/networks",
        json={"name": "lan", "cidr": "10.0.0.0/24", "machines": {"first": "10.0.0.10", "last": "10.0.0.209"}},
    )
    answers = await asyncio.gather(*(client.post("/v1/addresses", json={"network_id": 1}) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["address"] for answer in answers}) == 100
