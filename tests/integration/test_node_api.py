"""The node API over TLS with its real clients: curl, a socket, and the agent's own shell script."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from openqrm.api.node import hub
from openqrm.api.node.context import NodeContext
from openqrm.domain.appliance import Appliance
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.machine import Stage, TokenPurpose
from openqrm.domain.network import AddressRange, Network
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Health, Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.netboot import agent
from openqrm.netboot.programs import Programs
from openqrm.operations import machine_tokens, states
from openqrm.store.health import HealthStore
from openqrm.testing.node_server import (
    MAC,
    MachineStream,
    NoHooks,
    OneFile,
    ServedNodeApi,
    eventually,
    make_certificate,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from openqrm.store.database import SqlDatabase


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def served(sql_database: SqlDatabase, sql_url: str, certificate: tuple[Path, Path]) -> Iterator[ServedNodeApi]:
    """The node API as it runs in a controller, with heartbeats every second."""
    with sql_database.write() as writer:
        machines = AddressRange(first="127.0.0.20", last="127.0.0.30")
        writer.insert(Network(name="management", cidr="127.0.0.0/8", machines=machines))
        writer.insert(Operation(name="appliance.start"))
    one = ServedNodeApi(sql_database, HealthStore.beside(sql_url), certificate[0])
    context = NodeContext(
        database=sql_database,
        observed=sql_database,
        drivers=lambda _: pytest.fail("no deployment is asked for here"),
        hooks=lambda _: NoHooks(),  # type: ignore[arg-type,return-value]  # all that is used of hooks
        files=OneFile(Programs(certificate[0].parent / "programs")),
        health=one.health,
        enrol=lambda _, number: one.enrolled.append(number),
        api_url="https://127.0.0.1:8443",
        boot_url="http://127.0.0.1:8080",
        authorized_key="",
        digest=lambda kernel, name: f"sum-of-{kernel}-{name}",
        secret=lambda key: pytest.fail(f"no deployment is asked for here: {key}"),
        heartbeat_seconds=1,
    )
    with serving(one, context, certificate[1]):
        yield one
    one.health.close()


def test_curl_registers_a_machine_and_a_shell_reads_the_answer(served: ServedNodeApi) -> None:
    answer = served.register()
    assert list(answer) == ["RESOURCE_ID", "TOKEN", "NAME", "HEARTBEAT_SECONDS", "TIME", "ADDRESS", "PREFIX"]
    assert (answer["NAME"], answer["ADDRESS"], answer["PREFIX"]) == ("node-525400000001", "127.0.0.20", "8")
    assert abs(int(answer["TIME"]) - time.time()) < 5
    assert served.enrolled == [int(answer["RESOURCE_ID"])]
    served.register("00000000-b")
    assert len(served.enrolled) == 1, "only a machine never seen before is enrolled"


def test_a_machine_that_leaves_by_kexec_is_told_what_to_boot_and_gets_its_ticket(served: ServedNodeApi) -> None:
    with served.database.write() as writer:
        writer.insert(Kernel(name="default", version="6.1", default=True, ready=True, arguments="quiet"))
    answer = served.register()
    number, token = int(answer["RESOURCE_ID"]), answer["TOKEN"]
    status, told = served.curl(f"{served.url}/node/v1/boot", token=token)
    assert status == 200
    assert "BOOT_KERNEL_SHA256='sum-of-default-vmlinuz'\n" in told
    assert f"openqrm.mac={MAC} openqrm.kernel=default quiet'" in told
    assert served.curl(f"{served.url}/node/v1/ticket", token=token)[0] == 404, "no boot is awaited"
    served.order(number, "idle")
    status, ticket = served.curl(f"{served.url}/node/v1/ticket", token=token)
    assert status == 200
    assert "etc/openqrm/ticket" in ticket
    for path in ("boot", "ticket"):
        assert served.curl(f"{served.url}/node/v1/{path}", token="made up")[0] == 401


def test_programs_are_handed_to_machines_alone(served: ServedNodeApi, tmp_path: Path) -> None:
    token = served.register()["TOKEN"]
    url = f"{served.url}/node/v1/programs/rsync.tar.gz"
    assert served.curl(url, token="made up")[0] == 401
    status, told = served.curl(f"{served.url}/node/v1/programs/passwd.tar.gz", token=token)
    assert (status, json.loads(told)["code"]) == (404, "not-found")
    archive = tmp_path / "rsync.tar.gz"
    header = ["-H", f"Authorization: Bearer {token}"]
    subprocess.run(["curl", "-sfk", *header, "-o", archive, url], check=True)
    with tarfile.open(archive) as packed:
        assert {"bin/rsync", "programs/rsync/rsync", "programs/rsync/lib/ld.so"} <= set(packed.getnames())


def test_orders_go_out_as_they_are_committed_and_answers_come_back(served: ServedNodeApi) -> None:
    answer = served.register()
    number = int(answer["RESOURCE_ID"])
    waiting = served.order(number, "services")
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello 1\n")
    stream.wait_for(f"order {waiting} services\n".encode())
    began = time.monotonic()
    fresh = served.order(number, "inventory")
    stream.wait_for(f"order {fresh} inventory\n".encode())
    assert time.monotonic() - began < 1, "an order does not wait for a poll"
    stream.say(f"ack {fresh}\nprogress {fresh} 50 half")
    eventually(lambda: served.order_state(fresh) == "acknowledged")
    stream.say(f"done {fresh} 0 sent")
    eventually(lambda: served.order_state(fresh) == "done")
    stream.close()
    again = MachineStream.open(served, answer["TOKEN"])
    again.wait_for(f"order {waiting} services\n".encode())
    assert f"order {fresh} ".encode() not in again.buffer
    again.close()


def test_heartbeats_are_stored_with_what_they_say(served: ServedNodeApi) -> None:
    answer = served.register()
    number = int(answer["RESOURCE_ID"])
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    stream.say("hb u=12.5 l=0.42 mt=499000 ma=400000 st=1024 sf=1000 c=2 n=1")
    eventually(lambda: number in served.health.latest([number]))
    beat = served.health.latest([number])[number]
    assert (beat.uptime, beat.load, beat.memory_total, beat.cpus) == (12.5, 0.42, 499000, 2)
    stream.close()


def test_curl_can_hold_a_stream_too(served: ServedNodeApi) -> None:
    answer = served.register()
    number = int(answer["RESOURCE_ID"])
    command = ["curl", "-sN", "--cacert", str(served.certificate), "-H", f"Authorization: Bearer {answer['TOKEN']}"]
    command += ["-X", "POST", "-T", ".", f"{served.url}/node/v1/stream"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as curl:
        assert curl.stdin is not None
        assert curl.stdout is not None
        assert curl.stdout.readline() == b"hello 1\n"
        for uptime in range(3):
            curl.stdin.write(f"hb u={uptime}\n".encode())
            time.sleep(0.3)
        eventually(lambda: number in served.health.latest([number]))
        order = served.order(number, "inventory")
        assert curl.stdout.readline() == f"order {order} inventory\n".encode()
        curl.kill()


def test_a_machine_that_logs_in_a_loop_does_not_fill_the_database(served: ServedNodeApi) -> None:
    answer = served.register()
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    for number in range(500):
        stream.say(f"log info line {number}")
    stream.say("hb u=1")
    eventually(lambda: served.health.latest([int(answer["RESOURCE_ID"])]))
    eventually(lambda: any("line 49" in text for text in served.events()))
    assert len([text for text in served.events() if ": line " in text]) < 60
    stream.close()


def test_a_stream_needs_a_valid_token(served: ServedNodeApi) -> None:
    served.register()
    for token in ("", "wrong", "ä" * 10):
        status, body = served.curl("-X", "POST", f"{served.url}/node/v1/stream", token=token)
        assert (status, json.loads(body)["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ["deployment", "files/agent", "services", "services/x.tar.gz"])
def test_everything_else_needs_a_valid_token_too(served: ServedNodeApi, path: str) -> None:
    assert served.curl(f"{served.url}/node/v1/{path}", token="wrong")[0] == 401


def test_files_and_services(served: ServedNodeApi) -> None:
    token = served.register()["TOKEN"]
    assert served.curl(f"{served.url}/node/v1/files/agent", token=token) == (200, "#!/bin/sh\n")
    for path in ("files/passwd", "files/..%2f..%2fetc%2fpasswd", "services/none.tar.gz"):
        assert served.curl(f"{served.url}/node/v1/{path}", token=token)[0] == 404
    assert served.curl(f"{served.url}/node/v1/services", token=token) == (200, "")
    assert served.curl(f"{served.url}/node/v1/deployment", token=token)[0] == 403


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        ("{}", 422, "mac"),
        ("not json", 422, None),
        ('{"mac": "52:54:00", "boot_id": "00000000-a", "stage": "initramfs"}', 422, "mac"),
        ('{"mac": "52:54:00:00:00:01", "boot_id": "00000000-a", "stage": "bios"}', 422, "stage"),
        ("[" * 100_000, 422, None),
        ("x" * 300_000, 413, None),
    ],
)
def test_a_malformed_registration_is_named(
    served: ServedNodeApi, tmp_path: Path, body: str, status: int, named: str
) -> None:
    file = tmp_path / "body"
    file.write_text(body)
    found, answer = served.curl("-d", f"@{file}", f"{served.url}/node/v1/register")
    assert found == status
    assert json.loads(answer).get("field") == named
    assert "Traceback" not in answer


def test_a_second_live_machine_is_turned_away_and_the_first_goes_on(served: ServedNodeApi) -> None:
    answer = served.register("00000000-a")
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.3):
            stream.say("hb u=1")

    thread = threading.Thread(target=beat)
    thread.start()
    time.sleep(0.5)
    status, body = served.post("00000000-b")
    stop.set()
    thread.join()
    assert status == 409
    assert "another live machine" in json.loads(body)["detail"]
    assert served.resource(int(answer["RESOURCE_ID"])).boot_id == "00000000-a"
    assert any("another live machine" in text for text in served.events())
    order = served.order(int(answer["RESOURCE_ID"]), "inventory")
    stream.wait_for(f"order {order}".encode())
    stream.close()


def test_a_machine_that_was_reset_is_taken_in_although_its_old_stream_is_half_open(served: ServedNodeApi) -> None:
    answer = served.register("00000000-a")
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    began = time.monotonic()
    served.register("00000000-b")
    assert time.monotonic() - began < 5
    with pytest.raises(EOFError):
        stream.wait_for(b"never")
    stream.close()


def test_silence_makes_a_machine_late_and_a_registration_makes_it_well(
    served: ServedNodeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "MONITOR_SECONDS", 0.1)
    answer = served.register("00000000-a")
    number = int(answer["RESOURCE_ID"])
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    stream.say("hb u=1")
    eventually(lambda: served.resource(number).health is Health.LATE, 15)
    served.register("00000000-b")
    time.sleep(0.5)
    assert served.resource(number).health is Health.OK, "its last heartbeat is old, but it has just spoken"
    stream.close()


def test_a_removed_machine_loses_its_stream(served: ServedNodeApi) -> None:
    answer = served.register()
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    with served.database.write() as writer:
        machine_tokens.forget(writer, int(answer["RESOURCE_ID"]))
    with pytest.raises(EOFError):
        stream.wait_for(b"never")
    assert served.curl("-X", "POST", f"{served.url}/node/v1/stream", token=answer["TOKEN"])[0] == 401
    stream.close()


def test_an_endless_line_and_a_flood_end_the_stream_and_nothing_else(served: ServedNodeApi) -> None:
    answer = served.register()
    stream = MachineStream.open(served, answer["TOKEN"])
    stream.wait_for(b"hello")
    with pytest.raises((EOFError, OSError)):
        _flood(stream)
    stream.close()
    again = MachineStream.open(served, answer["TOKEN"])
    again.wait_for(b"hello")
    again.close()


def _flood(stream: MachineStream) -> None:
    for _ in range(100):
        data = b"x" * 4000
        stream.socket.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        time.sleep(0.01)
    stream.wait_for(b"never", 5)


def _leased(served: ServedNodeApi, boot: str) -> tuple[int, str]:
    """A machine in the middle of a deployment, and the token its image is admitted with."""
    number = int(served.register(boot)["RESOURCE_ID"])
    with served.database.write() as writer:
        storage = writer.insert(Storage(name="store", type="nfs-storage", resource_id=number))
        volume = writer.insert(Volume(name="debian", storage_id=storage.id))
        image = writer.insert(Image(name="debian", volume_id=volume.id, fresh=True))
        appliance = writer.insert(Appliance(name="web", image_id=image.id))
        held = {"held_image": image.id, "held_resource": number}
        writer.insert(
            Lease(
                image_id=image.id,
                resource_id=number,
                appliance_id=appliance.id,
                operation_id=1,
                generation=3,
                **held,
            )
        )
        states.apply(writer, writer.get(Resource, number), "phase", "deploy")
        return number, machine_tokens.issue(writer, number, TokenPurpose.ADMISSION, Stage.IMAGE, boot, 3)


def _is_done(served: ServedNodeApi, order: int) -> bool:
    return served.order_state(order) == "done"


@pytest.fixture
def agent_folder(tmp_path: Path, certificate: tuple[Path, Path]) -> Path:
    """What the initramfs leaves to the agent, without a runtime: the system's own programs are used."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "ca.pem").write_bytes(certificate[0].read_bytes())
    (tmp_path / "agent").write_bytes(agent.script())
    return run


