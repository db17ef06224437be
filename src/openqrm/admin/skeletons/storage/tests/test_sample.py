"""The conformance suite, on a real storage host: needs root, and what `openqrm lab` needs."""

from openqrm.admin.skeletons.storage.plugin import PLUGIN
from openqrm.testing.storage_on_host import RealPoolSuite


class TestSample(RealPoolSuite):
    """All that is declared is tested."""

    plugin = PLUGIN
    pool = "sample"
    prepare = "mkdir -p /srv/sample"
