"""Planner of the pool: facts in, steps out. What happens on the host is in scripts/pool."""

from openqrm.plugin_api.script_pool import ScriptPool


class SamplePool(ScriptPool):
    """Volumes as directories."""

    package = "openqrm.admin.skeletons.storage"
