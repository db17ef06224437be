"""Counting statements, and the header that tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import httpx
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from openqrm.api.timing import ServerTiming
from openqrm.domain.resource import Resource
from openqrm.store.measure import counting

if TYPE_CHECKING:
    from starlette.requests import Request

    from openqrm.store.database import SqlDatabase


def test_each_block_counts_its_own(sql_database: SqlDatabase) -> None:
    with counting() as first, sql_database.read() as reader:
        reader.find(Resource)
        before = first.count
        reader.find(Resource)
        assert first.count == before + 1
    with counting() as second, sql_database.read() as reader:
        reader.find(Resource)
    assert second.count == before
    assert second.seconds > 0
    with sql_database.read() as reader:
        reader.find(Resource)
    assert second.count == before, "nobody asked for this one"


async def test_the_header_says_what_the_request_cost(sql_database: SqlDatabase) -> None:
    def asked(request: Request) -> PlainTextResponse:  # in a thread of its own
        with sql_database.read() as reader:
            for _ in range(int(request.query_params["times"])):
                reader.count(Resource)
        return PlainTextResponse("")

    transport = httpx.ASGITransport(app=ServerTiming(Starlette(routes=[Route("/", asked)]), counting))
    counts = []
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for times in (1, 4):
            header = (await client.get(f"/?times={times}")).headers["server-timing"]
            found = re.fullmatch(r'db;dur=[\d.]+;desc="(\d+) statements?", total;dur=[\d.]+', header)
            assert found, header
            counts.append(int(found[1]))
    assert counts[1] - counts[0] == 3
