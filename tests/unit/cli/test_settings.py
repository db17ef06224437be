"""Which server and token: environment, file, rights of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.cli import output, settings
from openqrm.cli.failures import CliError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("OPENQRM_URL", "OPENQRM_TOKEN", "OPENQRM_CA"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_known_at_first() -> None:
    assert settings.load() == settings.Settings()
    with pytest.raises(CliError, match="not logged in"):
        settings.need_token(settings.load())


@pytest.mark.parametrize("url", ["", "host:8443", "ftp://host", "https://", "unix://relative"])
def test_a_url_of_no_server_is_refused(url: str) -> None:
    with pytest.raises(CliError, match="no URL of a server"):
        settings.need_url(settings.Settings(url))


@pytest.mark.parametrize("url", ["https://host:8443", "http://[::1]:80", "unix:///run/a", "http+unix:///run/a"])
def test_a_url_of_a_server(url: str) -> None:
    settings.need_url(settings.Settings(url))


def test_what_login_stores_is_for_this_user_alone() -> None:
    stored = settings.Settings("https://a:1", "secret", "/ca.pem")
    file = settings.store(stored)
    assert file.stat().st_mode & 0o777 == 0o600
    assert settings.load() == stored


def test_a_token_is_not_sent_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store(settings.Settings("https://a:1", "secret", "/ca.pem"))
    monkeypatch.setenv("OPENQRM_URL", "https://b:1")
    assert settings.load().token == ""
    monkeypatch.setenv("OPENQRM_URL", "https://a:1/")
    assert settings.load().token == "secret"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    settings.store(settings.Settings("https://a:1", "secret", "/ca.pem"))
    monkeypatch.setenv("OPENQRM_TOKEN", "other")
    monkeypatch.setenv("OPENQRM_CA", "/b.pem")
    assert settings.load() == settings.Settings("https://a:1", "other", "/b.pem")


def test_a_broken_file_is_named() -> None:
    settings.store(settings.Settings())
    settings.config_file().write_text("{")
    with pytest.raises(CliError, match=r"cli\.json"):
        settings.load()


def test_what_machines_report_cannot_drive_the_terminal() -> None:
    assert "\x1b" not in output.clean("a\x1b[2Jb\x9b")
    assert output.clean({"a": [1]}) == '{"a": [1]}'
    assert output.clean("2026-11-22T11:22:33.123456Z") == "2026-11-22 11:22:33"


def test_the_steps_of_an_operation_tell_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"detail": "false ended with 1", "output": "no room\nreally\x1b[2J", "remedy": "make room"}
    common = {"name": "one", "title": "", "attempts": 1, "error": None}
    output.steps(
        [
            common | {"status": "done", "title": "Make it"},
            common | {"status": "failed", "attempts": 3, "error": error},
            common | {"status": "pending", "attempts": 0},
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "  1  done     Make it",
        "  2  failed   one (3 tries)",
        "              false ended with 1",
        "              no room",
        "              really\ufffd[2J",
        "              → make room",
        "  3  pending  one",
    ]
