"""The authority and the server's certificate, over a real TLS connection."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from openqrm.admin import certificates
from openqrm.domain.errors import UnavailableError
from openqrm.settings import Settings
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path


def settings_for(path: Path, **more: object) -> Settings:
    return Settings.model_validate({"state_dir": path, "address": "127.0.0.1", **more})


def serving(settings: Settings) -> ssl.SSLContext:
    """A server's context with the certificate of this moment."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates.reload(context, settings)
    return context


def seen_by_client(settings: Settings, server: ssl.SSLContext, name: str, trust: ssl.SSLContext) -> bytes:
    """The certificate a client accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            try:
                with server.wrap_socket(connection, server_side=True) as wrapped:
                    wrapped.recv(1)
            except (ssl.SSLError, OSError):
                connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as plain,
                trust.wrap_socket(plain, server_hostname=name) as wrapped,
            ):
                found = wrapped.getpeercert(binary_form=True)
                wrapped.send(b"x")
                assert found is not None
                return found
        finally:
            thread.join()


def test_a_client_with_our_authority_connects_by_every_name(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, names=("qrm.example.org", "192.0.2.7"))
    certificates.ensure(settings)
    server, trust = serving(settings), certificates.client_context(settings)
    for name in ("127.0.0.1", "localhost", "qrm.example.org", "192.0.2.7"):
        seen_by_client(settings, server, name, trust)
    with pytest.raises(ssl.SSLCertVerificationError, match="match"):
        seen_by_client(settings, server, "other.example.org", trust)
    with pytest.raises(ssl.SSLCertVerificationError):
        seen_by_client(settings, server, "localhost", ssl.create_default_context())


def test_keys_are_private_and_nothing_changes_the_second_time(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    places = certificates.ensure(settings)
    before = {file: file.read_bytes() for file in places.directory.iterdir()}
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in (places.ca_key, places.server_key, places.ca)} == {
        "ca.key": "0o600",
        "server.key": "0o600",
        "ca.pem": "0o644",
    }
    certificates.ensure(settings)
    assert {file: file.read_bytes() for file in places.directory.iterdir()} == before


def test_renewed_before_it_ends_without_a_restart(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    places = certificates.ensure(settings)
    authority = places.ca.read_bytes()
    context, trust = serving(settings), certificates.client_context(settings)
    first = seen_by_client(settings, context, "localhost", trust)
    assert not certificates.renew(settings, context, datetime.now(UTC) + timedelta(days=300))
    assert certificates.renew(settings, context, datetime.now(UTC) + timedelta(days=350))
    after = x509.load_pem_x509_certificate(places.server.read_bytes())
    assert after.not_valid_after_utc > datetime.now(UTC) + timedelta(days=700)
    assert places.ca.read_bytes() == authority
    certificates.ensure(settings, datetime.now(UTC))  # from the future now: made for today again
    certificates.reload(context, settings)
    assert seen_by_client(settings, context, "localhost", trust) != first


def test_another_name_makes_another_certificate(tmp_path: Path) -> None:
    places = certificates.ensure(settings_for(tmp_path))
    before, authority = places.server.read_bytes(), places.ca.read_bytes()
    certificates.ensure(settings_for(tmp_path, names=("new.example.org",)))
    assert places.server.read_bytes() != before
    assert places.ca.read_bytes() == authority


def test_half_an_authority_is_refused_and_a_broken_server_certificate_is_not(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    places = certificates.ensure(settings)
    places.server.write_text("nonsense")
    certificates.ensure(settings)
    assert x509.load_pem_x509_certificate(places.server.read_bytes())
    places.ca_key.unlink()
    with pytest.raises(UnavailableError, match="cannot be read"):
        certificates.ensure(settings)


def test_openssl_agrees(tmp_path: Path) -> None:
    needs.have("openssl")
    places = certificates.ensure(settings_for(tmp_path))
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(places.ca)]
    command.append(str(places.server))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
