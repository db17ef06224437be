"""Settings of pools whose volumes are in a directory of the storage host.

class ShelfSettings(InDirectory):
    directory: Annotated[Directory, Attr("Directory", help="what is in it", immutable=True)] = "/srv/shelf"
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Directory = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=200)]
"""An absolute path that needs no quoting in /etc/fstab or in the configuration of any server."""


class InDirectory(BaseModel):
    """Where the volumes are. Implements `openqrm.plugin_api.drivers.Placed`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Directory

    @property
    def place(self) -> str:
        """Where it is by our records; a symbolic link to another pool is not seen."""
        return self.directory
