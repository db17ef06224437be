"""An iSCSI initiator for tests, by libiscsi (Debian: libiscsi7) and nothing else: it runs in any network namespace.

Run as a program: `python iscsi_client.py PORTAL TARGET LUN INITIATOR USER read|write|count [TEXT]`, the CHAP secret on
standard input. `count` writes a growing number without end, whatever errors it meets: what a revoked machine does. It
holds one session; when a write fails it goes on with it, and now and then logs in anew.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import time

SECTOR, BLOCK = 512, 4096
MARK_AT, COUNTER_AT = 1 << 20, 2 << 20
"""As in `openqrm.testing.access`, which this program does not import: it starts quickly."""
SECONDS = 4
LOG_IN_EVERY = 5
NORMAL_SESSION, NO_DIGEST = 2, 0


class Buffer(ctypes.Structure):
    """struct scsi_iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Session:
    """One login. OSError when it is refused, or nobody answers."""

    def __init__(self, portal: str, target: str, lun: str, initiator: str, user: str, secret: str) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("iscsi") or "libiscsi.so.7")
        for name in ("iscsi_create_context", "iscsi_write10_sync", "iscsi_read10_iov_sync"):
            getattr(self._library, name).restype = ctypes.c_void_p
        self._library.iscsi_get_error.restype = ctypes.c_char_p
        self._lun = int(lun)
        self._context = ctypes.c_void_p(self._library.iscsi_create_context(initiator.encode()))
        self._library.iscsi_set_targetname(self._context, target.encode())
        self._library.iscsi_set_session_type(self._context, NORMAL_SESSION)
        self._library.iscsi_set_header_digest(self._context, NO_DIGEST)
        self._library.iscsi_set_initiator_username_pwd(self._context, user.encode(), secret.encode())
        self._library.iscsi_set_timeout(self._context, SECONDS)
        self._library.iscsi_set_noautoreconnect(self._context, 1)
        if self._library.iscsi_full_connect_sync(self._context, portal.encode(), self._lun) != 0:
            error = self._library.iscsi_get_error(self._context).decode(errors="replace")
            self.close()
            raise OSError(error)

    def close(self) -> None:
        """Without a word to the server: what it has of this session ends with the connection."""
        self._library.iscsi_destroy_context(self._context)

    def write(self, place: int, data: bytes) -> bool:
        """To the disk itself (force unit access); whether the server took it."""
        arguments = (self._lun, place // SECTOR, data, len(data), SECTOR, 0, 0, 1, 0, 0)
        return self._ended(self._library.iscsi_write10_sync(self._context, *arguments))

    def read(self, place: int, length: int) -> bytes | None:
        """What is there, past the server's cache; None when the server refuses."""
        data = ctypes.create_string_buffer(length)
        buffer = Buffer(ctypes.cast(data, ctypes.c_void_p), length)
        arguments = (self._lun, place // SECTOR, length, SECTOR, 0, 0, 1, 0, 0, ctypes.byref(buffer), 1)
        return data.raw if self._ended(self._library.iscsi_read10_iov_sync(self._context, *arguments)) else None

    def _ended(self, task: int | None) -> bool:
        """A task's first field is its status, 0 for good."""
        if not task:
            return False
        status = ctypes.cast(task, ctypes.POINTER(ctypes.c_int)).contents.value
        self._library.scsi_free_scsi_task(ctypes.c_void_p(task))
        return status == 0


def count(words: tuple[str, ...]) -> None:
    """Write for ever. OSError when there is no login at first."""
    session = Session(*words)
    number = failed = 0
    while True:
        number += 1
        if session.write(COUNTER_AT, b"%019d" % number + b"\0" * (BLOCK - 19)):
            failed = 0
            continue
        failed += 1
        time.sleep(0.05)
        if failed % LOG_IN_EVERY == 0:
            try:
                again = Session(*words)
            except OSError as error:
                print(error, file=sys.stderr, flush=True)
            else:
                session.close()
                session = again


def main(*words: str) -> int:
    """Exit status 0 when the server did what was asked."""
    given, verb, text = words[:5], words[5], words[6:]
    parts = (*given, sys.stdin.read())
    if verb == "count":
        count(parts)
    session = Session(*parts)
    if verb == "write":
        return 0 if session.write(MARK_AT, text[0].encode().ljust(BLOCK, b"\0")) else 1
    found = session.read(MARK_AT, BLOCK)
    sys.stdout.write((found or b"").decode(errors="replace"))
    return 1 if found is None else 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except OSError as refused:
        sys.exit(str(refused))
