"""What a person calls a thing by: digits are an id or an address, never a name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import NotFoundError
from openqrm.domain.network import Nic
from openqrm.domain.resource import Resource
from openqrm.operations.lookup import find

if TYPE_CHECKING:
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


def test_digits_are_an_id_or_an_address(database: SqlDatabase | MemoryDatabase) -> None:
    with database.write() as writer:
        one = writer.insert(Resource(name="one"))
        # As it was recorded when such names were taken.
        writer.insert(Resource.model_construct(**{**Resource(name="other").model_dump(), "name": "77"}))
        nic = writer.insert(Nic(resource_id=one.id, mac="52:54:00:12:34:56"))
    with database.read() as reader:
        assert find(reader, Resource, str(one.id)).name == "one"
        assert find(reader, Nic, "525400123456").id == nic.id
        with pytest.raises(NotFoundError, match="there is no resource 77"):
            find(reader, Resource, "77")
