"""HTTP to the server, over TCP or a Unix socket, with one connection kept open."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from openqrm import __version__
from openqrm.cli.failures import UNREACHABLE, USAGE, CliError, of_answer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from openqrm.cli.settings import Settings

SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """Status, headers in lower case, and the body as data (None when it is empty)."""

    status: int
    headers: Mapping[str, str]
    data: Any = field(repr=False)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with TLS inside when a context is given."""

    def __init__(self, path: str, context: ssl.SSLContext | None, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._context = context

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        sock.connect(self._path)
        self.sock = self._context.wrap_socket(sock, server_hostname="localhost") if self._context else sock


class Client:
    """`request` raises CliError for everything but success and 304. `seconds`: how long an answer may take."""

    def __init__(self, settings: Settings, seconds: float = SECONDS) -> None:
        self.settings = settings
        self._seconds = seconds
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request and its whole answer."""
        response = self._send(method, path, body, headers or {})
        try:
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        data = self._data(response, raw)
        if response.status >= 400:
            raise of_answer(response.status, data if isinstance(data, dict) else {})
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, data)

    def lines(self, path: str, headers: Mapping[str, str]) -> Iterator[str]:
        """The lines of an answer that does not end, as they come."""
        response = self._send("GET", path, None, headers)
        if response.status >= 400:
            data = self._data(response, response.read())
            raise of_answer(response.status, data if isinstance(data, dict) else {})
        try:
            while line := response.readline():
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException):
            return

    def close(self) -> None:
        """Let the connection go."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _send(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        sent = {"Accept": "application/json", "User-Agent": f"openqrm-cli/{__version__}", **headers}
        if self.settings.token:
            sent["Authorization"] = f"Bearer {self.settings.token}"
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        fresh = self._connection is None
        try:
            return self._exchange(method, path, raw, sent)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if fresh or method != "GET":
                raise self._away(error) from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._away(error) from error
        try:
            return self._exchange(method, path, raw, sent)
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error

    def _exchange(self, method: str, path: str, raw: bytes | None, sent: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = _connection(self.settings, self._seconds)
        self._connection.request(method, path, raw, sent)
        return self._connection.getresponse()

    def _data(self, response: http.client.HTTPResponse, raw: bytes) -> Any:
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError as error:
            text = f"{self.settings.url} does not speak openQRM: it answered {response.status}"
            raise CliError(text, UNREACHABLE, remedy="check OPENQRM_URL") from error

    def _away(self, error: Exception) -> CliError:
        remedy = "is the server running, and is OPENQRM_URL right?"
        if isinstance(error, ssl.SSLCertVerificationError):
            remedy = "name the installation's authority: openqrm login --ca FILE, or OPENQRM_CA"
        return CliError(f"{self.settings.url} does not answer: {error}", UNREACHABLE, remedy=remedy)


def _connection(settings: Settings, seconds: float) -> http.client.HTTPConnection:
    parts = urlsplit(settings.url)
    if parts.scheme in ("unix", "http+unix"):
        context = None if parts.scheme == "http+unix" else _context(settings, named=False)
        return _UnixConnection(parts.path, context, seconds)
    if parts.scheme == "https" and parts.hostname:
        return http.client.HTTPSConnection(
            parts.hostname, parts.port or 443, timeout=seconds, context=_context(settings, named=True)
        )
    if parts.scheme == "http" and parts.hostname:
        return http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=seconds)
    raise CliError(f"{settings.url} is no URL of a server", USAGE, remedy="https://HOST:8443 or unix:///PATH")


def _context(settings: Settings, *, named: bool) -> ssl.SSLContext:
    """TLS with the installation's own authority. On a Unix socket the file's rights stand for the host name."""
    try:
        context = ssl.create_default_context(cafile=settings.ca or None)
    except (OSError, ssl.SSLError) as error:
        raise CliError(f"{settings.ca}: {error}", USAGE, remedy="name a PEM file with --ca or OPENQRM_CA") from error
    context.check_hostname = named
    return context
