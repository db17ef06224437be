"""The settings file: what is wrong with it is named, and the nearest known name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from openqrm.admin import controller, database, doctor, setup
from openqrm.domain.errors import InvalidError
from openqrm.settings import load

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "openqrm.toml"
    monkeypatch.setenv("OPENQRM_CONFIG", str(made))
    return made


def test_what_is_set_is_read_and_without_a_file_defaults_hold(file: Path) -> None:
    assert load().port == 8443
    file.write_text("port = 9443\n")
    assert load(file).port == 9443


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('adress = "192.0.2.1"', "there is no setting adress (did you mean address?)"),
        ("zebra = 1", "there is no setting zebra"),
        ("port = 0", "port: Input should be greater than or equal to 1"),
        ("port =", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(text)
    with pytest.raises(InvalidError) as caught:
        load()
    assert said in caught.value.detail
    assert str(file) in caught.value.detail
    config = ["--config", str(file)]
    assert doctor.main(config) == 2
    assert setup.main(config) == 1
    assert controller.main(["run", *config]) == 1
    assert database.main(["status"]) == 1
    printed = capsys.readouterr().err
    assert printed.count(said) == 4
    assert "pydantic" not in printed


def test_values_are_not_repeated(file: Path) -> None:
    file.write_text('database_url = ["postgresql+psycopg://openqrm:secret@127.0.0.1/openqrm"]')
    with pytest.raises(InvalidError) as caught:
        load()
    assert "database_url" in caught.value.detail
    assert "secret" not in caught.value.detail


def test_a_file_that_is_named_must_be_there(file: Path) -> None:
    with pytest.raises(InvalidError, match="does not exist"):
        load(file)
