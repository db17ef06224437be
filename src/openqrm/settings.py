"""The installation's settings: one TOML file, overridden by `OPENQRM_…` variables."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from openqrm.domain.errors import InvalidError

DEFAULT_FILE = Path("/etc/openqrm/openqrm.toml")


class Settings(BaseSettings):
    """Everything an operator sets outside the database. Unknown keys are refused."""

    model_config = SettingsConfigDict(env_prefix="OPENQRM_", extra="forbid", frozen=True)

    state_dir: Path = Path("/var/lib/openqrm")
    """Database, keys, boot files, logs of plug-in services."""
    database_url: str = ""
    """Empty: SQLite below `state_dir`. PostgreSQL: `postgresql+psycopg://user@host/name`."""
    protocol: Literal["https", "http"] = "https"
    address: str = "127.0.0.1"
    """The management address: machines reach the API, the boot listener and DHCP here."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    boot_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    socket: Path | None = None
    """A Unix socket that serves the API too."""
    names: tuple[str, ...] = ()
    """Further names and addresses for the server's certificate."""
    workers: Annotated[int, Field(ge=1, le=1000)] = 64
    """How many operations run at once."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=60)] = 10
    keep_events_days: Annotated[int, Field(ge=1, le=36_500)] = 90
    """How long events are kept, audit included: who asked for what."""
    keep_events: Annotated[int, Field(ge=1_000)] = 1_000_000
    """How many events are kept at most; the oldest go first."""
    keep_operations_days: Annotated[int, Field(ge=1, le=36_500)] = 30
    """How long finished operations with their steps, done orders, released leases and boot tickets are kept."""
    keep_operations: Annotated[int, Field(ge=1_000)] = 100_000
    """How many finished operations are kept at most; the oldest go first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"{self.protocol}://{self.address}:{self.port}"

    @property
    def boot_url(self) -> str:
        """Where machines fetch boot scripts and files."""
        return f"http://{self.address}:{self.boot_port}"

    @property
    def database(self) -> str:
        """The database URL with the default applied."""
        return self.database_url or f"sqlite:///{self.state_dir / 'openqrm.db'}"

    @property
    def boot_dir(self) -> Path:
        """Kernels, initramfs and modules, as served to machines."""
        return self.state_dir / "boot"

    @property
    def shelf_dir(self) -> Path:
        """Archives of images, from which volumes are imported."""
        return self.state_dir / "shelf"

    def installation(self) -> dict[str, Any]:
        """What plug-ins may know of the installation."""
        return {
            "state_dir": str(self.state_dir),
            "boot_dir": str(self.boot_dir),
            "shelf_dir": str(self.shelf_dir),
            "address": self.address,
            "url": self.url,
            "boot_url": self.boot_url,
            "port": self.port,
            "boot_port": self.boot_port,
        }

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        del dotenv_settings, file_secret_settings
        file = Path(os.environ.get("OPENQRM_CONFIG", str(DEFAULT_FILE)))
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file))


def load(file: Path | None = None) -> Settings:
    """The settings from a file (default: `$OPENQRM_CONFIG` or /etc/openqrm/openqrm.toml).

    Without the default file all defaults hold. InvalidError naming what is wrong; OSError when it cannot be read.
    """
    if file is not None:
        if not file.exists():
            raise InvalidError(f"{file} does not exist")
        os.environ["OPENQRM_CONFIG"] = str(file)
    read = os.environ.get("OPENQRM_CONFIG", str(DEFAULT_FILE))
    try:
        return Settings()
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(f"{read} is not TOML: {error}") from error
    except ValidationError as error:
        raise InvalidError(f"{read} or the environment: {'; '.join(_problems(error))}") from error


def _problems(error: ValidationError) -> list[str]:
    """What is wrong with each setting. Values are not repeated: a database URL holds a password."""
    found = []
    for each in error.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in each["loc"])
        if each["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Settings.model_fields, 1)
            found.append(f"there is no setting {name}" + (f" (did you mean {near[0]}?)" if near else ""))
        else:
            found.append(f"{name}: {each['msg']}")
    return found
