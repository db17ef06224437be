"""The command line against a really running controller: TLS, Unix socket, exit codes, following, speed."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 60


@dataclass(frozen=True)
class Cli:
    """The command as a user calls it, with a home of its own."""

    directory: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENQRM_")}
        home = {"XDG_CONFIG_HOME": str(self.directory / "home"), "XDG_CACHE_HOME": str(self.directory / "home")}
        return kept | home | {"OPENQRM_CONFIG": str(self.directory / "openqrm.toml")}

    def __call__(self, *words: str, given: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "openqrm.cli.main", *words]
        return subprocess.run(
            argv,
            env=self.environment | variables,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def json(self, *words: str) -> Any:
        done = self(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def password(self) -> str:
        return (self.directory / "state" / "initial-password").read_text().strip()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A new installation, its controller serving, someone logged in."""
    directory = tmp_path_factory.mktemp("cli")
    port, boot_port = free_port(), free_port()
    (directory / "openqrm.toml").write_text(
        f'state_dir = "{directory}/state"\nport = {port}\nboot_port = {boot_port}\nsocket = "{directory}/api.sock"\n'
    )
    made = Cli(directory, port)
    with (directory / "controller.log").open("w") as log:
        argv = [sys.executable, "-m", "openqrm.cli.main", "controller", "run"]
        process = subprocess.Popen(argv, env=made.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait(made, process)
        yield made
    finally:
        process.terminate()
        process.wait(30)


def _wait(cli: Cli, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    authority = str(cli.directory / "state" / "tls" / "ca.pem")
    words = (
        "login",
        "--url",
        f"https://127.0.0.1:{cli.port}",
        "--ca",
        authority,
        "--name",
        "admin",
        "--password-stdin",
    )
    while time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.3)
        if (cli.directory / "api.sock").exists() and cli(*words, given=cli.password).returncode == 0:
            return
    pytest.fail(f"the controller did not come up:\n{(cli.directory / 'controller.log').read_text()[-3000:]}")


def test_a_record_and_a_followed_operation(cli: Cli) -> None:
    made = cli.json("resource", "create", "--mac", "52-54-00-AA-00-01", "--address", "10.0.0.5", "--name", "box")
    assert (made["mac"], made["manual"]) == ("52:54:00:aa:00:01", True)
    assert [item["name"] for item in cli.json("resource", "list", "--type", "closed")["items"]] == ["box"]
    assert cli.json("resource", "show", "box")["id"] == made["id"]
    table = cli("resource", "list", "--where", "id__gt=0")
    assert table.stdout.splitlines()[0].split()[:2] == ["ID", "NAME"]
    refused = cli("resource", "remove", "box")
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    removed = cli("resource", "remove", "box", "--yes")
    assert removed.returncode == 0, removed.stderr
    assert "✓ Forget box" in removed.stderr
    assert "done" in removed.stdout
    assert cli("resource", "show", "box").returncode == 3


def test_logout_ends_the_session_at_the_server(cli: Cli, tmp_path: Path) -> None:
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    words = ["login", "--url", f"https://127.0.0.1:{cli.port}", "--ca", str(cli.directory / "state" / "tls" / "ca.pem")]
    assert cli(*words, "--name", "admin", "--password-stdin", given=cli.password, **home).returncode == 0
    kept = tmp_path / "openqrm" / "cli.json"
    stored = json.loads(kept.read_text())
    token = stored["token"]
    assert cli("user", "list", **home).returncode == 0
    assert cli("logout", **home).returncode == 0
    assert not kept.exists()
    assert cli("user", "list", OPENQRM_TOKEN=token).returncode == 5, "a copy of the token is worth nothing"
    assert cli("user", "list").returncode == 0, "another session goes on"
    kept.write_text(json.dumps(stored))
    assert cli("logout", **home).returncode == 0, "it has ended already"
    kept.write_text(json.dumps(stored | {"url": "https://127.0.0.1:1"}))
    away = cli("logout", **home)
    assert (away.returncode, "goes on at the server" in away.stderr, kept.exists()) == (6, True, False)


def test_a_failed_operation_ends_with_one(cli: Cli) -> None:
    failed = cli("kernel", "add", "-n", "lab", "-v", "0.0-nothing")
    assert failed.returncode == 1
    assert "/boot/vmlinuz-0.0-nothing does not exist" in failed.stderr
    as_json = cli("kernel", "add", "-n", "lab", "-v", "0.0-nothing", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["status"]) == (1, "failed")
    queued = cli.json("kernel", "add", "-n", "lab", "-v", "0.0-nothing", "--no-wait")
    assert queued["name"] == "kernel.add"
    number = str(json.loads(as_json.stdout)["id"])
    shown = cli("operation", "show", number).stdout
    assert re.search(r"^ +\d+  undone +Plan: build\n +\S+ does not exist$", shown, re.MULTILINE), shown
    steps = cli.json("operation", "show", number)["steps"]
    assert [step["status"] for step in steps] == ["undone", "undone"]
    listed = [item["id"] for item in cli.json("operation", "list")["items"]]
    assert listed == sorted(listed, reverse=True)


def test_a_dry_run_shows_the_steps(cli: Cli) -> None:
    planned = cli.json("plugin", "init", "dir-storage", "--dry-run")
    assert planned["record"]["state"] == "enabled"
    assert cli.json("plugin", "show", "dir-storage")["state"] == "disabled"
    assert "--json shows each step" in cli("plugin", "init", "dir-storage", "--dry-run").stderr


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("resource", "create", "--mac", "zz", "--address", "10.0.0.5"), 2, "a MAC address has six bytes"),
        (("resource", "create"), 2, "required"),
        (("resource", "fly"), 2, "resource has no verb fly"),
        (("unicorn", "list"), 2, "there is no unicorn"),
        (("resource", "show", "nothing"), 3, "there is no resource nothing"),
        (("resource", "list", "--phase", "flying"), 2, "phase"),
        (("event", "list", "--limit", "0"), 2, "not a number from 1 on"),
        (("user", "remove", "admin", "--yes"), 4, "last admin"),
        (("resource", "remove", "0", "--yes"), 4, "server itself"),
    ],
)
def test_exit_codes(cli: Cli, words: tuple[str, ...], code: int, text: str) -> None:
    done = cli(*words)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr
    problem = json.loads(cli(*words, "--json").stderr)
    assert text in problem["detail"]


