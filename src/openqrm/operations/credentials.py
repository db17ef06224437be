"""Who calls: passwords, API tokens and sessions, turned into an `Actor`.

Keys for programs look like `oq_…`, sessions of people like `oqs_…`. Of a token only the SHA-256 is stored: it has 256
random bits, so a slow hash would protect nothing and cost every call. Looking a hash up by equality in an index leaks
nothing about the key either, because a caller cannot choose hashes; the final comparison is constant-time all the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from itsdangerous import BadData, URLSafeTimedSerializer

from openqrm.domain.errors import ConflictError, UnauthenticatedError, UnavailableError, UnsupportedError
from openqrm.domain.event import Severity
from openqrm.domain.user import Actor, EndedSession, Token, User, UserRole
from openqrm.operations.passwords import Passwords, generated
from openqrm.operations.throttle import Throttle

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from openqrm.plugin_api.records import Reader, Writer
    from openqrm.store.commits import Commit

TOKEN_PREFIX = "oq_"  # noqa: S105 - marks keys so that people and secret scanners know them
SESSION_PREFIX = "oqs_"
CACHE_SECONDS = 10.0
"""How long another controller's change of a user or token may go unnoticed; our own is noticed at once."""
CACHE_ENTRIES = 10_000
SESSION_SECONDS = 12 * 3600
USED_EVERY = timedelta(minutes=10)
"""`last_used_at` is written at most this often."""
SESSION_KEY = "session-signing-key"
"""The name of the secret that signs sessions."""

_passwords = Passwords()


class AuthDatabase(Protocol):
    """What authentication needs of the database."""

    def read(self) -> AbstractContextManager[Reader]:
        """A consistent read."""

    def write(self) -> AbstractContextManager[Writer]:
        """A transaction."""

    def on_commit(self, callback: Callable[[Commit], None]) -> Callable[[], None]:
        """Call back after commits."""


def use_passwords(passwords: Passwords) -> None:
    """Set the cost of hashes for this process; tests use a cheap one."""
    global _passwords  # noqa: PLW0603 - one cost per process, set before anything is served
    _passwords = passwords


FIRST_ADMIN = "admin"


def hash_password(password: str) -> str:
    """The argon2id hash of a password."""
    return _passwords.hash(password)


def new_token() -> tuple[str, str]:
    """A key for programs and what is stored of it."""
    key = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return key, token_digest(key)


