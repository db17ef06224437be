"""Raising generations after a restore: what every storage host recorded, read over SSH."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from openqrm.bootstrap import remote_hosts
from openqrm.domain.errors import OpenqrmError, UnreachableError
from openqrm.domain.resource import Resource
from openqrm.domain.storage import Storage
from openqrm.operations.restoring import Raised, raise_above

if TYPE_CHECKING:
    from openqrm.engine.ports import Database
    from openqrm.remote.hosts import RemoteHosts
    from openqrm.settings import Settings
    from openqrm.store.database import SqlDatabase

_SECONDS = 60
"""For one host, its connection included."""


def raise_generations(database: SqlDatabase, settings: Settings) -> Raised:
    """Raise all that the storage hosts recorded. UnreachableError names the hosts that gave no answer.

    What the others recorded is raised all the same; asking again does no harm.
    """
    return asyncio.run(_closing(database, remote_hosts(database, settings.state_dir)))


async def _closing(database: SqlDatabase, hosts: RemoteHosts) -> Raised:
    try:
        return await raise_by(database, hosts)
    finally:
        await hosts.close()


async def raise_by(database: Database, hosts: RemoteHosts) -> Raised:
    """As `raise_generations`, over connections that are there."""
    with database.read() as reader:
        ids = sorted({storage.resource_id for storage in reader.find(Storage)})
        names = {number: reader.get(Resource, number).name for number in ids}
    answers = await asyncio.gather(
        *(hosts.recorded(number, seconds=_SECONDS) for number in ids), return_exceptions=True
    )
    recorded: dict[str, tuple[int, int]] = {}
    silent = []
    for number, answer in zip(ids, answers, strict=True):
        if isinstance(answer, OpenqrmError):
            silent.append(f"{names[number]} ({answer.detail})")
        elif isinstance(answer, BaseException):
            raise answer
        else:
            for volume, pair in answer.items():
                before = recorded.get(volume, pair)
                recorded[volume] = (max(pair[0], before[0]), max(pair[1], before[1]))
    with database.write() as writer:
        raised = raise_above(writer, recorded)
    if silent:
        raise UnreachableError(
            f"no records from {', '.join(silent)}",
            remedy="make these hosts reachable and run this again before the controller starts",
        )
    return raised
