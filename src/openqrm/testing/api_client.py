"""A client of an API that runs in the test's own process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from openqrm.api.application import create_app
from openqrm.testing.wiring import context_of

if TYPE_CHECKING:
    from openqrm.store.database import SqlDatabase
    from openqrm.testing.memory import MemoryDatabase


def client_of(database: SqlDatabase | MemoryDatabase, token: str = "admin", **further: Any) -> httpx.AsyncClient:  # noqa: S107
    """As the user that `token` is named like; nobody when it is empty. `further`: see `wiring.context_of`."""
    app = create_app(context_of(database, **further))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers)
