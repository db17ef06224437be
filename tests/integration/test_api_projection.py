"""An operation that a plug-in declares is in REST, OpenAPI, the command line and the reference without another line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import httpx
import pytest
from pydantic import Field

from openqrm.admin import reference
from openqrm.api.application import create_app
from openqrm.api.compact import compact
from openqrm.api.openapi import document
from openqrm.api.projection import endpoints
from openqrm.cli import options
from openqrm.domain.model import Attr, Id
from openqrm.domain.network import Network
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.operations.registry import Registry
from openqrm.plugin_api.drivers import Export, Medium, Pool
from openqrm.plugin_api.operation import Arguments, Operation
from openqrm.plugin_api.plugin import Family, Plugin
from openqrm.testing.memory import MemoryDatabase
from openqrm.testing.wiring import add_users, context_of, pipeline_of

if TYPE_CHECKING:
    from openqrm.plugin_api.operation import Call
    from openqrm.plugin_api.records import Writer


class Shout(Arguments):
    """What to shout."""

    words: Annotated[tuple[str, ...], Field(min_length=1), Attr("Words", help="what to shout")]
    loud: Annotated[bool, Attr("Loud")] = False
    at_id: Annotated[Id | None, Attr("Network", ref="network")] = None


def shout(writer: Writer, call: Call) -> Network:
    """Into the network's interface field, which is as good a place as any."""
    assert isinstance(call.target, Network)
    text = "-".join(call.arguments.words)
    return writer.update(call.target, interface=text.upper() if call.arguments.loud else text)


TOY = Plugin(
    name="toy",
    family=Family.OTHER,
    title="Toy",
    summary="A toy",
    module="toy",
    operations=(
        Operation(
            name="network.shout",
            title="Shout",
            summary="Shout into a network",
            target=Network,
            arguments=Shout,
            destroys=True,
            act=f"{__name__}:shout",
        ),
    ),
)


async def test_a_plugins_operation_is_everywhere() -> None:
    database = MemoryDatabase()
    add_users(database)
    pipeline = pipeline_of(database, [TOY])
    registry = pipeline.registry
    described = document(registry)["paths"]["/v1/networks/{which}/shout"]["post"]
    assert described["x-destroys"] is True
    assert "## network.shout" in reference.operations_page(registry)
    assert "comes with plug-in toy" in reference.operations_page(registry)
    operation = next(each for each in compact(registry)["operations"] if each["name"] == "network.shout")
    given = options.operation_parser(operation).parse_args(["lan", "-w", "a", "--words", "b", "--loud", "--yes"])
    body = options.arguments(operation, given)
    assert body == {"words": ["a", "b"], "loud": True}
    with database.write() as writer:
        writer.insert(PluginState(name="toy", family="other", state=PluginPhase.ENABLED))
        writer.insert(Network(name="lan", cidr="10.0.0.0/24"))
    transport = httpx.ASGITransport(app=create_app(context_of(database, pipeline)))
    headers = {"Authorization": "Bearer olga"}
    async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client:
        answer = await client.post("/v1/networks/lan/shout", json=body)
        assert (answer.status_code, answer.json()["interface"]) == (200, "A-B")
        assert (await client.post("/v1/networks/lan/shout", json={"words": []})).json()["field"] == "words"


def test_a_plugins_storage_type_is_on_the_surfaces() -> None:
    pool = Pool(name="toy", medium=Medium.TREE, capabilities=frozenset(), driver="toy:Toy")
    export = Export(name="lend", deployment="toy-root", medium=Medium.TREE, driver="toy:Lend")
    registry = Registry.of_installation([replace(TOY, operations=(), provides=(pool, export))])
    described = document(registry)["components"]["schemas"]["StorageCreateArguments"]["properties"]["type"]
    assert described["description"] == "a pool joined with an export; installed: toy-lend"
    create = next(each for each in compact(registry)["operations"] if each["name"] == "storage.create")
    assert "installed: toy-lend" in " ".join(options.operation_parser(create).format_help().split())


def test_what_is_internal_is_on_no_surface() -> None:
    registry = Registry.of_installation()
    internal = {name for name, operation in registry.operations.items() if operation.internal}
    assert "resource.announce" in internal
    text = str(document(registry)) + str(compact(registry)) + reference.operations_page(registry)
    assert not [name for name in internal if name in text]


def test_every_other_operation_is_documented_once() -> None:
    registry = Registry.of_installation()
    found = [
        described["operationId"] for methods in document(registry)["paths"].values() for described in methods.values()
    ]
    assert len(found) == len(set(found))
    assert {operation.name for operation in registry.offered()} <= set(found)


def test_two_operations_cannot_answer_one_path() -> None:
    add = Operation(name="network.add", title="Add", summary="Add", act="a.b:c")
    clash = Plugin("clash", Family.OTHER, "Clash", "A clash", "clash", operations=(add,))
    with pytest.raises(ValueError, match="/v1/networks"):
        endpoints(Registry.of_installation([clash]))
