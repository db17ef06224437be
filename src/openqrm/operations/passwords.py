"""Passwords as argon2id hashes (RFC 9106), and the first administrator's."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError


@dataclass(frozen=True)
class Cost:
    """What one hash costs: memory in KiB, passes over it, threads."""

    memory_kib: int = 19 * 1024
    passes: int = 2
    threads: int = 1


STRONG = Cost()
"""OWASP's recommendation for argon2id: 19 MiB, two passes. About 20 ms here, so that logins cannot starve the rest."""
CHEAP = Cost(memory_kib=64, passes=1)
"""For tests only."""
AT_ONCE = 2
"""Hashes computed at the same time; more logins wait, and memory stays bounded."""

MINIMUM = 8
"""Characters of the shortest password: of users, and of root in images."""
ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""No characters that are easily taken for others."""


class Passwords:
    """Hashes and verifies with one cost."""

    def __init__(self, cost: Cost = STRONG) -> None:
        self._hasher = PasswordHasher(time_cost=cost.passes, memory_cost=cost.memory_kib, parallelism=cost.threads)
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._nobody = self._hasher.hash(secrets.token_hex(8))

    def hash(self, password: str) -> str:
        """The hash with its salt and cost."""
        with self._slots:
            return self._hasher.hash(password)

    def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is right. Without a stored hash it takes as long and is wrong."""
        with self._slots:
            try:
                return self._hasher.verify(stored or self._nobody, password) and bool(stored)
            except (VerificationError, InvalidHashError):
                return False

    def outdated(self, stored: str) -> bool:
        """Whether a hash was made with another cost and should be made anew at the next login."""
        return self._hasher.check_needs_rehash(stored)


def generated() -> str:
    """A password of 20 characters, about 99 bits, in groups that can be read aloud."""
    letters = [secrets.choice(ALPHABET) for _ in range(20)]
    return "-".join("".join(letters[start : start + 5]) for start in range(0, 20, 5))
