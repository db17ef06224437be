"""The fake storage of `openqrm.testing.datacentre` as a plug-in: a controller plans with it as with any."""

from __future__ import annotations

from openqrm.plugin_api.drivers import Cap, Export, Medium, Pool, StorageType
from openqrm.plugin_api.plugin import Family, Plugin

STORAGE_TYPE = "fake"
_DRIVERS = "openqrm.testing.datacentre"

PLUGIN = Plugin(
    name="fake-storage",
    family=Family.STORAGE,
    title="Fake storage",
    summary="Volumes and grants in memory",
    module="bench",
    provides=(
        Pool(
            name="fake-pool",
            medium=Medium.TREE,
            capabilities=frozenset({Cap.CLONE}),
            driver=f"{_DRIVERS}:FakePool",
        ),
        Export(
            name="fake-export",
            medium=Medium.TREE,
            deployment="fake-root",
            capabilities=frozenset({Cap.AUTHORIZE, Cap.REVOKE_PROOF}),
            driver=f"{_DRIVERS}:FakeExport",
        ),
        StorageType(name=STORAGE_TYPE, title="Fake storage", pool="fake-pool", export="fake-export"),
    ),
)
