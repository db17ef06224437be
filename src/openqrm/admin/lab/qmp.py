"""A few words of QMP, QEMU's machine protocol (docs/interop/qmp-spec): enough for power."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from .errors import LabError

if TYPE_CHECKING:
    from pathlib import Path


def execute(path: Path, command: str, timeout: float = 10.0) -> Any:
    """Run one QMP command at the Unix socket `path` and return its answer. `timeout` in seconds. Raises LabError."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout)
            connection.connect(str(path))
            with connection.makefile("rw", encoding="utf-8") as stream:
                json.loads(stream.readline())  # greeting
                for verb in ("qmp_capabilities", command):
                    stream.write(json.dumps({"execute": verb}) + "\n")
                    stream.flush()
                    answer = _answer(stream)
                return answer
    except (OSError, ValueError) as error:
        raise LabError(f"the machine behind {path} does not answer: {error}") from error


def _answer(stream: Any) -> Any:
    for line in stream:
        message = json.loads(line)
        if "error" in message:
            raise LabError(f"QEMU refuses: {message['error'].get('desc')}")
        if "return" in message:  # anything else is an event
            return message["return"]
    raise LabError("QEMU closed the connection")
