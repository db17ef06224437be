"""Passwords, tokens and sessions."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import ConflictError, UnauthenticatedError, UnsupportedError
from openqrm.domain.user import Actor, Token, User, UserRole
from openqrm.operations import credentials
from openqrm.operations.credentials import (
    CACHE_SECONDS,
    Authenticator,
    create_first_admin,
    hash_password,
    new_token,
    use_passwords,
)
from openqrm.operations.passwords import CHEAP, STRONG, Passwords
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    def utc(self) -> datetime:
        """The same moment as a date."""
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)


@pytest.fixture(autouse=True)
def _cheap() -> Iterator[None]:
    use_passwords(Passwords(CHEAP))
    yield
    use_passwords(Passwords(STRONG))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(clock: Clock) -> MemoryDatabase:
    return MemoryDatabase(clock=clock.utc)


@pytest.fixture
def authenticator(database: MemoryDatabase, clock: Clock) -> Authenticator:
    return Authenticator(database, "key", clock=clock)


def make_user(database: MemoryDatabase, **fields: object) -> User:
    with database.write() as writer:
        return writer.insert(
            User.model_validate({"name": "ann", "role": "operator", "password_hash": hash_password("right"), **fields})
        )


def make_token(database: MemoryDatabase, user: User, expires_at: datetime | None = None) -> tuple[str, Token]:
    key, digest = new_token()
    with database.write() as writer:
        return key, writer.insert(Token(name="t", user_id=user.id, token_hash=digest, expires_at=expires_at))


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_first_admin_once(database: MemoryDatabase) -> None:
    with database.write() as writer:
        password = create_first_admin(writer)
    with database.write() as writer, pytest.raises(ConflictError):
        create_first_admin(writer)
    with database.read() as reader:
        key = reader.get_secret(credentials.SESSION_KEY)
    actor, _ = Authenticator(database, key).login("admin", password)
    assert (actor.name, actor.role) == ("admin", UserRole.ADMIN)


def test_hash_is_argon2id_and_salted() -> None:
    assert hash_password("x").startswith("$argon2id$")
    assert hash_password("x") != hash_password("x")


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer x", "Bearer oq_wrong", "Bearer oqs_wrong", "Basic !!!", "Basic eA==", "Digest x",
     basic("ann", "wrong"), basic("bob", "right"), basic("a\x00", "right"), "Bearer oq_\udcff"],
)  # fmt: skip
def test_wrong_headers_are_refused(database: MemoryDatabase, authenticator: Authenticator, header: str | None) -> None:
    make_user(database)
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate(header)


def test_a_token_speaks_for_its_user(database: MemoryDatabase, authenticator: Authenticator) -> None:
    user = make_user(database)
    key, token = make_token(database, user)
    assert key.startswith("oq_")
    expected = Actor("ann", UserRole.OPERATOR, user.id)
    assert authenticator.authenticate(f"Bearer {key}") == expected
    assert authenticator.cached(f"Bearer {key}") == expected
    with database.read() as reader:
        stored = reader.get(Token, token.id)
    assert stored.last_used_at == reader.now
    assert key not in repr(stored)


def test_a_token_expires_and_the_cache_does_not_outlive_it_long(
    database: MemoryDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    key, _ = make_token(database, make_user(database), clock.utc() + timedelta(seconds=5))
    authenticator.authenticate(f"Bearer {key}")
    clock.seconds = CACHE_SECONDS + 0.1
    assert authenticator.cached(f"Bearer {key}") is None
    with pytest.raises(UnauthenticatedError, match="expired"):
        authenticator.authenticate(f"Bearer {key}")


def test_a_removed_token_and_a_locked_user_are_refused_at_once(
    database: MemoryDatabase, authenticator: Authenticator
) -> None:
    user = make_user(database)
    key, token = make_token(database, user)
    authenticator.authenticate(f"Bearer {key}")
    with database.write() as writer:
        locked = writer.update(user, enabled=False)
    with pytest.raises(UnauthenticatedError, match="locked out"):
        authenticator.authenticate(f"Bearer {key}")
    with database.write() as writer:
        writer.update(locked, enabled=True)
        writer.delete(Token, token.id)
    with pytest.raises(UnauthenticatedError, match="not known"):
        authenticator.authenticate(f"Bearer {key}")


def test_a_session_ends_with_the_password(database: MemoryDatabase, authenticator: Authenticator) -> None:
    user = make_user(database)
    actor, session = authenticator.login("ann", "right")
    assert authenticator.authenticate(f"Bearer {session}") == actor
    with pytest.raises(UnauthenticatedError):
        Authenticator(database, "another key").authenticate(f"Bearer {session}")
    with database.write() as writer:
        writer.update(user, password_hash=hash_password("new"))
    with pytest.raises(UnauthenticatedError, match="ended"):
        authenticator.authenticate(f"Bearer {session}")


def test_guessing_gets_slow_and_the_right_password_waits_too(
    database: MemoryDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    make_user(database)
    for _ in range(5):
        with pytest.raises(UnauthenticatedError, match="wrong"):
            authenticator.login("ann", "guess", "192.0.2.1")
    with pytest.raises(UnauthenticatedError, match="try again in"):
        authenticator.login("ann", "right", "192.0.2.1")
    with pytest.raises(UnauthenticatedError, match="wrong"):
        authenticator.login("bob", "right", "192.0.2.1")
    clock.seconds += 1.5
    assert authenticator.login("ann", "right", "192.0.2.1")[0].name == "ann"
    assert authenticator.login("ann", "right", "192.0.2.1")[0].name == "ann"


def test_guessing_waits_a_minute_at_most_and_is_forgotten(
    database: MemoryDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    make_user(database)
    for _ in range(30):
        clock.seconds += 61
        with pytest.raises(UnauthenticatedError, match="wrong"):
            authenticator.login("ann", "guess")
    clock.seconds += 61
    assert authenticator.login("ann", "right")[0].name == "ann"


def test_an_old_hash_is_made_anew_at_login(database: MemoryDatabase, authenticator: Authenticator) -> None:
    user = make_user(database)
    use_passwords(Passwords(STRONG))
    authenticator.login("ann", "right")
    with database.read() as reader:
        stored = reader.get(User, user.id).password_hash
    assert stored != user.password_hash
    assert "m=19456" in stored


def test_one_attacker_cannot_lock_the_owner_out(
    database: MemoryDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    make_user(database)
    authenticator.login("ann", "right", "192.0.2.7")
    for number in range(300):  # from many addresses, as fast as the name's own pause lets tries through
        clock.seconds += 2
        with pytest.raises(UnauthenticatedError, match="wrong"):
            authenticator.login("ann", "guess", f"198.51.100.{number % 250}")
    assert authenticator.login("ann", "right", "192.0.2.7")[0].name == "ann", "known at this address"
    assert authenticator.login("ann", "right", "")[0].name == "ann", "over the socket"
    with pytest.raises(UnauthenticatedError, match="try again in 2 s"):
        authenticator.login("ann", "right", "192.0.2.8")
    clock.seconds += 2
    assert authenticator.login("ann", "right", "192.0.2.8")[0].name == "ann", "a new address waits two seconds"


def test_one_address_that_tries_many_names_gets_slow(
    database: MemoryDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    make_user(database)
    authenticator.login("ann", "right", "192.0.2.1")
    for number in range(10):
        with pytest.raises(UnauthenticatedError, match="wrong"):
            authenticator.login(f"user{number}", "guess", "192.0.2.1")
    with pytest.raises(UnauthenticatedError, match="try again in"):
        authenticator.login("user99", "guess", "192.0.2.1")
    assert authenticator.login("ann", "right", "192.0.2.1")[0].name == "ann"


def test_a_logout_ends_this_session_alone(database: MemoryDatabase, authenticator: Authenticator) -> None:
    user = make_user(database)
    _, one = authenticator.login("ann", "right")
    _, other = authenticator.login("ann", "right")
    authenticator.authenticate(f"Bearer {one}")
    authenticator.logout(f"Bearer {one}")
    with pytest.raises(UnauthenticatedError, match="ended"):
        authenticator.authenticate(f"Bearer {one}")
    with pytest.raises(UnauthenticatedError, match="ended"):
        Authenticator(database, "key").authenticate(f"Bearer {one}")
    with pytest.raises(UnauthenticatedError):
        authenticator.logout(f"Bearer {one}")
    assert authenticator.authenticate(f"Bearer {other}").name == "ann"
    key, _ = make_token(database, user)
    with pytest.raises(UnsupportedError, match="session"):
        authenticator.logout(f"Bearer {key}")
