"""Secrets at rest, and changing their key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from openqrm.admin import database as admin
from openqrm.domain.errors import UnavailableError
from openqrm.store.database import SqlDatabase
from openqrm.store.secrets import Keyring, key_file

if TYPE_CHECKING:
    from pathlib import Path


def test_sealed_twice_differs_and_opens() -> None:
    ring = Keyring.of(bytes(32))
    one, two = ring.seal("a", "hidden"), ring.seal("a", "hidden")
    assert one != two
    assert b"hidden" not in one[1]
    assert ring.unseal("a", *one) == "hidden"


def test_a_copied_or_changed_row_does_not_open() -> None:
    ring = Keyring.of(bytes(32))
    key_id, sealed = ring.seal("a", "hidden")
    for name, key, data in (("b", key_id, sealed), ("a", "k9", sealed), ("a", key_id, sealed[:-1] + b"x")):
        with pytest.raises(UnavailableError, match="secret"):
            ring.unseal(name, key, data)


def test_the_file_is_made_once_and_private(tmp_path: Path) -> None:
    file = key_file(tmp_path / "state")
    first = Keyring.make(file)
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert Keyring.make(file).keys == first.keys
    assert first.keys["k1"].hex() not in repr(first)
    file.chmod(0o644)
    with pytest.raises(UnavailableError, match="readable by others"):
        Keyring.load(file)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"current": "k1", "keys": {"k1": 7}}'])
def test_a_broken_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret.key"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(UnavailableError):
        Keyring.load(file)


def test_rotation(tmp_path: Path, sql_url: str) -> None:
    file = key_file(tmp_path)
    before = Keyring.make(file)
    database = SqlDatabase.open(sql_url, key=before, durable=False)
    with database.write() as writer:
        writer.put_secret("a", "one")
        writer.put_secret("b", "two")
    assert admin.rotate_key(database, file) == 2
    with database.read() as reader:
        assert (reader.get_secret("a"), reader.get_secret("b")) == ("one", "two")
        rows = reader.connection.execute(select(database.schema.secrets.c.key_id)).scalars().all()
        assert set(rows) == {"k2"}
    database.close()
    assert json.loads(file.read_text())["keys"].keys() == {"k2"}
    old = SqlDatabase.open(sql_url, key=before, durable=False)
    with old.read() as reader, pytest.raises(UnavailableError, match="k2"):
        reader.get_secret("a")
    old.close()


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OPENQRM_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("OPENQRM_CONFIG", str(tmp_path / "none.toml"))
    assert admin.main(["upgrade"]) == 1
    assert "secret.key" in capsys.readouterr().err
    Keyring.make(key_file(tmp_path))
    for verb, shown in (("upgrade", "upgraded from None"), ("upgrade", "up to date"), ("status", "database 0")):
        assert admin.main([verb]) == 0
        assert shown in capsys.readouterr().out
    assert admin.main(["rotate-key"]) == 0
    assert "0 secrets" in capsys.readouterr().out
