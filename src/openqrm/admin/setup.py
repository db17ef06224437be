"""`openqrm setup`: keys, certificates, database and the first administrator of an installation. Safe to repeat."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openqrm.admin import certificates
from openqrm.domain.errors import OpenqrmError
from openqrm.domain.resource import SERVER_ID, Phase, Power, Resource
from openqrm.domain.user import User
from openqrm.engine.plugins import catalogue as plugins
from openqrm.engine.plugins.entities import all_entities
from openqrm.operations.core_plugins import installed
from openqrm.operations.credentials import FIRST_ADMIN, SESSION_KEY, create_first_admin, verify_password
from openqrm.remote.keys import InstallationKey, installation_key
from openqrm.settings import Settings, load
from openqrm.store import migrations
from openqrm.store.database import SqlDatabase
from openqrm.store.secrets import Keyring, key_file

if TYPE_CHECKING:
    from openqrm.engine.plugins.catalogue import Catalogue
    from openqrm.engine.ports import Database
    from openqrm.plugin_api.records import Writer

PASSWORD_FILE = "initial-password"  # noqa: S105 - a file's name
"""Below the state directory, mode 0600: the first administrator's password until it is changed."""


@dataclass(frozen=True)
class Installation:
    """What a controller starts from."""

    settings: Settings
    database: SqlDatabase
    key: InstallationKey
    session_key: str
    catalogue: Catalogue


def prepare(settings: Settings) -> Installation:
    """Make what is missing of an installation and open it. OSError, UnavailableError."""
    state = settings.state_dir
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in (settings.boot_dir / "kernels", settings.shelf_dir):
        directory.mkdir(parents=True, exist_ok=True)
    keyring = Keyring.make(key_file(state))
    key = installation_key(state)
    certificates.ensure(settings)
    found = installed()
    database = SqlDatabase.open(settings.database, all_entities(found.plugins), keyring)
    migrations.upgrade(database)
    found = found.without(migrations.upgrade_plugins(database, found.plugins))
    with database.write() as writer:
        _server(writer, settings)
        plugins.register(writer, found)
        if not writer.count(User):
            _keep(state / PASSWORD_FILE, create_first_admin(writer))
    drop_old_password(database, state)
    with database.read() as reader:
        session_key = reader.get_secret(SESSION_KEY)
    return Installation(settings, database, key, session_key, found)


def drop_old_password(database: Database, state: Path) -> None:
    """Remove the initial password's file once the first administrator has another password, or is gone."""
    file = state / PASSWORD_FILE
    if not file.exists():
        return
    with database.read() as reader:
        admin = reader.one(User, name=FIRST_ADMIN)
    if not verify_password(admin.password_hash if admin else None, file.read_text(encoding="utf-8").strip()):
        file.unlink(missing_ok=True)


def _server(writer: Writer, settings: Settings) -> None:
    """The server itself is resource 0: never monitored by heartbeats, reached without SSH."""
    known = writer.find(Resource, id=SERVER_ID, limit=1)
    if not known:
        server = Resource(id=SERVER_ID, name="openqrm", type="server", manual=True, phase=Phase.ACTIVE, power=Power.ON)
        known = (writer.insert(server),)
    cpus = os.cpu_count() or 0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    writer.update(known[0], address=settings.address, cpus=cpus, memory_mb=memory)


def _keep(file: Path, password: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(f"{password}\n")


def main(argv: list[str]) -> int:
    """Run `openqrm setup ARGV`: 0 done, 1 failed."""
    parser = argparse.ArgumentParser(prog="openqrm setup", description=__doc__)
    parser.add_argument("--config", type=Path, help="settings file (default: /etc/openqrm/openqrm.toml)")
    arguments = parser.parse_args(argv)
    try:
        settings = load(arguments.config)
        prepare(settings).database.close()
    except (OSError, ValueError, OpenqrmError) as error:
        print(f"openqrm setup: {error}", file=sys.stderr)
        return 1
    print(f"state directory: {settings.state_dir}")
    password = settings.state_dir / PASSWORD_FILE
    if password.exists():
        print(f"first administrator: admin, password in {password} (change it and remove the file)")
    return 0
