"""Commands to the system's log: each as one line of JSON under the name `openqrm-command`.

On a systemd system /dev/log is the journal (`journalctl -t openqrm-command`), elsewhere it is syslog. Without /dev/log
the lines go to standard error with everything else.
"""

from __future__ import annotations

import logging
import queue
from contextlib import contextmanager
from logging.handlers import QueueHandler, QueueListener, SysLogHandler
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = Path("/dev/log")
IDENT = "openqrm-command"
WAITING = 10_000
"""Lines that wait for a slow log daemon, which must not hold the controller up; more are lost, with a word about it."""


class _Patient(QueueHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        del record
        logging.getLogger(__name__).warning("the system's log takes no lines; some commands are not logged")


class _Sink(SysLogHandler):
    append_nul = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        logging.getLogger(__name__).warning("the system's log is away: %s", record.getMessage())


@contextmanager
def commands_to_syslog(socket: Path = SOCKET, name: str = "openqrm.command") -> Iterator[None]:
    """While it is open, the lines of logger `name` go to the system's log, and no longer to standard error."""
    if not socket.exists():
        yield
        return
    logger = logging.getLogger(name)
    sink = _Sink(str(socket), SysLogHandler.LOG_DAEMON)
    sink.setFormatter(logging.Formatter(f"{IDENT}: %(message)s"))
    lines: queue.Queue[logging.LogRecord] = queue.Queue(WAITING)
    handler, listener = _Patient(lines), QueueListener(lines, sink)
    propagated, logger.propagate = logger.propagate, False
    level = logger.level
    logger.setLevel(logging.INFO)  # every command, however little else is logged
    logger.addHandler(handler)
    listener.start()
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated
        logger.setLevel(level)
        listener.stop()
        sink.close()
