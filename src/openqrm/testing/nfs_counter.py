"""A client that writes a counter to a file over NFSv4 without end, and never gives up: what a revoked machine does.

Run as a program: `python nfs_counter.py SERVER EXPORT FILE`; with a TEXT as fourth word it writes that once to a file
that is there, and fails when the server refuses it. Uses libnfs (Debian: libnfs13) and nothing else, so that
it can run in any network namespace. The process holds one session and one open file; when a write fails it goes on with
the same open file, and now and then tries to open it anew, or to mount anew (libnfs renews no lease by itself).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
import time

O_FLAGS = os.O_RDWR | os.O_SYNC
REOPEN_EVERY, REMOUNT_EVERY = 10, 25


class Writer:
    """One open file on one mount. OSError when it cannot be mounted or opened."""

    def __init__(self, server: str, export: str, name: str, *, create: bool = True) -> None:
        self._library = ctypes.CDLL(ctypes.util.find_library("nfs") or "libnfs.so.13")
        self._library.nfs_init_context.restype = ctypes.c_void_p
        self._library.nfs_get_error.restype = ctypes.c_char_p
        self._context = ctypes.c_void_p(self._library.nfs_init_context())
        self._handle = ctypes.c_void_p()
        self._name = name.encode()
        self._library.nfs_set_version(self._context, 4)
        self._library.nfs_set_timeout(self._context, 1000)
        if self._library.nfs_mount(self._context, server.encode(), export.encode()) != 0:
            raise OSError(self._library.nfs_get_error(self._context).decode())
        try:
            self.reopen()
        except OSError:
            if not create:
                raise
            self.reopen(os.O_CREAT)  # libnfs creates exclusively: only for a file that is not there

    def reopen(self, more_flags: int = 0) -> None:
        """The same file again, on the same mount."""
        handle = ctypes.c_void_p()
        if self._library.nfs_open(self._context, self._name, O_FLAGS | more_flags, ctypes.byref(handle)) != 0:
            raise OSError(self._library.nfs_get_error(self._context).decode())
        self._handle = handle

    def write(self, text: bytes) -> bool:
        """At the file's beginning; whether the server took all of it."""
        size = ctypes.c_uint64(len(text))
        written = self._library.nfs_pwrite(self._context, self._handle, ctypes.c_uint64(0), size, text)
        return bool(written == len(text))


def main(server: str, export: str, name: str) -> None:
    """Write for ever. OSError when the export cannot be mounted at first."""
    writer = Writer(server, export, name)
    number = failed = 0
    while True:
        number += 1
        if writer.write(b"%019d\n" % number):
            failed = 0
            continue
        failed += 1
        time.sleep(0.02)
        try:
            if failed % REMOUNT_EVERY == 0:
                writer = Writer(server, export, name)
            elif failed % REOPEN_EVERY == 0:
                writer.reopen()
        except OSError as error:
            print(error, file=sys.stderr, flush=True)


def write_once(server: str, export: str, name: str, text: str) -> None:
    """Replace the beginning of a file. OSError when the server refuses."""
    if not Writer(server, export, name, create=False).write(text.encode()):
        raise OSError(f"{name} was not written")


if __name__ == "__main__":
    if len(sys.argv) == 5:
        write_once(*sys.argv[1:5])
    else:
        main(*sys.argv[1:4])
