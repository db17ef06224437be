"""Hashes as glibc's crypt(3) makes them; the first is one of Drepper's own vectors."""

from __future__ import annotations

import pytest

from openqrm.operations.crypt_hash import sha512_crypt


@pytest.mark.parametrize(
    ("password", "salt", "wanted"),
    [
        (
            "Hello world!",
            "saltstring",
            "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1",
        ),
        (
            "we have a short salt string but not a short password " * 2,
            "roundstoolow",
            "$6$roundstoolow$CumiU7Ncu26OXVCgFNb.G9S2EXZZkGaCUejVPrYHymfT1F63.u9uWR5yK4CxENGePL6Z87zGmjpOlUElR3MxP0",
        ),
        (
            "ü",
            "ab",
            "$6$ab$TqaRL02oOO3rJ6OGRCVkQXaFYiJVT5zloPdlTbD.8iMkhW6DxvqXGJBvUT9ZhNwJTKuHW42nfrsgHsqFu6H9q.",
        ),
    ],
)
def test_vectors(password: str, salt: str, wanted: str) -> None:
    assert sha512_crypt(password, salt) == wanted


def test_salts_differ() -> None:
    assert sha512_crypt("x") != sha512_crypt("x")
