"""`openqrm doctor` on installations in several states."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest

from openqrm.admin import doctor, setup
from openqrm.admin.doctor import Finding, Grade
from openqrm.domain.network import AddressRange, Network
from openqrm.domain.plugin_state import PluginPhase, PluginState
from openqrm.domain.resource import SERVER_ID
from openqrm.domain.storage import Storage
from openqrm.engine.plugins import catalogue as catalogues
from openqrm.engine.plugins.declarations import Broken
from openqrm.plugin_api.plugin import Dependency, Family, Plugin, Requires, Service
from openqrm.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from openqrm.store.database import SqlDatabase

SERVING = Plugin(
    name="serving",
    family=Family.OTHER,
    title="Serving",
    summary="s",
    module="made",
    services=(Service("server", "made:prepare"),),
    requires=Requires(commands=(Dependency("no-such-command", "its-package"),)),
    node_programs=(Dependency("no-such-program", "programs-of-machines"),),
)
CATALOGUE = catalogues.of([SERVING], (Broken("torn", "torn 1.0: torn:PLUGIN", "it cannot be imported"),))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", port=free_port(), boot_port=free_port())


@pytest.fixture
def database(settings: Settings) -> Iterator[SqlDatabase]:
    made = setup.prepare(settings).database
    with made.write() as writer:
        catalogues.register(writer, CATALOGUE)
    yield made
    made.close()


def by_subject(settings: Settings) -> dict[str, Finding]:
    return {one.subject: one for one in doctor.examine(settings, CATALOGUE)}


def set_state(database: SqlDatabase, state: PluginPhase, name: str = "serving") -> None:
    with database.write() as writer:
        writer.update(writer.find(PluginState, name=name)[0], state=state)


def test_nothing_set_up_is_said_and_nothing_is_made(settings: Settings) -> None:
    found = by_subject(settings)
    assert (found["database"].grade, found["database"].remedy) == (Grade.ERROR, "openqrm setup")
    assert found["controller"].grade is Grade.WARNING
    assert not settings.state_dir.exists()


def test_a_new_installation_has_no_errors_but_the_broken_plugin(settings: Settings, database: SqlDatabase) -> None:
    del database
    found = by_subject(settings)
    assert [name for name, one in found.items() if one.grade is Grade.ERROR] == ["plug-in torn"]
    assert "torn 1.0" in found["plug-in torn"].text
    assert found["database"].text == "answers and is up to date"
    assert found["kernel"].remedy.startswith("openqrm kernel add")
    assert found["plug-in serving"].text.endswith(
        "apt-get install -y --no-install-recommends its-package programs-of-machines"
    )


def test_an_enabled_plugin_that_lacks_a_command_is_an_error_with_the_remedy(
    settings: Settings, database: SqlDatabase
) -> None:
    set_state(database, PluginPhase.ENABLED)
    found = by_subject(settings)["plug-in serving"]
    assert found.grade is Grade.ERROR
    assert "no-such-command, no-such-program is missing" in found.text
    assert found.remedy == "apt-get install -y --no-install-recommends its-package programs-of-machines"


def test_services_are_expected_while_the_controller_runs(settings: Settings, database: SqlDatabase) -> None:
    set_state(database, PluginPhase.STARTED)
    assert "services" not in by_subject(settings)
    with socket.create_server(("127.0.0.1", settings.port)):
        assert by_subject(settings)["controller"].grade is Grade.OK
        assert "not started yet" in by_subject(settings)["services"].text
        status = {"plugin": "serving", "service": "server", "state": "waiting", "error": "port 67 taken", "remedy": "r"}
        (settings.state_dir / "plugins").mkdir(exist_ok=True)
        file = settings.state_dir / "plugins" / "services.json"
        file.write_text(json.dumps([status]))
        found = by_subject(settings)["services"]
        assert (found.grade, found.remedy) == (Grade.ERROR, "r")
        assert "port 67 taken" in found.text
        file.write_text(json.dumps([status | {"state": "running"}]))
        assert "services" not in by_subject(settings)


def test_a_port_of_another_program_is_an_error_when_the_controller_does_not_run(
    settings: Settings, database: SqlDatabase
) -> None:
    del database
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.boot_port))
        other.listen()
        faults = [one for one in doctor.examine(settings, CATALOGUE) if one.subject == "controller"]
    assert [one.grade for one in faults] == [Grade.WARNING, Grade.ERROR]
    assert str(settings.boot_port) in faults[1].text


def test_what_is_used_and_not_there_is_an_error(settings: Settings, database: SqlDatabase) -> None:
    with database.write() as writer:
        writer.insert(PluginState(name="gone", family="other", state=PluginPhase.STARTED))
        writer.insert(Storage(name="old", type="tape", resource_id=SERVER_ID))
        span = AddressRange(first="192.0.2.10", last="192.0.2.20")
        writer.insert(Network(name="lab", cidr="192.0.2.0/24", interface="nowhere0", machines=span))
    found = by_subject(settings)
    assert "not installed" in found["plug-in gone"].text
    assert "type tape is not enabled" in found["storage old"].text
    assert "no interface nowhere0" in found["networks"].text


def test_an_address_of_another_machine_is_an_error(settings: Settings) -> None:
    other = settings.model_copy(update={"address": "192.0.2.77"})
    assert "no interface of this machine" in by_subject(other)["address"].text


def test_a_damaged_key_file_or_database_is_a_finding(settings: Settings, database: SqlDatabase) -> None:
    database.close()
    file = settings.state_dir / "openqrm.db"
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    file.write_bytes(b"not a database" * 1000)
    assert by_subject(settings)["database"].grade is Grade.ERROR
    (settings.state_dir / "secret.key").write_text("{}")
    assert "secret.key" in by_subject(settings)["database"].text


def test_the_command_says_it_all_and_its_status_tells(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENQRM_CONFIG", "")  # `load` sets it; this puts it back
    file = tmp_path / "openqrm.toml"
    file.write_text(f'state_dir = "{settings.state_dir}"\nport = {settings.port}\nboot_port = {settings.boot_port}\n')
    assert doctor.main(["--config", str(file)]) == 1
    text = capsys.readouterr().out
    assert "remedy: openqrm setup" in text
    assert text.splitlines()[-1].startswith("2 errors")
    assert doctor.main(["--config", str(file), "--json"]) == 1
    parsed = json.loads(capsys.readouterr().out)
    assert {"subject", "grade", "text", "remedy"} == set(parsed[0])
    file.write_text("nonsense = 1\n")
    assert doctor.main(["--config", str(file)]) == 2
    assert "nonsense" in capsys.readouterr().err
