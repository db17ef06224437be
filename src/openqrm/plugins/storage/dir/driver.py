"""The pool of directories. What happens on the host is in scripts/pool."""

from __future__ import annotations

from openqrm.plugin_api.script_pool import ScriptPool


class DirPool(ScriptPool):
    """Volumes as directories; copies share blocks where the file system can."""

    package = "openqrm.plugins.storage.dir"
    scripts = ("shell:say", "shell:state", "shell:unpack", "shell:copy", "shell:reflink", "pool")
