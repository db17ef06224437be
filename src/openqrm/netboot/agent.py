"""The agent as one shell script, put together from its parts in `node/agent/`."""

from __future__ import annotations

from importlib import resources

PARTS = ("environment", "inventory", "register", "stream", "orders", "leaving", "services", "image")
"""In the order in which the shell reads them; the last one starts the agent."""


def script() -> bytes:
    """The agent, as machines get it from `/node/v1/files/agent` and as the initramfs carries it."""
    source = resources.files("openqrm").joinpath("node", "agent")
    return b"\n".join(source.joinpath(f"{part}.sh").read_bytes() for part in PARTS)
