"""What an NFS server lets a client do, in whichever words it says so."""

from __future__ import annotations

import re
from typing import NamedTuple

ANYBODY = "*"


class Access(NamedTuple):
    """`path` is handed out to `client`."""

    path: str
    client: str
    writes: bool


def plain_client(name: str) -> str:
    """One address without its network's length; ANYBODY for no name."""
    return re.sub(r"/32$" if "." in name else r"/128$", "", name.strip()) or ANYBODY
