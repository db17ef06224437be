"""What goes to a host and what comes back, as text: quoting, masking, the gate's answers, files."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqrm.domain.errors import CommandFailedError, InvalidError, StaleError, TimeoutPassedError, UnreachableError
from openqrm.engine.commandlog import masked
from openqrm.engine.ports import Finished, GateToken, Ready
from openqrm.remote import files, gate
from openqrm.remote.channel import Raw, limited, shell_line
from openqrm.remote.endpoint import Endpoint, algorithms, trusted
from openqrm.remote.keys import installation_key

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = GateToken("volume-12", 4, 2, "op-7.authorize.1")


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_a_shell_gives_back_every_word(words: list[str]) -> None:
    line = shell_line(("printf", "%s\\0", *words))
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == words


def test_the_limit_is_enforced_on_the_host_in_whole_seconds() -> None:
    assert limited(("a", "b"), 0.2) == ("timeout", "-k", "5", "1", "a", "b")
    assert limited(("a",), 2.1)[3] == "3"


@pytest.mark.parametrize(
    ("text", "secrets", "shown"),
    [
        ("password=hunter2 x", ("hunter2",), "password=•••• x"),
        ("ab abc", ("ab", "abc"), "•••• ••••"),
        ("nothing", (), "nothing"),
        ("empty", ("",), "empty"),
    ],
)
def test_masking(text: str, secrets: tuple[str, ...], shown: str) -> None:
    assert masked(text, secrets) == shown


def test_the_gate_is_asked_for_what_the_token_says() -> None:
    argv = gate.run_argv("/var/lib/openqrm/gate", TOKEN, ("cat", "-"), b"four", 59.5)
    assert shlex.join(argv) == (
        "/var/lib/openqrm/gate/openqrm-gate run -i 4 -t 60 volume-12 4 2 op-7.authorize.1 -- cat -"
    )


@pytest.mark.parametrize("key", ["a/b", "..", "", "x" * 300, "ü", "a b", "a\nb"])
def test_any_key_becomes_a_name_the_gate_takes(key: str) -> None:
    name = gate.run_argv("/g", GateToken("v", 1, 1, key), ("true",), b"", 1)[9]
    assert len(name) == 64
    assert name.isalnum()


def test_keys_stay_apart() -> None:
    names = {gate.run_argv("/g", GateToken("v", 1, 1, key), ("true",), b"", 1)[9] for key in ("a/b", "a/c", "a.b")}
    assert len(names) == 3


def test_the_answer_is_the_last_line_alone() -> None:
    fake = b"openqrm-gate: ended 0\n"
    answer = gate.understand(Raw(1, b"", fake + b"tail\nopenqrm-gate: ended 1\n"))
    assert answer == gate.Answer("ended", "1", fake + b"tail")
    assert gate.understand(Raw(0, b"", b"")) is None
    assert gate.understand(Raw(0, b"", b"\nopenqrm-gate: ended 0\nmore")) is None


def test_how_far_a_command_was_is_no_part_of_what_it_said() -> None:
    said = b"openqrm-progress 3 of 9\nbad\nopenqrm-progress 100 all\nworse\n"
    answer = gate.understand(Raw(1, b"", said + b"\nopenqrm-gate: ended 1\n"))
    assert answer == gate.Answer("ended", "1", b"bad\nworse\n")
    assert gate.parse_progress(said) == (100, "all")
    assert gate.parse_progress(b"openqrm-progress 250\n") == (100, "")
    assert gate.parse_progress(b"openqrm-progress much\nmy openqrm-progress 3 x\n") is None
    assert gate.parse_progress(b"") is None


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("stale", StaleError),
        ("timeout", TimeoutPassedError),
        ("unknown", UnreachableError),
        ("failed", CommandFailedError),
        ("usage", CommandFailedError),
    ],
)
def test_every_refusal_is_an_error_with_its_text(word: str, error: type[Exception]) -> None:
    refused = gate.refusal(gate.Answer(word, "what it said", b""), 3, TOKEN)
    assert type(refused) is error
    assert "what it said" in refused.detail


def test_reading_a_file() -> None:
    def parse(status: int, stdout: str) -> tuple[str, str] | None:
        return files.parse_read(1, "/etc/x", Finished(status, stdout, "why"))

    assert parse(0, "644\ntext\n") == ("text\n", "0644")
    assert parse(0, "4755\n") == ("", "4755")
    assert parse(3, "") is None
    for status, stdout in ((1, ""), (0, ""), (0, "644\n�")):
        with pytest.raises(CommandFailedError):
            parse(status, stdout)


def test_writing_a_file_says_how_much_there_is() -> None:
    command = files.write_command("/etc/x", "ü\n", "0600")
    assert command.argv[-3:] == ("/etc/x", "0600", "3")
    assert command.input == "ü\n"
    assert files.write_command("/etc/x", None, "0600") == Ready(("rm", "-f", "--", "/etc/x", "/etc/x.part"))
    with pytest.raises(InvalidError):
        files.write_command("/etc/x", "", "rw")


def test_the_installation_key_is_made_once(tmp_path: Path) -> None:
    first = installation_key(tmp_path)
    assert first.public.startswith("ssh-ed25519 ")
    assert first.private_file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert installation_key(tmp_path) == first
    (tmp_path / "keys" / "installation.pub").unlink()
    assert installation_key(tmp_path).public.split()[:2] == first.public.split()[:2]
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["installation", "installation.pub"]


def test_host_keys(tmp_path: Path) -> None:
    line = installation_key(tmp_path).public
    assert algorithms(trusted(Endpoint("a", host_keys=(line,)))) == ["ssh-ed25519"]
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048).export_public_key().decode()
    assert algorithms(trusted(Endpoint("a", host_keys=(line, rsa)))) == ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"]
    assert trusted(Endpoint("a", first_use=True)) == []
    for wrong in (Endpoint("a"), Endpoint("a", host_keys=("nonsense",))):
        with pytest.raises(UnreachableError):
            trusted(wrong)
