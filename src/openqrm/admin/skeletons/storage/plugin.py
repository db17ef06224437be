"""Declaration of the `sample-storage` plug-in. It imports no driver."""

from __future__ import annotations

from typing import Annotated

from openqrm.domain.model import Attr
from openqrm.plugin_api.drivers import Cap, Medium, Pool
from openqrm.plugin_api.places import Directory, InDirectory
from openqrm.plugin_api.plugin import Family, Plugin


class Settings(InDirectory):
    """Where the volumes are."""

    directory: Annotated[Directory, Attr("Directory", immutable=True)] = "/srv/sample"


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
