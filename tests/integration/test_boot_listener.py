"""The boot listener over a socket: scripts computed when asked, tickets, files with ranges, and no way out."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uvloop

from openqrm.domain.appliance import Appliance, ApplianceDesired, AppliancePhase
from openqrm.domain.errors import UnavailableError
from openqrm.domain.event import Event
from openqrm.domain.kernel import Kernel
from openqrm.domain.lease import Lease
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.netboot.listener import BootContext, BootServer
from openqrm.operations import machine_tokens, machines
from openqrm.plugin_api.hooks import BootChange
from openqrm.testing.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from openqrm.plugin_api.records import Reader

MAC = "52:54:00:00:00:01"
CONTENT = bytes(range(256)) * 4096


class Hypervisor:
    """One plug-in that adds an argument."""

    def assign(self, resource: Resource, appliance: Appliance) -> tuple[BootChange, ...]:
        return (BootChange(arguments=(f"for={resource.name},{appliance.name}",)),)


@dataclass
class Listening:
    """A running listener."""

    database: MemoryDatabase
    port: int

    def curl(self, path: str, *arguments: str) -> tuple[int, bytes]:
        command = ["curl", "-sS", "-m", "20", "--path-as-is", "-w", "\n%{http_code}", *arguments]
        done = subprocess.run([*command, f"http://127.0.0.1:{self.port}{path}"], capture_output=True, check=True)
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body

    def script(self, query: str = "") -> list[str]:
        status, body = self.curl(f"/boot/script/52-54-00-00-00-01{query}")
        assert status == 200
        return body.decode().splitlines()

    def machine(self, phase: Phase) -> Resource:
        with self.database.write() as writer:
            return writer.insert(Resource(name="node-1", mac=MAC, phase=phase, boot_id="00000000-a"))


@pytest.fixture
def boot_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "boot/kernels/default"
    (folder / "modules/kernel").mkdir(parents=True)
    (folder / "vmlinuz").write_bytes(CONTENT)
    (folder / "modules/kernel/a.ko").write_bytes(b"module")
    (tmp_path / "boot/secret").write_text("secret")
    return tmp_path / "boot"


@pytest.fixture
def listening(boot_dir: Path) -> Iterator[Listening]:
    database = MemoryDatabase()
    with database.write() as writer:
        writer.insert(Kernel(name="default", version="6.1", default=True, ready=True, arguments="quiet"))
        writer.insert(Operation(name="appliance.start"))
    context = BootContext(
        database=database,
        hooks=lambda _: Hypervisor(),  # type: ignore[arg-type,return-value]  # all that is used of hooks
        boot_dir=boot_dir,
        boot_url="http://10.99.0.1:8080",
        api_url="https://10.99.0.1:8443",
        seen=lambda writer, resource: machines.script_asked(writer, resource, connected=False),
    )
    server = BootServer(context, "127.0.0.1", 0)
    server.start()
    yield Listening(database, server.port)
    server.stop()


def leased(listening: Listening, number: int) -> None:
    with listening.database.write() as writer:
        storage = writer.insert(Storage(name="store", type="nfs-storage", resource_id=number))
        volume = writer.insert(Volume(name="debian", storage_id=storage.id))
        image = writer.insert(Image(name="debian", volume_id=volume.id))
        running = {"phase": AppliancePhase.RUNNING, "desired": ApplianceDesired.RUNNING}
        appliance = writer.insert(Appliance(name="web", image_id=image.id, **running))
        ids = {"image_id": image.id, "resource_id": number, "appliance_id": appliance.id, "operation_id": 1}
        writer.insert(Lease(**ids, generation=1, held_image=image.id, held_resource=number))


def test_an_unknown_machine_gets_a_script_and_leaves_nothing_behind(listening: Listening) -> None:
    assert listening.script()[0] == "#!ipxe"
    assert listening.curl("/boot/ticket/52-54-00-00-00-01")[0] == 404
    with listening.database.read() as reader:
        assert reader.count(Resource) == 0


def test_asking_often_voids_no_ticket_and_is_refused(listening: Listening) -> None:
    number = listening.machine(Phase.RETURNING).id
    bodies = [listening.curl(f"/boot/ticket/{MAC}") for _ in range(10)]
    assert [status for status, _ in bodies] == [200] * 8 + [409] * 2
    own = bodies[0][1].split(b"etc/openqrm/ticket")[1].strip(b"\0").split(b"\n")[0].decode()
    with listening.database.write() as writer:
        (event,) = writer.find(Event)
        resource = writer.get(Resource, number)
        assert machine_tokens.redeem(writer, resource, own, "00000000-b") is machine_tokens.TicketVerdict.VALID
    assert "8 boot tickets" in event.text
    commits: list[object] = []
    listening.database.on_commit(commits.append)
    assert listening.curl("/boot/ticket/52-54-00-00-00-77")[0] == 404
    assert commits == []


def test_the_script_is_computed_when_it_is_asked_for(listening: Listening) -> None:
    number = listening.machine(Phase.IDLE).id
    assert "ticket" not in "".join(listening.script())
    leased(listening, number)
    lines = listening.script("?platform=efi")
    assert "initrd=initramfs initrd=ticket" in lines[2]
    assert lines[2].endswith("quiet for=node-1,web")
    assert lines[4] == "initrd --name ticket http://10.99.0.1:8080/boot/ticket/52-54-00-00-00-01"


def test_a_ticket_comes_as_an_archive_and_is_good_for_the_next_boot(listening: Listening, tmp_path: Path) -> None:
    number = listening.machine(Phase.RETURNING).id
    status, archive = listening.curl("/boot/ticket/52:54:00:00:00:01")
    assert status == 200
    subprocess.run(["cpio", "-i", "--quiet"], input=archive, cwd=tmp_path, check=True)
    ticket = (tmp_path / "etc/openqrm/ticket").read_text().strip()
    with listening.database.write() as writer:
        verdict = machine_tokens.redeem(writer, writer.get(Resource, number), ticket, "00000000-b")
    assert verdict is machine_tokens.TicketVerdict.VALID


def test_asking_for_the_script_shows_that_the_machine_started(listening: Listening) -> None:
    number = listening.machine(Phase.OFF).id
    listening.script()
    with listening.database.read() as reader:
        assert reader.get(Resource, number).phase is Phase.BOOTING


def test_files_have_ranges_and_tags(listening: Listening) -> None:
    path = "/boot/kernels/default/vmlinuz"
    assert listening.curl(path) == (200, CONTENT)
    assert listening.curl(path, "-r", "1000-1999") == (206, CONTENT[1000:2000])
    assert listening.curl(path, "-r", "-10") == (206, CONTENT[-10:])
    assert listening.curl(path, "-r", "99999999-")[0] == 416
    head = listening.curl(path, "-I")[1].decode()
    tag = next(line.split(": ", 1)[1].strip() for line in head.splitlines() if line.lower().startswith("etag"))
    assert listening.curl(path, "-H", f"If-None-Match: {tag}")[0] == 304
    assert listening.curl("/boot/kernels/default/modules/kernel/a.ko") == (200, b"module")


@pytest.mark.parametrize(
    "path",
    [
        "/boot/kernels/default/../../secret",
        "/boot/kernels/default/modules/../../../secret",
        "/boot/kernels/default/modules/..%2f..%2f..%2fsecret",
        "/boot/kernels/default/modules/%2e%2e/vmlinuz",
        "/boot/kernels/..%2f..%2f/secret",
        "/boot/kernels/default/modules/%2fetc/passwd",
        "/boot/kernels/default/modules//etc/passwd",
        "/boot/kernels/default/modules/kernel",
        "/boot/kernels/default/modules/a%00b",
        "/boot/secret",
        "/boot/script/zz",
        "/boot/script/01-00-00-00-00-00",
        "/boot/ticket/%0a",
        "/etc/passwd",
        "/",
    ],
)
def test_nothing_else_is_handed_out(listening: Listening, path: str) -> None:
    status, body = listening.curl(path)
    assert status == 404
    assert b"root:" not in body
    assert body != b"secret"


def test_a_database_that_is_away_is_said_to_be_and_files_go_on(listening: Listening) -> None:
    def away() -> AbstractContextManager[Reader]:
        raise UnavailableError("the database is away")

    listening.database.read = away  # type: ignore[method-assign,assignment]  # as if its server were down
    assert listening.curl("/boot/script/52-54-00-00-00-01")[0] == 503
    assert listening.curl("/boot/kernels/default/vmlinuz")[0] == 200


def test_files_are_sent_by_the_kernel_also_beside_uvloop(boot_dir: Path) -> None:
    """uvloop has no sendfile of its own: the listener must not run on it, whatever the controller uses."""
    used: list[type] = []

    async def begin() -> None:
        context = BootContext(MemoryDatabase(), lambda _: pytest.fail("not asked"), boot_dir, "", "")
        server = BootServer(context, "127.0.0.1", 0)
        server.start()
        used.append(type(server.loop))
        await asyncio.to_thread(server.stop)

    uvloop.run(begin())
    assert issubclass(used[0], asyncio.SelectorEventLoop)


def test_a_port_in_use_is_an_error_at_once(listening: Listening, boot_dir: Path) -> None:
    context = BootContext(listening.database, lambda _: pytest.fail("not asked"), boot_dir, "", "")
    with pytest.raises(OSError, match="in use"):
        BootServer(context, "127.0.0.1", listening.port).start()
