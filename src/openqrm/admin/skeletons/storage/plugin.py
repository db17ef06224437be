"""Declaration of the `sample-storage` plug-in. It imports no driver."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.plugin import Family, Plugin


class Settings(BaseModel):
    """Where the volumes are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: Annotated[
        str, Field(pattern=r"^(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=200), Attr("Directory", immutable=True)
    ] = "/srv/sample"

    @property
    def place(self) -> str:
        """No two storages may have their volumes in one place."""
        return self.directory


PLUGIN = Plugin(
    name="sample-storage",
    family=Family.STORAGE,
    title="Sample storage",
    summary="Directories of a storage host as volumes",
    module="openqrm.admin.skeletons.storage",
    provides=(
        Pool(
            name="sample",
            medium=Medium.TREE,
            capabilities=frozenset({Cap.CLONE, Cap.FILL, Cap.LIST}),
            driver="openqrm.admin.skeletons.storage.driver:SamplePool",
            spec=Settings,
        ),
    ),
)
