"""RemoteHosts against a real OpenSSH server, and the same calls on the server itself."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from typing import TYPE_CHECKING

import pytest

from openqrm.domain.errors import CommandFailedError, InvalidError, TimeoutPassedError, UnreachableError
from openqrm.engine import commandlog
from openqrm.engine.ports import GateToken, Ready
from openqrm.remote.connections import Limits
from openqrm.remote.endpoint import Endpoint
from openqrm.remote.hosts import RemoteHosts
from openqrm.remote.keys import installation_key
from openqrm.testing.ssh_server import SshServer, free_port, ssh_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

REMOTE = 7


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("sshd")) as running:
        yield running


class Bench:
    """A RemoteHosts whose endpoints the test changes."""

    def __init__(self, server: SshServer, directory: Path, limits: Limits | None = None) -> None:
        self.server = server
        self.endpoints = {REMOTE: server.endpoint()}
        self.learned: list[tuple[int, str]] = []
        self.hosts = RemoteHosts(
            lookup=lambda resource: self.endpoints[resource],
            learned=lambda resource, key: self.learned.append((resource, key)),
            key_file=server.key.private_file,
            local_gate=directory / "gate0",
            gate_directory=str(directory / "gate"),
            limits=limits or Limits(),
        )


@pytest.fixture
async def bench(server: SshServer, tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(server, tmp_path)
    yield made
    await made.hosts.close()


@pytest.fixture(params=[0, REMOTE], ids=["local", "ssh"])
def host(request: pytest.FixtureRequest) -> int:
    return int(request.param)


async def no_sessions(server: SshServer) -> None:
    for _ in range(100):
        if not server.session_processes():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"connections stay open: {server.session_processes()}")


async def test_words_arrive_as_they_are(bench: Bench, host: int) -> None:
    words = ("a b", "$HOME", "`id`", "'", '"', "*", "", "line\nbreak", "ü€", "-n", ";ls", "\\")
    done = await bench.hosts.run(host, Ready(("printf", "<%s>", *words)), gate=None, seconds=10)
    assert (done.status, done.stdout) == (0, "".join(f"<{word}>" for word in words))


async def test_input_status_and_both_outputs(bench: Bench, host: int) -> None:
    command = Ready(("sh", "-c", "cat; echo problem >&2; exit 5"), input="x" * 300_000)
    done = await bench.hosts.run(host, command, gate=None, seconds=10)
    assert (done.status, len(done.stdout), done.stderr) == (5, 300_000, "problem\n")


async def test_a_command_that_does_not_read_its_input(bench: Bench, host: int) -> None:
    done = await bench.hosts.run(host, Ready(("true",), input="x" * 3_000_000), gate=None, seconds=10)
    assert done.status == 0


async def test_an_absent_command_is_a_status(bench: Bench, host: int) -> None:
    done = await bench.hosts.run(host, Ready(("no-such-command",)), gate=None, seconds=10)
    assert done.status == 127
    assert "no-such-command" in done.stderr


async def test_time_out_ends_the_whole_process_group(bench: Bench, host: int, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = 'while :; do date +%s%N >"$0"; sleep 0.05; done & while :; do sleep 0.05; done'
    began = time.monotonic()
    with pytest.raises(TimeoutPassedError):
        await bench.hosts.run(host, Ready(("sh", "-c", script, str(alive))), gate=None, seconds=1)
    assert time.monotonic() - began < 8
    await asyncio.sleep(0.3)
    before = alive.read_text()
    await asyncio.sleep(0.5)
    assert alive.read_text() == before


async def test_files(bench: Bench, host: int, tmp_path: Path) -> None:
    path = str(tmp_path / "deep" / "a file's name")
    call = bench.hosts
    assert await call.read_file(host, path, seconds=10) is None
    await call.write_file(host, path, "ünicode\n\n", "0640", gate=None, seconds=10)
    assert await call.read_file(host, path, seconds=10) == ("ünicode\n\n", "0640")
    assert (tmp_path / "deep").stat().st_mode & 0o777 == 0o755
    await call.write_file(host, path, "", "0600", gate=None, seconds=10)
    assert await call.read_file(host, path, seconds=10) == ("", "0600")
    await call.write_file(host, path, None, "0600", gate=None, seconds=10)
    await call.write_file(host, path, None, "0600", gate=None, seconds=10)
    assert await call.read_file(host, path, seconds=10) is None
    assert list((tmp_path / "deep").iterdir()) == []


async def test_what_is_sent_is_whole_and_what_was_sent_in_part_goes(bench: Bench, host: int, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3 << 20))
    half = tmp_path / "target.part"
    half.write_text("of a host that died\n")
    await bench.hosts.send_file(host, str(source), str(target), seconds=30)
    assert target.read_bytes() == source.read_bytes()
    assert (target.stat().st_mode & 0o777, half.exists()) == (0o600, False)
    half.write_text("once more\n")
    await bench.hosts.write_file(host, str(target), None, "0600", gate=None, seconds=10)
    assert (target.exists(), half.exists()) == (False, False)


async def test_what_cannot_be_read_or_written(bench: Bench, host: int, tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="cannot read"):
        await bench.hosts.read_file(host, str(tmp_path), seconds=10)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(CommandFailedError, match="not a text file"):
        await bench.hosts.read_file(host, str(tmp_path / "binary"), seconds=10)
    with pytest.raises(CommandFailedError, match="cannot write /proc/no/such"):
        await bench.hosts.write_file(host, "/proc/no/such", "x", "0644", gate=None, seconds=10)
    with pytest.raises(InvalidError):
        await bench.hosts.write_file(host, "relative", "x", "0644", gate=None, seconds=10)


async def test_secrets_are_in_no_log_and_no_output(bench: Bench, host: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "correct horse battery"
    command = Ready(("sh", "-c", 'echo "$0"; cat', f"--password={secret}"), input=secret, secrets=(secret,))
    done = await bench.hosts.run(host, command, gate=None, seconds=10)
    assert done.stdout == "--password=••••\n••••"
    assert secret not in caplog.text
    lines = [json.loads(entry.getMessage()) for entry in caplog.records if entry.name == "openqrm.command"]
    assert [(line["host"], line["outcome"], line["status"]) for line in lines] == [(host, "ended", 0)]
    assert "••••" in lines[0]["command"]


async def test_every_command_is_one_line_with_its_outcome(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="openqrm.command")
    gate = GateToken("volume-1", 3, 2, "op-1.step-1")
    with commandlog.about({"operation": 4, "step": "s"}):
        await bench.hosts.run(REMOTE, Ready(("false",)), gate=gate, seconds=10)
    bench.endpoints[8] = Endpoint("127.0.0.1", free_port(), host_keys=bench.endpoints[REMOTE].host_keys)
    with pytest.raises(UnreachableError):
        await bench.hosts.run(8, Ready(("true",)), gate=None, seconds=10)
    lines = [json.loads(entry.getMessage()) for entry in caplog.records]
    assert [(line["outcome"], line["status"]) for line in lines] == [("ended", 1), ("unreachable", None)]
    assert [(line.get("operation"), line.get("step")) for line in lines] == [(4, "s"), (None, None)]
    assert {name: lines[0][name] for name in ("volume", "generation", "epoch", "key")} == vars(gate)


async def test_another_host_key_is_refused(bench: Bench, tmp_path: Path) -> None:
    other = installation_key(tmp_path / "other").public
    bench.endpoints[REMOTE] = Endpoint("127.0.0.1", bench.server.port, host_keys=(other,))
    with pytest.raises(UnreachableError, match="does not show the SSH host key") as caught:
        await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    assert bench.server.host_key() in caught.value.detail


async def test_without_a_known_key_nothing_is_sent(bench: Bench) -> None:
    bench.endpoints[REMOTE] = bench.server.endpoint(pinned=False)
    with pytest.raises(UnreachableError, match="no SSH host key"):
        await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)


async def test_trust_on_first_use_is_recorded_once(bench: Bench) -> None:
    bench.endpoints[REMOTE] = bench.server.endpoint(pinned=False, first_use=True)
    await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    assert bench.learned == [(REMOTE, bench.server.host_key())]
    bench.endpoints[REMOTE] = Endpoint("127.0.0.1", bench.server.port, host_keys=(bench.learned[0][1],), first_use=True)
    await bench.hosts.forget(REMOTE)
    await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    assert len(bench.learned) == 1


async def test_first_use_does_not_replace_a_pinned_key(bench: Bench, tmp_path: Path) -> None:
    other = installation_key(tmp_path / "other").public
    bench.endpoints[REMOTE] = Endpoint("127.0.0.1", bench.server.port, host_keys=(other,), first_use=True)
    with pytest.raises(UnreachableError):
        await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    assert bench.learned == []


async def test_a_key_that_is_not_authorized(server: SshServer, tmp_path: Path) -> None:
    bench = Bench(server, tmp_path)
    bench.hosts = RemoteHosts(
        lookup=lambda resource: server.endpoint(),
        learned=lambda resource, key: None,
        key_file=installation_key(tmp_path / "stranger").private_file,
        local_gate=tmp_path / "gate",
    )
    with pytest.raises(UnreachableError, match="refuses the installation's SSH key"):
        await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    await bench.hosts.close()


async def test_connections_are_shared_limited_and_closed_when_idle(server: SshServer, tmp_path: Path) -> None:
    bench = Bench(server, tmp_path, Limits(sessions=4, connections=2, idle=0.5))
    await no_sessions(server)  # of the test before
    runs = [bench.hosts.run(REMOTE, Ready(("sleep", "0.2")), gate=None, seconds=10) for _ in range(40)]
    watch = asyncio.gather(*runs)
    most = 0
    while not watch.done():
        most = max(most, len(server.session_processes()))
        await asyncio.sleep(0.05)
    assert [done.status for done in await watch] == [0] * 40
    assert most == 2
    await no_sessions(server)
    assert (await bench.hosts.run(REMOTE, Ready(("echo", "again")), gate=None, seconds=10)).stdout == "again\n"
    await bench.hosts.close()


async def test_more_sessions_than_the_host_allows(server: SshServer, tmp_path: Path) -> None:
    """MaxSessions is 10: the rest waits and runs on another connection or later, and none fails."""
    bench = Bench(server, tmp_path, Limits(sessions=14, connections=2))
    runs = [bench.hosts.run(REMOTE, Ready(("sleep", "0.1")), gate=None, seconds=10) for _ in range(12)]
    assert [done.status for done in await asyncio.gather(*runs)] == [0] * 12
    await bench.hosts.close()


async def test_a_connection_that_was_cut_is_made_again(bench: Bench) -> None:
    await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    bench.server.cut_sessions()
    await asyncio.sleep(0.2)
    assert (await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)).status == 0


async def test_a_host_that_is_forgotten_while_it_is_connected_to(bench: Bench) -> None:
    """Those who wait hear that it does not answer: they were not cancelled."""
    silent = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    key = (bench.server.host_key(),)
    bench.endpoints[REMOTE] = Endpoint("127.0.0.1", silent.sockets[0].getsockname()[1], host_keys=key)
    runs = [bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10) for _ in range(3)]
    running = [asyncio.create_task(run) for run in runs]
    await asyncio.sleep(0.3)
    await bench.hosts.forget(REMOTE)
    for each in running:
        with pytest.raises(UnreachableError, match="closed before it was up"):
            await each
    silent.close()


async def test_a_command_whose_session_is_cut(bench: Bench) -> None:
    running = asyncio.create_task(bench.hosts.run(REMOTE, Ready(("sleep", "20")), gate=None, seconds=30))
    await asyncio.sleep(0.7)
    bench.server.cut_sessions()
    with pytest.raises(UnreachableError, match="broke off"):
        await running


async def test_a_gated_command_survives_the_loss_of_its_session(bench: Bench, tmp_path: Path) -> None:
    script = 'echo ran >>"$0"; sleep 1.5; echo result'
    command = Ready(("sh", "-c", script, str(tmp_path / "times")))
    gate = GateToken("volume-1", 1, 1, "op-9/step:3/try 1")
    running = asyncio.create_task(bench.hosts.run(REMOTE, command, gate=gate, seconds=20))
    await asyncio.sleep(0.9)
    assert (tmp_path / "times").read_text() == "ran\n"
    bench.server.cut_sessions()
    assert (await running).stdout == "result\n"
    assert (tmp_path / "times").read_text() == "ran\n"


async def test_the_gates_records_are_read_back(bench: Bench, host: int) -> None:
    assert await bench.hosts.recorded(host, seconds=10) == {}
    for token in (GateToken("volume-1", 3, 9, "a"), GateToken("volume-2", 0, 4, "b"), GateToken("volume-1", 4, 1, "c")):
        await bench.hosts.run(host, Ready(("true",)), gate=token, seconds=10)
    assert await bench.hosts.recorded(host, seconds=10) == {"volume-1": (4, 1), "volume-2": (0, 4)}


async def test_many_commands_over_pooled_connections(bench: Bench) -> None:
    await bench.hosts.run(REMOTE, Ready(("true",)), gate=None, seconds=10)
    began = time.monotonic()
    done = await asyncio.gather(
        *(bench.hosts.run(REMOTE, Ready(("echo", str(number))), gate=None, seconds=60) for number in range(300))
    )
    rate = 300 / (time.monotonic() - began)
    print(f"\npooled: {rate:.0f} commands/s")
    assert [int(each.stdout) for each in done] == list(range(300))
    assert rate > 20
