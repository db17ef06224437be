"""A loan and a lease that are taken at the same moment by two controllers: one of them is refused, on each database."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.appliance import Appliance
from openqrm.domain.errors import ConflictError
from openqrm.domain.lease import Lease, Loan
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Desired, Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume, VolumePhase
from openqrm.operations import leases, loans
from openqrm.plugin_api.changes import ChangeCall
from openqrm.testing.database import open_database

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.plugin_api.records import Writer
    from openqrm.store.database import SqlDatabase

    Claim = Callable[[Writer], None]

SECONDS = 20


def stock(writer: Writer) -> None:
    for number in (1, 2):
        idle = {"phase": Phase.IDLE, "desired": Desired.IDLE, "health": Health.OK}
        writer.insert(Resource(name=f"m{number}", mac=f"52:54:00:00:00:0{number}", **idle))
        writer.insert(Operation(name="x.y"))
    writer.insert(Storage(name="s", type="nfs", resource_id=1))
    writer.insert(Volume(name="v", storage_id=1, phase=VolumePhase.READY))
    writer.insert(Image(name="i", volume_id=1))
    writer.insert(Appliance(name="a", image_id=1))


def lease(writer: Writer) -> None:
    leases.acquire(writer, ChangeCall(1, {"appliance_id": 1}))


def read(writer: Writer) -> None:
    loans.take(writer, ChangeCall(2, {"volume_id": 1, "resource_id": 2, "write": False}))


def write(writer: Writer) -> None:
    loans.take(writer, ChangeCall(2, {"volume_id": 1, "resource_id": 2, "write": True}))


@pytest.mark.parametrize(
    ("first", "second"), [(lease, read), (lease, write), (read, lease), (write, lease), (read, write)]
)
def test_whoever_comes_second_sees_the_first(sql_url: str, first: Claim, second: Claim) -> None:
    """The second begins while the first has not committed yet."""
    acted = threading.Event()

    def early(database: SqlDatabase) -> None:
        with database.write() as writer:
            first(writer)
            acted.set()
            threading.Event().wait(0.5)

    def late(database: SqlDatabase) -> None:
        assert acted.wait(SECONDS)
        with database.write() as writer:
            second(writer)

    with ExitStack() as stack:
        one, other = (open_database(sql_url) for _ in range(2))
        stack.callback(one.close)
        stack.callback(other.close)
        with one.write() as writer:
            stock(writer)
        with ThreadPoolExecutor(2) as pool:
            begun, refused = pool.submit(early, one), pool.submit(late, other)
            begun.result(SECONDS)
            with pytest.raises(ConflictError, match=r"in use by appliance a|operation 2"):
                refused.result(SECONDS)
        with one.read() as reader:
            assert reader.count(Lease) + reader.count(Loan) == 1
