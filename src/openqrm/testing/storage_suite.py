"""The conformance suite of storage types: one class for each thing that can be tested, on real hosts.

- `PoolSuite` (`storage_pool_suite`): a pool alone. The fixture `subject` is a `Subject.alone(...)`.
- `ExportSuite` (`storage_export_suite`): an export over any pool of its medium.
- `StorageSuite`: both, for a named join. The fixture `subject` is a `Subject.join(...)`.

A plug-in's test file is a fixture and a class:

    @pytest.fixture
    async def subject(storage: RealStorage) -> AsyncIterator[Subject]:
        with storage.controller_network():                       # or the lab's storage machine
            hosts = storage.hosts()
            yield Subject.join(lvm.PLUGIN, "lvm", iscsi.PLUGIN, "iscsi", hosts=hosts, host=STORAGE, …)
            await hosts.close()

    class TestLvmIscsi(StorageSuite):
        "The conformance suite."

What a client machine does with an export is behind the protocol `openqrm.testing.access.Access`; NFS, iSCSI, AoE and
NBD have one (`access_nfs`, …). Which tests run is decided by what the plug-in declares, and nothing else: a declared
capability cannot skip its tests, except where the driver's `confirms` says that this very host does not have it.

With OPENQRM_CONFORMANCE_RECORD=docs/reference/conformance in the environment the results are recorded, and
`python -m openqrm.testing.storage_report write` makes the report from them.
"""

from __future__ import annotations

from typing import ClassVar

from openqrm.testing.storage_copy_suite import PoolCopySuite
from openqrm.testing.storage_export_suite import ExportSuite as _ExportSuite
from openqrm.testing.storage_fault_suite import ExportFaultSuite, PoolFaultSuite
from openqrm.testing.storage_grant_suite import GrantSuite, LendSuite
from openqrm.testing.storage_limit_suite import PoolLimitSuite
from openqrm.testing.storage_plan_suite import ExportPlanSuite, PoolPlanSuite
from openqrm.testing.storage_pool_suite import PoolSuite as _PoolSuite
from openqrm.testing.storage_record import Recorded


class PoolSuite(Recorded, PoolPlanSuite, _PoolSuite, PoolCopySuite, PoolLimitSuite, PoolFaultSuite):
    """A pool alone."""

    suites: ClassVar[tuple[str, ...]] = ("pool",)


class ExportSuite(Recorded, ExportPlanSuite, _ExportSuite, GrantSuite, LendSuite, ExportFaultSuite):
    """An export over a pool of its medium."""

    suites: ClassVar[tuple[str, ...]] = ("export",)


class StorageSuite(PoolSuite, ExportSuite):
    """A pool joined with an export."""

    suites: ClassVar[tuple[str, ...]] = ("pool", "export")