def test_without_a_login_a_mistake_is_told_as_what_it_is(cli: Cli, tmp_path: Path) -> None:
    nobody = {"XDG_CONFIG_HOME": str(tmp_path), "OPENQRM_URL": f"https://127.0.0.1:{cli.port}"}
    for words, code, text in (
        (("unicorn", "list"), 2, "there is no unicorn"),
        (("resource", "fly"), 2, "resource has no verb fly"),
        (("resource", "list", "--limit", "0"), 2, "not a number from 1 on"),
        (("resource", "list"), 5, "not logged in"),
    ):
        done = cli(*words, **nobody)
        assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    wrong = cli("resource", "list", **(nobody | {"OPENQRM_URL": "127.0.0.1:8443"}))
    assert (wrong.returncode, "no URL of a server" in wrong.stderr) == (2, True)


def test_without_a_server_or_a_token(cli: Cli) -> None:
    assert cli("resource", "list", OPENQRM_TOKEN="oq_wrong").returncode == 5
    away = cli("resource", "list", OPENQRM_URL=f"http://127.0.0.1:{free_port()}", OPENQRM_TOKEN="x")
    assert away.returncode == 6
    stranger = cli("resource", "list", OPENQRM_CA="/etc/ssl/certs/ca-certificates.crt")
    assert stranger.returncode in (2, 6)
    assert "OPENQRM_CA" in stranger.stderr


def test_the_same_over_the_unix_socket(cli: Cli) -> None:
    token = json.loads((cli.directory / "home" / "openqrm" / "cli.json").read_text())["token"]
    found = cli("resource", "list", "--json", OPENQRM_URL=f"unix://{cli.directory}/api.sock", OPENQRM_TOKEN=token)
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["items"][0]["type"] == "server"


def test_a_token_for_programs(cli: Cli) -> None:
    key = cli.json("token", "create", "--name", "ci", "--days", "1")["token"]
    assert cli("resource", "list", OPENQRM_TOKEN=key).returncode == 0
    user = cli.json("token", "show", "ci")["user_id"]
    assert f"admin ({user})" in cli("token", "show", "ci").stdout
    assert cli("token", "remove", "ci", "--yes").returncode == 0
    assert cli("resource", "list", OPENQRM_TOKEN=key).returncode == 5


