"""Clients of the toy export, as threads of the test itself; a link that is down is a client that does not send."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from openqrm.testing.access import COUNTER, MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from openqrm.plugin_api.drivers import Client

PATIENCE = 5.0
REOPEN_EVERY = 5


class ToySession:
    """One connection. OSError when it cannot be opened."""

    def __init__(self, attach: Mapping[str, str], address: str, secret: str) -> None:
        self._link = socket.create_connection(("127.0.0.1", int(attach["ROOT_PORT"])), PATIENCE)
        self._file = self._link.makefile()
        if not self.ask(op="open", path=attach["ROOT_PATH"], client=address, secret=secret)["ok"]:
            self.close()
            raise OSError("refused")

    def ask(self, **words: Any) -> dict[str, Any]:
        """One question. OSError when the server hung up."""
        self._link.sendall(json.dumps(words).encode() + b"\n")
        line = self._file.readline()
        if not line:
            raise OSError("the server hung up")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._link.close()


class ToyAccess:
    """An `Access`."""

    def __init__(self) -> None:
        self._down: set[int] = set()
        self._posing: dict[int, str] = {}

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """On a session of its own."""
        try:
            session = self._open(client, attach, secrets)
            answer = session.ask(op="read", name=MARK)
            session.close()
        except OSError:
            return None
        return str(answer["text"]) if answer["ok"] else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """On a session of its own."""
        try:
            session = self._open(client, attach, secrets)
            answer = session.ask(op="write", name=MARK, text=text)
            session.close()
        except OSError:
            return False
        return bool(answer["ok"])

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """In a thread."""
        ended = threading.Event()
        first = self._open(client, attach, secrets)
        given = (client, attach, secrets)
        thread = threading.Thread(target=self._count, args=(first, given, ended), daemon=True)
        thread.start()

        def stop() -> None:
            ended.set()
            thread.join()

        return stop

    def _count(self, session: ToySession, given: tuple[Any, ...], ended: threading.Event) -> None:
        number = failed = 0
        while not ended.is_set():
            number += 1
            time.sleep(0.01)
            if given[0].resource_id in self._down:
                continue
            try:
                if session.ask(op="write", name=COUNTER, text=str(number))["ok"]:
                    continue
            except OSError:
                pass
            failed += 1
            if failed % REOPEN_EVERY == 0:
                try:
                    session = self._open(*given)
                except OSError:
                    time.sleep(0.1)
        session.close()

    def set_link(self, client: Client, *, up: bool) -> None:
        """The client does not send any more, or does again."""
        (self._down.discard if up else self._down.add)(client.resource_id)

    @contextmanager
    def posing_as(self, impostor: Client, victim: Client) -> Iterator[None]:
        """The impostor says the victim's address."""
        self._posing[impostor.resource_id] = victim.address
        self.set_link(victim, up=False)
        try:
            yield
        finally:
            del self._posing[impostor.resource_id]
            self.set_link(victim, up=True)

    def _open(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> ToySession:
        address = self._posing.get(client.resource_id, client.address)
        return ToySession(attach, address, secrets.get("key", ""))
