"""Setting an installation up, twice; the first administrator's password on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.admin import setup
from openqrm.domain.user import SYSTEM, Actor, User, UserRole
from openqrm.operations.credentials import FIRST_ADMIN, verify_password
from openqrm.settings import Settings
from openqrm.testing.wiring import pipeline_of

if TYPE_CHECKING:
    from pathlib import Path


def test_the_initial_password_is_on_disk_until_it_is_changed(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    database = setup.prepare(settings).database
    file = settings.state_dir / setup.PASSWORD_FILE
    pipeline = pipeline_of(database)
    try:
        with database.read() as reader:
            admin = reader.one(User, name=FIRST_ADMIN)
        assert admin
        assert verify_password(admin.password_hash, file.read_text().strip())
        pipeline.call("user.update", SYSTEM, FIRST_ADMIN, {"enabled": True})
        setup.drop_old_password(database, settings.state_dir)
        assert file.exists()
        actor = Actor(FIRST_ADMIN, UserRole.ADMIN, admin.id)
        pipeline.call("user.set-password", actor, FIRST_ADMIN, {"password": "correct horse battery"})
        assert file.exists()
        setup.prepare(settings).database.close()
        assert not file.exists()
    finally:
        database.close()