def _environment(run: Path, values: Mapping[str, Mapping[str, str]]) -> None:
    for name, pairs in values.items():
        (run / name).write_text("".join(f"{key}='{value}'\n" for key, value in pairs.items()))


def test_the_agents_own_script_registers_beats_and_obeys(served: ServedNodeApi, agent_folder: Path) -> None:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123  # a file of the kernel
        boot = file.read().strip()
    number, admission = _leased(served, boot)
    _environment(
        agent_folder,
        {
            "boot.env": {"API": served.url, "BOOT": "http://127.0.0.1:1", "MAC": MAC, "KERNEL": "default"},
            "identity.env": {"TOKEN": admission, "GENERATION": "3", "RETURN": "reboot"},
        },
    )
    command = ["sh", str(agent_folder.parent / "agent")]
    environment = os.environ | {"OPENQRM_RUN": str(agent_folder)}
    log = (agent_folder.parent / "log").open("wb")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    ) as running:
        try:
            eventually(lambda: served.resource(number).phase is Phase.ACTIVE, 20)
            eventually(lambda: number in served.health.latest([number]), 20)
            for verb in ("inventory", "services"):
                eventually(partial(_is_done, served, served.order(number, verb)), 20)
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            log.close()
    resource = served.resource(number)
    assert resource.health is Health.OK
    assert resource.memory_mb > 0
    assert resource.cpus == os.cpu_count()
