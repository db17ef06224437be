"""The export software of the toy storage: hands out directories over TCP, one JSON object a line.

`python toy_server.py PORT DIRECTORY`: grants are the files *.json in DIRECTORY, read at the start and on `reload`,
which ends the sessions of those that are gone. A grant: path, client, secret, writes.
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading
from pathlib import Path
from typing import Any

LOCK = threading.Lock()
LIVE: dict[str, dict[str, Any]] = {}
SESSIONS: dict[Any, str] = {}


def reload(directory: Path) -> None:
    """What the files say; sessions of what they do not say any more are ended."""
    with LOCK:
        LIVE.clear()
        LIVE.update({file.name: json.loads(file.read_text()) for file in sorted(directory.glob("*.json"))})
        for session, name in list(SESSIONS.items()):
            if session.grant != LIVE.get(name):
                session.closed = True


class Session(socketserver.StreamRequestHandler):
    """One connection."""

    grant: dict[str, Any] | None = None
    closed = False

    def handle(self) -> None:
        """Until it hangs up."""
        for line in self.rfile:
            asked = json.loads(line)
            with LOCK:
                if self.closed:
                    return
            answer = self.control(asked["control"]) if "control" in asked else self.serve(asked)
            self.wfile.write(json.dumps(answer).encode() + b"\n")
            if not answer["ok"]:
                return

    def control(self, word: str) -> dict[str, Any]:
        """For the storage host itself."""
        if word == "reload":
            reload(Path(sys.argv[2]))
        with LOCK:
            return {"ok": True, "live": {name: dict(grant) for name, grant in LIVE.items()}}

    def serve(self, asked: dict[str, Any]) -> dict[str, Any]:
        """For a client."""
        with LOCK:
            if asked["op"] == "open":
                for name, grant in LIVE.items():
                    if all(grant[word] == asked[word] for word in ("path", "client", "secret")):
                        self.grant, SESSIONS[self] = grant, name
                return {"ok": self.grant is not None}
            if self.grant is None or self.closed:
                return {"ok": False}
            file = Path(self.grant["path"]) / asked["name"]
            if asked["op"] == "read":
                return {"ok": True, "text": file.read_text()}
            if not self.grant["writes"]:
                return {"ok": False}
            file.write_text(asked["text"])
            return {"ok": True}


class Server(socketserver.ThreadingTCPServer):
    """On loopback."""

    allow_reuse_address = True
    daemon_threads = True


if __name__ == "__main__":
    reload(Path(sys.argv[2]))
    Server(("127.0.0.1", int(sys.argv[1])), Session).serve_forever()
