"""Declaration of the `sample` plug-in. It imports no driver and no hook."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict

from openqrm.domain.model import Attr
from openqrm.plugin_api.hooks import HookSet
from openqrm.plugin_api.plugin import Family, Plugin


class Settings(BaseModel):
    """What an operator may set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    greeting: Annotated[str, Attr("Greeting", help="said to every new machine")] = "hello"


PLUGIN = Plugin(
    name="sample",
    family=Family.OTHER,
    title="Sample",
    summary="Greets every new machine",
    module="openqrm.admin.skeletons.other",
    hooks=HookSet(resource="openqrm.admin.skeletons.other.hooks:resource"),
    settings=Settings,
)
