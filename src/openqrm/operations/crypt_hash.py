"""SHA-512 crypt, as crypt(3) of Linux understands it.

Source: Ulrich Drepper, "Unix crypt using SHA-256 and SHA-512", 2008; its test vectors are in our tests. Python's own
`crypt` module is gone from 3.13 on.
"""

from __future__ import annotations

import hashlib
import secrets

ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ROUNDS = 5000
"""The rounds a hash without `rounds=` stands for."""


def sha512_crypt(password: str, salt: str | None = None) -> str:
    """`$6$SALT$HASH` of a password, with 16 random characters of salt unless one is given."""
    salted = (salt or "".join(secrets.choice(ALPHABET) for _ in range(16)))[:16]
    return f"$6${salted}${_encoded(_digest(password.encode(), salted.encode()))}"


def _repeated(block: bytes, length: int) -> bytes:
    return (block * (length // len(block) + 1))[:length]


def _digest(key: bytes, salt: bytes) -> bytes:
    length = len(key)
    alternate = hashlib.sha512(key + salt + key).digest()
    first = hashlib.sha512(key + salt + _repeated(alternate, length))
    bits = length
    while bits:
        first.update(alternate if bits & 1 else key)
        bits >>= 1
    final = first.digest()
    p_bytes = _repeated(hashlib.sha512(key * length).digest(), length)
    s_bytes = _repeated(hashlib.sha512(salt * (16 + final[0])).digest(), len(salt))
    for turn in range(ROUNDS):
        mixed = hashlib.sha512(p_bytes if turn & 1 else final)
        if turn % 3:
            mixed.update(s_bytes)
        if turn % 7:
            mixed.update(p_bytes)
        mixed.update(final if turn & 1 else p_bytes)
        final = mixed.digest()
    return final


def _encoded(digest: bytes) -> str:
    """Drepper's base 64: groups of three bytes, 21 apart and rotated, least significant six bits first."""
    text = ""
    first, second, third = 0, 21, 42
    for _ in range(21):
        text += _characters(digest[first] << 16 | digest[second] << 8 | digest[third], 4)
        first, second, third = second + 1, third + 1, first + 1
    return text + _characters(digest[63], 2)


def _characters(number: int, count: int) -> str:
    return "".join(ALPHABET[number >> 6 * place & 63] for place in range(count))
