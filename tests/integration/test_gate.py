"""The host gate with real processes: many at once, killed at random instants, stale, repeated, cut off.

Everything runs twice: with dash and coreutils, and with busybox (but for flock, which Debian's does
not have).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest

from openqrm.remote.channel import Raw
from openqrm.remote.gate import Answer, parse_progress, understand
from openqrm.testing import needs

GATE = str(files("openqrm").joinpath("node/gate/openqrm-gate"))
APPLETS = (
    "sh setsid cat head wc sha256sum mkdir mv rm ls date stat dirname printf sync sleep echo true mkfifo tail grep"
)


@dataclass
class Gate:
    """One host's gate, below `directory`."""

    directory: Path
    path: str
    shell: str

    def start(self, *words: str, data: bytes = b"") -> subprocess.Popen[bytes]:
        environment = {"PATH": self.path, "OPENQRM_GATE_DIR": str(self.directory)}
        child = subprocess.Popen(
            [self.shell, GATE, *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(data)
            child.stdin.close()
        child.stdin = None
        return child

    def end(self, child: subprocess.Popen[bytes]) -> tuple[Raw, Answer | None]:
        stdout, stderr = child.communicate(timeout=60)
        raw = Raw(child.returncode, stdout, stderr)
        return raw, understand(raw)

    def call(self, *words: str, data: bytes = b"") -> tuple[Raw, Answer]:
        raw, answer = self.end(self.start(*words, data=data))
        assert answer is not None, raw.stderr
        return raw, answer

    def run(self, token: str, *command: str, data: bytes = b"") -> tuple[Raw, Answer]:
        """`token` is VOLUME GENERATION EPOCH KEY."""
        return self.call("run", "-i", str(len(data)), "-t", "20", *token.split(), "--", *command, data=data)

    def highest(self, volume: str = "v") -> str:
        return self.call("highest", volume)[0].stdout.decode().strip()


@pytest.fixture(params=["dash", "busybox"])
def gate(request: pytest.FixtureRequest, tmp_path: Path) -> Gate:
    if request.param == "dash":
        return Gate(tmp_path / "gate", "/usr/local/bin:/usr/bin:/bin", shutil.which("dash") or "sh")
    needs.have("busybox")
    bin_directory = tmp_path / "bin"
    bin_directory.mkdir()
    for applet in APPLETS.split():
        (bin_directory / applet).symlink_to(shutil.which("busybox") or "")
    (bin_directory / "flock").symlink_to(shutil.which("flock") or "/usr/bin/flock")
    return Gate(tmp_path / "gate", str(bin_directory), str(bin_directory / "sh"))


def test_output_input_and_status_pass_through(gate: Gate) -> None:
    script = 'cat; printf "%s|" "$@"; echo wrong >&2; exit 9'
    raw, answer = gate.run("v 1 1 k", "sh", "-c", script, "sh", "a b", "*", "", data=b"in\n")
    assert (raw.status, raw.stdout, answer.stderr) == (9, b"in\na b|*||", b"wrong\n")
    assert (answer.word, answer.text) == ("ended", "9")


def test_the_same_key_acts_once(gate: Gate, tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo x >>"$0"; cat; exit 3', str(tmp_path / "times"))
    first = gate.run("v 1 1 k", *command, data=b"hello")
    assert gate.run("v 1 1 k", *command, data=b"hello")[0] == first[0]
    assert gate.run("v 1 2 k", *command, data=b"hello")[0] == first[0]  # another controller took the operation over
    assert (tmp_path / "times").read_text() == "x\n"


@pytest.mark.parametrize("what", ["command", "input", "generation"])
def test_the_same_key_for_something_else_gets_no_old_result(gate: Gate, tmp_path: Path, what: str) -> None:
    command = ["sh", "-c", 'echo x >>"$0"', str(tmp_path / "times")]
    gate.run("v 1 1 k", *command, data=b"hello")
    if what == "command":
        gate.run("v 1 1 k", *command, "more", data=b"hello")
    elif what == "input":
        gate.run("v 1 1 k", *command, data=b"other")
    else:
        gate.run("v 2 1 k", *command, data=b"hello")
    assert (tmp_path / "times").read_text() == "x\nx\n"


def test_a_lower_generation_or_epoch_is_refused(gate: Gate, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    assert gate.run("v 5 3 a", "true")[1].word == "ended"
    for token in ("v 4 9 b", "v 5 2 c", "v 5 2 a", "v 0 0 d"):
        raw, answer = gate.run(token, "touch", str(touched))
        assert (raw.status, answer.word) == (75, "stale"), token
        assert "generation 5 epoch 3 was here" in answer.text
    assert not touched.exists()
    assert gate.highest() == "5 3"
    assert gate.run("w 1 1 b", "true")[1].word == "ended"  # another volume, another record
    assert gate.run("v 5 3 b", "true")[1].word == "ended"
    assert gate.run("v 6 0 c", "true")[1].word == "ended"
    assert gate.highest() == "6 0"


def test_numbers_are_compared_as_numbers(gate: Gate) -> None:
    gate.run("v 9 0 a", "true")
    gate.run("v 10 0 b", "true")
    assert gate.run("v 9 5 c", "true")[1].word == "stale"
    assert gate.run("v 123456789012345678 0 d", "true")[1].word == "ended"
    assert gate.highest() == "123456789012345678 0"


def test_raise(gate: Gate) -> None:
    gate.run("v 3 7 a", "true")
    gate.call("raise", "v", "8")
    assert gate.highest() == "8 0"
    gate.call("raise", "v", "5")
    assert gate.highest() == "8 0"
    assert gate.run("v 7 9 b", "true")[1].word == "stale"
    gate.call("raise", "never-seen", "4")
    assert gate.call("highest")[0].stdout == b"never-seen 4 0\nv 8 0\n"


def test_a_command_that_was_waiting_when_a_later_generation_came_is_refused(gate: Gate, tmp_path: Path) -> None:
    long = gate.start("run", "v", "1", "1", "long", "--", "sleep", "1")
    time.sleep(0.4)
    stale = gate.start("run", "v", "1", "1", "stale", "--", "touch", str(tmp_path / "stale"))
    time.sleep(0.2)
    raising = gate.start("raise", "v", "2")
    assert gate.end(long)[0].status == 0
    gate.end(raising)
    _, answer = gate.end(stale)
    assert answer is not None
    assert (answer.word == "ended") == (tmp_path / "stale").exists()  # whichever came first, and nothing between
    assert answer.word in ("ended", "stale")
    assert gate.run("v 1 1 later", "true")[1].word == "stale"


def test_what_waited_while_a_later_one_passed_does_not_act(gate: Gate, tmp_path: Path) -> None:
    """An abandoned `do` that still queues must not act after its `undo`."""
    holder = gate.start("run", "v", "1", "1", "holder", "--", "sleep", "1.5")
    time.sleep(0.4)
    queued = []
    for number in range(6):
        command = ("sh", "-c", f'echo {number} >>"$0"', str(tmp_path / "log"))
        queued.append(gate.start("run", "v", "1", "1", f"k{number}", "--", *command))
        time.sleep(0.15)
    gate.end(holder)
    words = [answer.word for _, answer in map(gate.end, queued) if answer]
    acted = [number for number, word in enumerate(words) if word == "ended"]
    assert set(words) <= {"ended", "superseded"}
    assert (tmp_path / "log").read_text().split() == [str(number) for number in acted]
    assert acted == sorted(acted)
    assert 5 in acted


def test_one_at_a_time_per_volume_and_volumes_at_once(gate: Gate, tmp_path: Path) -> None:
    script = 'mkdir "$0" && sleep 0.1 && rmdir "$0"'
    children = [
        gate.start(
            "run", f"v{number % 4}", "1", "1", f"k{number}", "--", "sh", "-c", script, str(tmp_path / f"v{number % 4}")
        )
        for number in range(32)
    ]
    words = []
    for child in children:
        raw, answer = gate.end(child)
        assert answer is not None
        words.append(answer.word)
        assert raw.status == {"ended": 0, "superseded": 79}[answer.word], raw.stderr
    assert words.count("ended") >= 4


def test_two_callers_with_one_key_get_one_result(gate: Gate, tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo x >>"$0"; sleep 0.3; echo done', str(tmp_path / "times"))
    children = [gate.start("run", "v", "1", "1", "k", "--", *command) for _ in range(5)]
    assert [gate.end(child)[0].stdout for child in children] == [b"done\n"] * 5
    assert (tmp_path / "times").read_text() == "x\n"


def test_a_killed_session_leaves_the_command_running(gate: Gate, tmp_path: Path) -> None:
    command = ("sh", "-c", 'echo x >>"$0"; sleep 1; echo y >>"$0"; echo out', str(tmp_path / "log"))
    child = gate.start("run", "v", "1", "1", "k", "--", *command)
    time.sleep(0.5)
    child.kill()
    child.communicate()
    raw, _ = gate.end(gate.start("run", "v", "1", "1", "k", "--", *command))
    assert (raw.status, raw.stdout) == (0, b"out\n")
    assert (tmp_path / "log").read_text() == "x\ny\n"


def test_an_end_nobody_saw_is_told_once_and_then_run_again(gate: Gate, tmp_path: Path) -> None:
    """The supervisor is killed with its command, as by a restart of the host."""
    command = ("sh", "-c", 'echo x >>"$0"; [ -e "$0.again" ] || sleep 30', str(tmp_path / "log"))
    child = gate.start("run", "v", "1", "1", "k", "--", *command)
    time.sleep(0.5)
    supervisor = int((gate.directory / "volumes/v/runs/k/pid").read_text())
    kill_session(supervisor)
    raw, answer = gate.end(child)
    assert answer is not None
    assert (raw.status, answer.word) == (76, "unknown")
    (tmp_path / "log.again").touch()
    assert gate.run("v 1 1 k", *command)[1].word == "ended"
    assert (tmp_path / "log").read_text() == "x\nx\n"


def test_the_lock_is_held_as_long_as_the_command_lives(gate: Gate, tmp_path: Path) -> None:
    """Only the supervisor dies: the next one waits for the orphan, for two at once would be worse than waiting."""
    command = ("sh", "-c", 'sleep 1.5; echo old >>"$0"', str(tmp_path / "log"))
    child = gate.start("run", "v", "1", "1", "k", "--", *command)
    time.sleep(0.5)
    os.kill(int((gate.directory / "volumes/v/runs/k/pid").read_text()), signal.SIGKILL)
    gate.run("v 2 1 next", "sh", "-c", 'echo new >>"$0"', str(tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "old\nnew\n"
    _, answer = gate.end(child)
    assert answer is not None
    assert answer.word == "unknown"


def test_time_limit_and_cancel(gate: Gate, tmp_path: Path) -> None:
    script = 'trap "" HUP; while :; do date +%N >"$0"; sleep 0.05; done'
    raw, answer = gate.call("run", "-t", "1", "v", "1", "1", "a", "--", "sh", "-c", script, str(tmp_path / "a"))
    assert (raw.status, answer.word) == (124, "timeout")
    child = gate.start("run", "-t", "30", "v", "1", "1", "b", "--", "sh", "-c", script, str(tmp_path / "b"))
    time.sleep(0.5)
    gate.call("cancel", "v", "b")
    raw, _ = gate.end(child)
    assert raw.status == 143
    before = [(tmp_path / name).read_text() for name in "ab"]
    time.sleep(0.3)
    assert [(tmp_path / name).read_text() for name in "ab"] == before
    gate.call("cancel", "v", "b")
    gate.call("cancel", "nothing", "there")


def test_input_that_was_cut_short_is_not_run(gate: Gate, tmp_path: Path) -> None:
    words = ("run", "-i", "100", "v", "1", "1", "k", "--", "touch", str(tmp_path / "touched"))
    raw, answer = gate.call(*words, data=b"only a part")
    assert (raw.status, answer.word) == (70, "failed")
    assert not (tmp_path / "touched").exists()
    assert gate.highest() == "0 0"


@pytest.mark.parametrize(
    "words",
    [
        ["run", "../v", "1", "1", "k", "--", "true"],
        ["run", "v", "-1", "1", "k", "--", "true"],
        ["run", "v", "1", "x", "k", "--", "true"],
        ["run", "v", "01", "1", "k", "--", "true"],
        ["run", "v", "1", "1", "a/b", "--", "true"],
        ["run", "v", "1", "1", "", "--", "true"],
        ["run", "v", "1", "1", "k", "true"],
        ["run", "v", "1", "1", "k", "--"],
        ["run", "v", "9999999999999999999", "1", "k", "--", "true"],
        ["raise", "v"],
        ["highest", ".."],
        ["destroy", "v"],
        [],
    ],
)
def test_wrong_use_changes_nothing(gate: Gate, words: list[str]) -> None:
    raw, answer = gate.call(*words)
    assert (raw.status, answer.word) == (64, "usage")
    assert not list(gate.directory.rglob("highest"))


def test_a_disk_that_cannot_keep_the_record_lets_nothing_run(gate: Gate, tmp_path: Path) -> None:
    gate.directory.parent.mkdir(exist_ok=True)
    gate.directory.write_text("a file where the directory belongs")
    raw, answer = gate.run("v 1 1 k", "touch", str(tmp_path / "touched"))
    assert (raw.status, answer.word) == (70, "failed")
    assert not (tmp_path / "touched").exists()


def test_old_results_are_pruned_and_the_record_stays(gate: Gate) -> None:
    for number in range(24):
        assert gate.call("run", "v", "1", "1", f"k{number}", "--", "true")[1].word == "ended"
    kept = {path.name for path in (gate.directory / "volumes/v/runs").iterdir()}
    assert 20 <= len(kept) <= 21
    assert "k23" in kept
    past = time.time() - 8 * 86400
    for name in kept:
        os.utime(gate.directory / "volumes/v/runs" / name, (past, past))
    gate.run("v 1 1 last", "true")
    assert [path.name for path in (gate.directory / "volumes/v/runs").iterdir()] == ["last"]
    assert gate.highest() == "1 1"


def test_killed_at_random_instants(gate: Gate, tmp_path: Path) -> None:
    """Whatever is killed and when: the record never falls, two never act at once, nothing is wedged."""
    chance = random.Random(20)
    log = tmp_path / "log"
    script = 'mkdir "$0.busy" || echo twice >>"$0"; echo "$1" >>"$0"; sleep 0.02; rmdir "$0.busy"'
    highest = 0
    for generation in range(1, 31):
        words = ("run", "-t", "10", "v", str(generation), "1", "k", "--", "sh", "-c", script, str(log), str(generation))
        child = gate.start(*words)
        time.sleep(chance.uniform(0, 0.12))
        child.kill()
        child.communicate()
        if chance.random() < 0.5:
            with contextlib.suppress(OSError, ValueError):
                kill_only(int((gate.directory / "volumes/v/runs/k/pid").read_text()))
        for _ in range(3):
            raw, answer = gate.end(gate.start(*words))
            assert answer is not None
            assert answer.word in ("ended", "unknown"), raw.stderr
            if answer.word == "ended":
                break
        now = int(gate.highest().split()[0])
        assert now == generation > highest
        highest = now
    acted = log.read_text().split()
    assert "twice" not in acted
    assert [int(word) for word in acted] == sorted(int(word) for word in acted)
    assert set(acted) == {str(generation) for generation in range(1, 31)}


def kill_session(leader: int) -> None:
    """SIGKILL to everything in a session."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True, check=False)
    for word in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(word), signal.SIGKILL)


def kill_only(pid: int) -> None:
    """SIGKILL to a supervisor, if it still is one."""
    with contextlib.suppress(OSError):
        if b"supervise" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def test_output_without_end_fills_no_disk_and_changes_no_status(gate: Gate) -> None:
    script = 'i=0; while [ $i -lt 96 ]; do cat "$0"; cat "$0" >&2; i=$((i+1)); done; exit 7'
    block = gate.directory.parent / "block"
    block.write_bytes(b"x" * 131_071 + b"\n")
    raw, answer = gate.call("run", "v", "1", "1", "k", "--", "sh", "-c", script, str(block))
    assert (answer.word, raw.status) == ("ended", 7)
    run = gate.directory / "volumes" / "v" / "runs" / "k"
    assert {name: (run / name).stat().st_size for name in ("stdout", "stderr")} == {
        "stdout": 4 << 20,
        "stderr": 4 << 20,
    }
    assert not (run / "out").exists()


def test_a_daemon_that_keeps_its_outputs_holds_nobody_up(gate: Gate) -> None:
    began = time.monotonic()
    raw, answer = gate.call("run", "v", "1", "1", "k", "--", "sh", "-c", "echo said; sleep 20 8>&- 9>&- & exit 3")
    assert (answer.word, raw.status, raw.stdout) == ("ended", 3, b"said\n")
    assert time.monotonic() - began < 15
    again, answer = gate.call("run", "v", "1", "1", "k2", "--", "true")
    assert (answer.word, again.status) == ("ended", 0)


def test_a_running_command_says_how_far_it_is(gate: Gate) -> None:
    script = 'for n in 1 2 3; do echo "openqrm-progress $n of 3" >&2; echo noise >&2; done; cat "$1" >/dev/null; exit 3'
    waits = gate.directory.parent / "waits"
    os.mkfifo(waits)
    child = gate.start("run", "v", "1", "1", "k", "--", "sh", "-c", script, "sh", str(waits))
    deadline = time.monotonic() + 20
    while not (said := gate.call("progress", "v", "k")[0].stdout):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while parse_progress(said) != (3, "of 3"):
        assert time.monotonic() < deadline
        said = gate.call("progress", "v", "k")[0].stdout
    waits.write_text("go on")
    raw, answer = gate.end(child)
    assert (raw.status, answer) == (3, Answer("ended", "3", b"noise\nnoise\nnoise\n"))
    assert gate.call("progress", "v", "other")[0].stdout == b""
