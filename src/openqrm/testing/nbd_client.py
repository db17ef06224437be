"""An NBD client over TLS with a pre-shared key, by qemu-io (Debian: qemu-utils): it needs no kernel module.

Run as a program, with the secret of the grant on standard input: `python nbd_client.py SERVER PORTS EXPORT read OFFSET`
prints the block at OFFSET (bytes); `... write OFFSET TEXT`; `... count OFFSET` writes a counter without end on one
session. PORTS are tried in turn, as machines do.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BLOCK_BYTES = 4096
REMOUNT_EVERY = 25
_HEX_LINE = re.compile(r"^[0-9a-f]{8,}: {2}((?:[0-9a-f]{2} )+)", re.MULTILINE)
_DEATH_SIGNAL = 1


@dataclass(frozen=True)
class Server:
    """An export at a port. `keys` is a directory with the key."""

    host: str
    port: str
    export: str
    keys: Path

    def command(self) -> list[str]:
        """qemu-io on it, which takes commands from its input; a lost session is made anew, but no request waits."""
        options = f"driver=nbd,server.type=inet,server.host={self.host},server.port={self.port},export={self.export}"
        credentials = f"tls-creds-psk,id=tls,dir={self.keys},username={self.export},endpoint=client"
        return ["qemu-io", "--object", credentials, "--image-opts", f"{options},tls-creds=tls,reconnect-delay=0"]

    def do(self, *commands: str) -> str:
        """The output of commands on a session of their own. OSError when the server refuses one."""
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run([*self.command(), *words], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        output = done.stdout.decode()
        if done.returncode or "failed" in output:
            raise OSError(done.stderr.decode() or output)
        return output


def with_key(host: str, ports: str, export: str, secret: str, directory: str) -> Server:
    """The port that serves the export to who knows the secret. OSError when there is none."""
    keys = Path(directory)
    file = keys / "keys.psk"
    file.touch(mode=0o600)
    file.write_text(f"{export}:{hashlib.sha256(secret.encode()).hexdigest()}\n", encoding="ascii")
    for port in ports.split():
        server = Server(host, port, export, keys)
        try:
            server.do("length")
        except OSError as error:
            print(error, file=sys.stderr)
            continue
        return server
    raise ConnectionError(f"{host} does not serve {export}")


def block_at(server: Server, offset: int) -> bytes:
    """OSError when the server refuses."""
    output = server.do(f"read -v {offset} {BLOCK_BYTES}")
    return b"".join(bytes.fromhex(line) for line in _HEX_LINE.findall(output))


def put(server: Server, offset: int, text: str) -> None:
    """To the server's disk. OSError when it refuses."""
    pattern = server.keys / "pattern"
    pattern.write_bytes(text.encode().ljust(BLOCK_BYTES, b"\0"))
    server.do(f"write -f -s {pattern} {offset} {BLOCK_BYTES}")


def count(server: Server, offset: int) -> None:
    """For ever, whatever errors it meets; after some of them on a new session."""
    number, failed, session = 0, 0, _session(server)
    pattern = server.keys / "pattern"
    while True:
        number += 1
        pattern.write_bytes((b"%019d\n" % number).ljust(BLOCK_BYTES, b"\0"))
        if _write(session, f"write -f -s {pattern} {offset} {BLOCK_BYTES}\n"):
            failed = 0
            continue
        failed += 1
        time.sleep(0.02)
        if failed % REMOUNT_EVERY == 0 or session.poll() is not None:
            session.kill()
            session.wait()
            session = _session(server)


def _session(server: Server) -> subprocess.Popen[str]:
    """It dies with this process, whatever it is doing."""
    command = ["stdbuf", "-oL", *server.command()]
    pipe = subprocess.PIPE
    libc = ctypes.CDLL(None)
    return subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: libc.prctl(_DEATH_SIGNAL, signal.SIGKILL),  # noqa: PLW1509  # one thread
    )


def _write(session: subprocess.Popen[str], command: str) -> bool:
    """Whether the server took it."""
    assert session.stdin is not None and session.stdout is not None  # noqa: S101, PT018  # both are pipes
    try:
        session.stdin.write(command)
        session.stdin.flush()
    except OSError:
        return False
    for line in session.stdout:
        if "ops;" in line:
            return True
        if "failed" in line or "can't" in line:
            return False
    return False


def main(host: str, ports: str, export: str, verb: str, offset: int, text: str = "") -> None:
    """OSError when the server refuses."""
    with tempfile.TemporaryDirectory(prefix="nbd-client-") as directory:
        server = with_key(host, ports, export, sys.stdin.read(), directory)
        if verb == "read":
            sys.stdout.buffer.write(block_at(server, offset))
        elif verb == "write":
            put(server, offset, text)
        else:
            count(server, offset)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:7])
