"""The `iscsi-storage` plug-in with the kernel's iSCSI server (LIO), on a storage machine with a kernel of its own."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from openqrm.plugin_api.drivers import Cap, Grant, confirmed
from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.iscsi.plugin import PLUGIN
from openqrm.testing.access_iscsi import IscsiAccess
from openqrm.testing.storage_machine import DEAD, STORAGE, RealStorageMachine, storage_machine
from openqrm.testing.storage_subject import Subject
from openqrm.testing.storage_suite import ExportSuite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from openqrm.plugin_api.drivers import Client

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]

IMAGES = "/srv/images"
OFF_SECONDS = 5
"""A machine that was switched off lets go of its disks a moment later."""
SAVED = "/etc/rtslib-fb-target/saveconfig.json"
# What the service of python3-rtslib-fb does on a Debian host; this machine has no service manager.
RESTORE = f"""\
#!/bin/sh
modprobe -a iscsi_target_mod loop
[ ! -s {SAVED} ] || targetctl restore
"""
PREPARE = f"""
mkdir -p {IMAGES} /etc/openqrm/boot.d
printf '%s' "$1" >/etc/openqrm/boot.d/50-lio
chmod 755 /etc/openqrm/boot.d/50-lio
/etc/openqrm/boot.d/50-lio
sync
"""
BY_HAND = """
import os, sys
from rtslib_fb import LUN, TPG, FabricModule, FileIOStorageObject, NetworkPortal, RTSRoot, Target
path, client, number = sys.argv[1:]
tpg = TPG(Target(FabricModule("iscsi"), f"iqn.2000-01.org.example:hand-{number}"), 1)
tpg.set_attribute("generate_node_acls", "1")
LUN(tpg, 1, FileIOStorageObject(f"hand-{number}", path, os.path.getsize(path)))
NetworkPortal(tpg, "[::0]", 3260)
tpg.enable = True
RTSRoot().save_to_file()
"""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealStorageMachine]:
    with storage_machine(tmp_path_factory.mktemp("lio"), f"l{os.getpid() % 100000}") as running:
        running.shell(PREPARE, RESTORE)
        yield running


@pytest.fixture
async def subject(storage: RealStorageMachine) -> AsyncIterator[Subject]:
    made: list[int] = []

    async def restart() -> None:
        """As its service does: LIO itself is the kernel."""
        await asyncio.to_thread(storage.shell, "targetctl clear; targetctl restore")

    async def crash() -> None:
        await asyncio.to_thread(storage.power_off)
        await asyncio.to_thread(storage.power_on)

    async def grant_by_hand(location: str, client: Client) -> None:
        made.append(len(made))
        words = (location, client.address, str(made[-1]))
        await asyncio.to_thread(storage.inside, "python3", "-c", BY_HAND, *words)

    with storage.controller_network():
        hosts = storage.hosts()
        yield Subject.join(
            FILE,
            "file",
            PLUGIN,
            "iscsi",
            hosts=hosts,
            host=STORAGE,
            address=storage.address,
            dead_host=DEAD,
            clients=tuple(machine.client() for machine in storage.clients),
            access=IscsiAccess(storage.clients),
            restart=restart,
            set_host_link=lambda up: storage.set_link(up=up),
            crash=crash,
            grant_by_hand=grant_by_hand,
            settings={"directory": IMAGES, "server": "lio"},
            host_kind="storage machine",
            packages=("python3-rtslib-fb", "linux"),
            variant="lio",
        )
        await hosts.close()


class TestLio(ExportSuite):
    """The conformance suite."""


async def test_another_initiator_bound_to_our_target_is_found_and_taken_back(subject: Subject) -> None:
    volume, client = await subject.made("mine"), subject.clients[0]
    await subject.runner.do(await subject.authorize(volume, client, 1))
    ours = await subject.all_grants()
    thief = "iqn.2000-01.org.example:thief"
    bind = """
import sys
from rtslib_fb import MappedLUN, NodeACL, RTSRoot
tpg = next(each for each in RTSRoot().tpgs if each.parent_target.wwn.endswith(sys.argv[1]))
MappedLUN(NodeACL(tpg, sys.argv[2]), 1, 1)
RTSRoot().save_to_file()
"""
    await subject.shell(f'python3 -c "$1" volume-{volume.id} {thief}', bind)
    found = [each for each in await subject.all_grants() if each not in ours]
    assert found == [Grant("", thief, -1, subject.where(volume))]
    for _ in range(2):
        await subject.runner.do(await subject.withdraw(found[0]))
    assert await subject.all_grants() == ours
    assert await subject.reads(client, volume) == "mine"
    assert thief not in await subject.shell(f"cat {SAVED}")
    await subject.runner.do(await subject.revoke(volume, client, 1))
    assert await subject.shell(f"stat -c %a {SAVED}") == "600\n"
    await subject.drop(volume)


async def test_a_grant_survives_a_power_cut_and_so_does_a_revocation(
    subject: Subject, storage: RealStorageMachine
) -> None:
    kept, taken = await subject.made("kept"), await subject.made("taken")
    client = subject.clients[0]
    for volume in (kept, taken):
        await subject.runner.do(await subject.authorize(volume, client, 1))
    await subject.runner.do(await subject.revoke(taken, client, 1))
    await asyncio.to_thread(storage.power_off)
    await subject.forget_connections()
    await asyncio.sleep(OFF_SECONDS)
    await asyncio.to_thread(storage.power_on)
    assert await subject.reads(client, kept) == "kept"
    assert await subject.reads(client, taken) is None
    await subject.runner.do(await subject.revoke(kept, client, 1))
    await subject.drop(kept, taken)


async def test_what_this_host_has_is_seen(subject: Subject) -> None:
    assert confirmed(subject.export, Cap.REVOKE_PROOF, subject.context(), await subject.export_facts())
