"""Which server, which token, which certificate authority: environment first, then ~/.config/openqrm/cli.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from openqrm.cli.failures import AUTH, USAGE, CliError

DEFAULT_URL = "https://127.0.0.1:8443"


@dataclass(frozen=True)
class Settings:
    """`url` is `https://HOST:PORT`, `http://…` or `unix:///PATH` (TLS inside; `http+unix:///PATH` without)."""

    url: str = DEFAULT_URL
    token: str = ""
    ca: str = ""


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default)


def config_file() -> Path:
    """Where `openqrm login` keeps what it got."""
    return _home("XDG_CONFIG_HOME", ".config") / "openqrm" / "cli.json"


def cache_directory() -> Path:
    """Where the server's compact schema is kept."""
    return _home("XDG_CACHE_HOME", ".cache") / "openqrm"


def load() -> Settings:
    """The settings that hold now. A token for one server is never sent to another."""
    stored = Settings()
    file = config_file()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        stored = Settings(**{name: str(found.get(name, "")) for name in ("url", "token", "ca")})
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise CliError(f"{file}: {error}", USAGE, remedy="remove it and log in again") from error
    url = (os.environ.get("OPENQRM_URL") or "").rstrip("/")
    if url and url != stored.url:
        stored = Settings(url=url, ca=stored.ca)
    return replace(
        stored,
        url=(url or stored.url or DEFAULT_URL).rstrip("/"),
        token=os.environ.get("OPENQRM_TOKEN") or stored.token,
        ca=os.environ.get("OPENQRM_CA") or stored.ca,
    )


def store(settings: Settings) -> Path:
    """Keep them for this user alone (mode 0600)."""
    file = config_file()
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"url": settings.url, "token": settings.token, "ca": settings.ca}, indent=1)
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text + "\n")
    fresh.replace(file)
    return file


def need_url(settings: Settings) -> None:
    """CliError when the URL can be none of a server."""
    scheme, colon, rest = settings.url.partition("://")
    of_socket = scheme in ("unix", "http+unix") and rest.startswith("/")
    of_host = scheme in ("https", "http") and rest.strip("/") != ""
    if not colon or not (of_socket or of_host):
        raise CliError(f"{settings.url} is no URL of a server", USAGE, remedy="https://HOST:8443 or unix:///PATH")


def need_token(settings: Settings) -> None:
    """CliError when nobody is logged in."""
    if not settings.token:
        raise CliError(f"not logged in at {settings.url}", AUTH, remedy="openqrm login, or set OPENQRM_TOKEN")
