"""The installation's own certificate authority and the server's certificate, made at the first start.

ECDSA on P-256, which every TLS library of an image knows. Machines are given the authority's certificate and nothing
else, so the server's may be renewed at any time. The authority lasts: replacing it means building each initramfs anew.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from openqrm.domain.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.settings import Settings

CA_LIFE = timedelta(days=20 * 365)
LIFE = timedelta(days=397)
"""Of the server's certificate: browsers refuse longer ones."""
RENEW_BEFORE = timedelta(days=60)
BACKDATED = timedelta(days=1)
"""Machines whose clock is a little slow must not find a certificate from the future."""


@dataclass(frozen=True)
class Files:
    """Where everything lies: below `tls/` of the state directory, keys with mode 0600."""

    directory: Path

    @property
    def ca(self) -> Path:
        """The authority's certificate: given to machines, clients and browsers."""
        return self.directory / "ca.pem"

    @property
    def ca_key(self) -> Path:
        """The authority's key."""
        return self.directory / "ca.key"

    @property
    def server(self) -> Path:
        """The server's certificate."""
        return self.directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's key."""
        return self.directory / "server.key"


@dataclass(frozen=True)
class _Signed:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def files(settings: Settings) -> Files:
    """Where an installation's certificates are."""
    return Files(settings.state_dir / "tls")


def ensure(settings: Settings, now: datetime | None = None) -> Files:
    """Make the authority if there is none, and the server's certificate if it is missing, due or names others.

    UnavailableError when files cannot be read or belong to different authorities; OSError when they cannot be written.
    """
    moment = now or datetime.now(UTC)
    places = files(settings)
    places.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(places.directory):
        authority = _authority(places, moment)
        if _due(places, authority, server_names(settings), moment):
            _write(places.server_key, places.server, _server(authority, server_names(settings), moment))
    return places


def server_names(settings: Settings) -> tuple[str, ...]:
    """The names and addresses the server answers to."""
    given = [settings.address, *settings.names, socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    return tuple(dict.fromkeys(name for name in given if name and name not in ("0.0.0.0", "::")))  # noqa: S104 - left out


def uvicorn_options(settings: Settings) -> dict[str, Any]:
    """What uvicorn needs to serve TLS."""
    places = files(settings)
    return {"ssl_certfile": str(places.server), "ssl_keyfile": str(places.server_key)}


def client_context(settings: Settings) -> ssl.SSLContext:
    """A context for clients of this server: they trust our authority and nothing else."""
    return ssl.create_default_context(cafile=str(files(settings).ca))


def reload(context: ssl.SSLContext, settings: Settings) -> None:
    """Let a serving context take the certificate that is on disk now; open connections go on with the old one."""
    places = files(settings)
    context.load_cert_chain(places.server, places.server_key)


def renew(settings: Settings, context: ssl.SSLContext, now: datetime | None = None) -> bool:
    """Renew the certificate of a running server when it is due; returns whether it was. To be called once a day."""
    before = files(settings).server.read_bytes()
    renewed = ensure(settings, now).server.read_bytes() != before
    if renewed:
        reload(context, settings)
    return renewed


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """One process at a time: set-up and a controller may start together."""
    with (directory / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _authority(places: Files, now: datetime) -> _Signed:
    if not places.ca.exists() and not places.ca_key.exists():
        _write(places.ca_key, places.ca, _new_authority(now))
    try:
        certificate = x509.load_pem_x509_certificate(places.ca.read_bytes())
        key = serialization.load_pem_private_key(places.ca_key.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"the certificate authority cannot be read: {error}",
            remedy=f"restore {places.ca} and {places.ca_key}; without both, machines trust this server no more",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise UnavailableError(f"{places.ca_key} is not the key of {places.ca}", remedy="restore the two that belong")
    return _Signed(certificate, key)


def _new_authority(now: datetime) -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"openQRM authority of {socket.gethostname()}"[:64])])
    builder = _builder(name, name, key, now, CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    return _Signed(builder.sign(key, hashes.SHA256()), key)


def _server(authority: _Signed, names: tuple[str, ...], now: datetime) -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    life = min(LIFE, authority.certificate.not_valid_after_utc - now)
    builder = _builder(subject, authority.certificate.subject, key, now, life)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return _Signed(builder.add_extension(issuer, critical=False).sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _due(places: Files, authority: _Signed, names: tuple[str, ...], now: datetime) -> bool:
    """Whether the server needs another certificate: none, unreadable, old, another authority's or for other names."""
    try:
        found = x509.load_pem_x509_certificate(places.server.read_bytes())
        key = serialization.load_pem_private_key(places.server_key.read_bytes(), None)
        found.verify_directly_issued_by(authority.certificate)
        carried = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return True
    left = found.not_valid_after_utc - now
    return (
        key.public_key() != found.public_key()
        or left < RENEW_BEFORE
        or found.not_valid_before_utc > now
        or set(carried) != {_general(name) for name in names}
    )


def _write(key_file: Path, certificate_file: Path, signed: _Signed) -> None:
    """Key first: a crash in between leaves a pair that does not fit, which is made anew."""
    private = signed.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _replace(key_file, private, 0o600)
    _replace(certificate_file, signed.certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def _replace(file: Path, content: bytes, mode: int) -> None:
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