def test_events_are_followed(cli: Cli) -> None:
    argv = [sys.executable, "-u", "-m", "openqrm.cli.main", "events", "--follow", "--limit", "1", "--json"]
    with subprocess.Popen(argv, env=cli.environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        cli.json("network", "create", "--name", "lan", "--cidr", "10.77.0.0/24")
        second = json.loads(process.stdout.readline())
        process.terminate()
    assert second["id"] > first["id"]
    assert second["text"] == "network.create lan"


def test_help_and_completion_know_the_servers_verbs(cli: Cli) -> None:
    cli.json("resource", "list")
    script = cli("completion", "bash").stdout
    assert "complete -o default -F _openqrm openqrm" in script
    for words, wanted in (
        (("--help",), "resource"),
        (("completion", "--help"), "usage: openqrm completion"),
        (("__complete", "res"), "resource"),
        (("__complete", "resource", "cr"), "create"),
        (("__complete", "resource", "create", "--m"), "--mac"),
        (("resource", "--help"), "poweroff"),
    ):
        assert wanted in cli(*words).stdout


def test_completion_knows_what_there_is(cli: Cli) -> None:
    cli.json("resource", "create", "--mac", "52:54:00:12:34:56", "--address", "10.77.0.5", "--name", "first-node")
    cli.json("resource", "list")
    for words, wanted in (
        (("resource", "show", ""), ["first-node", "openqrm"]),
        (("resource", "remove", "fi"), ["first-node"]),
        (("nic", "create", "--resource", "fi"), ["first-node"]),
        (("resource", "create", "--name", "fi"), []),
        (("resource", "remove", "first-node", ""), []),
    ):
        assert cli("__complete", *words).stdout.split() == wanted, words


def test_what_is_not_there_is_said_before_anybody_is_asked(cli: Cli) -> None:
    refused = cli("resource", "remove", "nobody")
    assert refused.returncode == 3
    assert "--yes" not in refused.stderr


def test_a_wrong_name_is_told_in_words(cli: Cli) -> None:
    refused = cli("resource", "create", "--mac", "52:54:00:12:34:56", "--address", "10.77.0.5", "--name", "First Node")
    assert refused.returncode == 2
    assert "lower-case letters, digits and dashes" in refused.stderr
    assert "^" not in refused.stderr
    refused = cli("resource", "create", "--mac", "52:54:00:12:34:56", "--address", "10.77.0.5", "--name", "7")
    assert refused.returncode == 2
    assert "would be taken for an id" in refused.stderr


def test_checks_tell_what_they_found(cli: Cli, tmp_path: Path) -> None:
    for plugin in ("dir-storage", "nfs-storage"):
        cli.json("plugin", "init", plugin)
    settings = ("--settings", f"directory={tmp_path}/pool")
    (tmp_path / "pool" / "stranger").mkdir(parents=True)
    cli.json("storage", "create", "--name", "here", "--type", "nfs-storage", "--resource", "0", *settings)
    found = cli("storage", "check", "here")
    assert found.returncode == 8, found.stderr
    assert re.search(
        r"^here +unknown volume +stranger +it is on the storage but not recorded$", found.stdout, re.MULTILINE
    )
    assert "→ openqrm storage scan here" in found.stderr
    (everywhere,) = json.loads(cli("storage", "check", "--json").stdout)["items"]
    assert everywhere["result"]["report"]["findings"][0]["subject"] == "stranger"
    assert cli("storage", "scan", "here").returncode == 0
    quiet = cli("storage", "check")
    assert (quiet.returncode, quiet.stdout) == (0, "nothing found on here\n")


def test_what_overwrites_an_image_is_asked_for_where_it_is_chosen(cli: Cli, tmp_path: Path) -> None:
    for plugin in ("dir-storage", "nfs-storage"):
        if cli.json("plugin", "show", plugin)["state"] == "disabled":
            cli.json("plugin", "init", plugin)
    settings = ("--settings", f"directory={tmp_path}/shelf")
    for name in ("web", "old"):
        (tmp_path / "shelf" / name).mkdir(parents=True)
    cli.json("storage", "create", "--name", "shelf", "--type", "nfs-storage", "--resource", "0", *settings)
    assert cli("storage", "scan", "shelf").returncode == 0
    for name in ("web", "old"):
        cli.json("image", "create", "--name", name, "--volume", name)
    for words in (("--transfer-to", "old"), ("--transfer-to-device", "/dev/sda2"), ("--install-from", "old")):
        refused = cli("image", "update", "web", *words)
        assert (refused.returncode, "--yes" in refused.stderr) == (2, True), words
    shown = cli.json("image", "show", "web")
    assert (shown["transfer_to_id"], shown["transfer_to_device"], shown["install_from_id"]) == (None, "", None)
    assert cli("image", "update", "web", "--transfer-to", "old", "--dry-run").returncode == 0
    assert cli("image", "update", "web", "--transfer-to", "old", "--yes").returncode == 0
    assert cli.json("image", "show", "web")["transfer_to_id"] == cli.json("image", "show", "old")["id"]
    assert cli("image", "update", "web", "--comment", "on the shelf").returncode == 0, "that changes nothing of it"
    assert cli("image", "update", "web", "--transfer-to", "-1").returncode == 0, "nothing is lost by less"
    assert cli.json("image", "show", "web")["transfer_to_id"] is None
    assert "replaces everything that is in it" in " ".join(cli("image", "update", "--help").stdout.split())
    assert cli("volume", "update", "old", "--comment", "of last year").returncode == 0
    assert cli.json("volume", "show", "old")["comment"] == "of last year"


def test_help_imports_little() -> None:
    """What costs most must not creep into the start."""
    code = (
        "import sys; from openqrm.cli.main import main; main(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for heavy in ("pydantic", "fastapi", "sqlalchemy", "asyncio", "http.client", "ssl", "argparse"):
        assert f"'{heavy}'" not in done.stderr, heavy