def token_digest(key: str) -> str:
    """What is stored of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def verify_password(stored: str | None, password: str) -> bool:
    """Whether a password is the one that was stored."""
    return _passwords.verify(stored, password)


def create_first_admin(writer: Writer, name: str = FIRST_ADMIN) -> str:
    """Make the first administrator and the key that signs sessions; returns the password, which is shown once.

    ConflictError when there are users already.
    """
    if writer.count(User):
        raise ConflictError("there are users already", remedy="log in as one of them")
    password = generated()
    user = writer.insert(User(name=name, role=UserRole.ADMIN, password_hash=hash_password(password)))
    writer.put_secret(SESSION_KEY, secrets.token_urlsafe(32))
    writer.event(f"first administrator {name} made", severity=Severity.NOTICE, source="core", about=user)
    return password


@dataclass(frozen=True)
class _Known:
    actor: Actor
    until: float


class Authenticator:
    """Turns an `Authorization` header into an `Actor`, cheaply for those seen a moment ago. Thread-safe, blocking."""

    def __init__(
        self, database: AuthDatabase, session_key: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._throttle = Throttle(clock)
        self._sessions = URLSafeTimedSerializer(session_key, salt="session")
        self._pepper = secrets.token_bytes(32)
        self._known: dict[bytes, _Known] = {}
        self._generation = 0
        self._guard = threading.Lock()
        self._noting = threading.local()
        self.stop = database.on_commit(self._committed)

    def cached(self, header: str | None) -> Actor | None:
        """The actor of a header seen within `CACHE_SECONDS`; never blocks, so it may be asked from an event loop."""
        known = self._known.get(self._mark(header)) if header else None
        return known.actor if known is not None and known.until > self._clock() else None

    def authenticate(self, header: str | None, address: str = "") -> Actor:
        """The actor. `address` is the caller's, for throttling. UnauthenticatedError, UnavailableError."""
        actor = self.cached(header)
        if actor is not None:
            return actor
        generation = self._generation
        scheme, _, value = (header or "").strip().partition(" ")
        actor = self._resolve(scheme.lower(), value.strip(), address)
        self._remember(header or "", actor, generation)
        return actor

    def login(self, name: str, password: str, address: str = "") -> tuple[Actor, str]:
        """The actor and the key of a new session. UnauthenticatedError, also while too many failures wait."""
        user = self._check(name, password, address)
        key = SESSION_PREFIX + str(self._sessions.dumps([user.id, _session_mark(user), secrets.token_urlsafe(9)]))
        return _actor(user), key

    def logout(self, header: str | None) -> None:
        """End the session of a header, at every controller. UnauthenticatedError; UnsupportedError for other keys."""
        scheme, _, value = (header or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not value.strip().startswith(SESSION_PREFIX):
            raise UnsupportedError(
                "only a session can be ended by a logout", remedy="an API token: openqrm token remove"
            )
        actor = self._by_session(value.strip().removeprefix(SESSION_PREFIX))
        with self._database.write() as writer:
            ends = writer.now + timedelta(seconds=SESSION_SECONDS)
            writer.insert(EndedSession(session_hash=token_digest(value.strip()), expires_at=ends))
            writer.event(f"{actor.name} logged out", severity=Severity.INFO, source="core", actor=actor.name)

    def _resolve(self, scheme: str, value: str, address: str) -> Actor:
        if scheme == "bearer" and value.startswith(SESSION_PREFIX):
            return self._by_session(value.removeprefix(SESSION_PREFIX))
        if scheme == "bearer" and value.startswith(TOKEN_PREFIX):
            return self._by_token(value)
        if scheme == "basic":
            with suppress(binascii.Error, UnicodeDecodeError):
                name, colon, password = base64.b64decode(value, validate=True).decode().partition(":")
                if colon:
                    return _actor(self._check(name, password, address))
        raise _refused("no valid credentials were given")

    def _by_token(self, key: str) -> Actor:
        digest = token_digest(key)
        with self._database.read() as reader:
            token = reader.one(Token, token_hash=digest)
            if token is None or not hmac.compare_digest(token.token_hash, digest):
                raise _refused("this token is not known")
            if token.expires_at is not None and token.expires_at <= reader.now:
                raise _refused("this token has expired")
            user = reader.get(User, token.user_id)
            unused = token.last_used_at is None or reader.now - token.last_used_at >= USED_EVERY
        actor = _enabled(user)
        if unused:
            self._note_use(token)
        return actor

    def _note_use(self, token: Token) -> None:
        self._noting.active = True  # this commit says nothing new about anyone
        try:
            with suppress(UnavailableError), self._database.write() as writer:
                found = writer.one(Token, id=token.id)
                if found is not None:
                    writer.update(found, last_used_at=writer.now)
        finally:
            self._noting.active = False

    def _by_session(self, signed: str) -> Actor:
        try:
            user_id, mark, _ = self._sessions.loads(signed, max_age=SESSION_SECONDS)
        except (BadData, ValueError, TypeError) as error:
            raise _refused("this session has ended") from error
        with self._database.read() as reader:
            user = reader.one(User, id=user_id)
            ended = reader.one(EndedSession, session_hash=token_digest(SESSION_PREFIX + signed))
        if ended is not None or user is None or not hmac.compare_digest(str(mark), _session_mark(user)):
            raise _refused("this session has ended")
        return _enabled(user)

    def _check(self, name: str, password: str, address: str) -> User:
        known = name[:63]
        wait = self._throttle.wait(known, address)
        if wait > 0:
            raise _refused(f"too many wrong passwords; try again in {math.ceil(wait)} s")
        user = self._user(name)
        if not _passwords.verify(user.password_hash if user else None, password) or user is None:
            self._throttle.failed(known, address)
            raise _refused("name or password is wrong")
        self._throttle.succeeded(known, address)
        _enabled(user)
        if _passwords.outdated(user.password_hash):
            with self._database.write() as writer:
                user = writer.update(user, password_hash=hash_password(password))
        return user

    def _user(self, name: str) -> User | None:
        if not name or "\x00" in name:
            return None
        with self._database.read() as reader:
            return reader.one(User, name=name)

    def _mark(self, header: str) -> bytes:
        """What the cache knows a header by; a memory dump shows no key."""
        return hmac.digest(self._pepper, header.encode("utf-8", "replace"), "sha256")

    def _remember(self, header: str, actor: Actor, generation: int) -> None:
        with self._guard:
            if generation != self._generation:
                return  # a user or token changed while we looked
            if len(self._known) >= CACHE_ENTRIES:
                self._known = {}
            self._known[self._mark(header)] = _Known(actor, self._clock() + CACHE_SECONDS)

    def _committed(self, commit: Commit) -> None:
        ours = getattr(self._noting, "active", False)
        if not ours and any(entity in ("user", "token", "ended-session") for entity, _ in commit.touched):
            with self._guard:
                self._generation += 1
                self._known = {}


def _actor(user: User) -> Actor:
    return Actor(name=user.name, role=user.role, user_id=user.id)


def _enabled(user: User) -> Actor:
    if not user.enabled:
        raise _refused("this user is locked out")
    return _actor(user)


def _session_mark(user: User) -> str:
    """Changes with the password, so that a new password ends the sessions that came before."""
    return hashlib.sha256(f"{user.id}:{user.password_hash}".encode()).hexdigest()[:32]


def _refused(detail: str) -> UnauthenticatedError:
    return UnauthenticatedError(detail, remedy="openqrm login, or an API token: Authorization: Bearer oq_…")
