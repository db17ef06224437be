"""A whole controller in this process: it ends when one of its parts does, and forgets what it should."""

from __future__ import annotations

import asyncio
import logging
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from openqrm.admin.setup import prepare
from openqrm.bootstrap import Controller
from openqrm.domain.errors import UnavailableError
from openqrm.domain.resource import Resource
from openqrm.operations.machine_messages import Beat
from openqrm.plugin_api.changes import ChangeCall
from openqrm.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """Set up, with nothing to build."""
    settings = Settings(
        state_dir=tmp_path / "state",
        address="127.0.0.1",
        port=free_port(),
        boot_port=free_port(),
        socket=None,
    )
    monkeypatch.setattr(Controller, "_first_kernel", lambda _: None)
    return Controller(prepare(settings))


@pytest.mark.parametrize("part", ["monitor", "supervisor", "runner"])
def test_a_part_that_ends_by_itself_ends_the_process_and_says_so(
    controller: Controller, part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> None:
        await asyncio.sleep(0.05)
        raise RuntimeError("a bug")

    monkeypatch.setattr(getattr(controller, part), "_serve" if part == "runner" else "run", broken)

    async def serve() -> None:
        async with asyncio.timeout(30):
            await controller.serve()

    with caplog.at_level(logging.CRITICAL), pytest.raises(UnavailableError, match="ended by itself"):
        asyncio.run(serve())
    (record,) = [one for one in caplog.records if one.levelno == logging.CRITICAL]
    assert "broken" in record.getMessage()
    assert record.exc_info is not None


def test_a_removed_resource_leaves_no_heartbeat(controller: Controller) -> None:
    with controller.database.write() as writer:
        number = writer.insert(Resource(name="node")).id
    controller.health.record({number: Beat(uptime=1)}, datetime.now(UTC))
    with controller.database.write() as writer:
        controller.changes.functions["resource.forget"](writer, ChangeCall(1, {"resource_id": number}))
    assert controller.health.last_seen() == {}
