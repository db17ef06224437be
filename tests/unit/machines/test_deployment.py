"""What a machine is told to deploy, and who is told."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.api.node import wire
from openqrm.domain.appliance import Appliance, AppliancePhase
from openqrm.domain.errors import ConflictError, ForbiddenError
from openqrm.domain.kernel import Kernel
from openqrm.domain.machine import Stage
from openqrm.domain.storage import Image
from openqrm.operations import deployment, machine_tokens, mounting
from openqrm.plugin_api.hooks import BootChange

if TYPE_CHECKING:
    from tests.unit.machines.conftest import World

    from openqrm.plugin_api.drivers import Client
    from openqrm.plugin_api.records import Reader

HOOK = b"mount_root() { mount ...; }\n"
ATTACH = {
    "ROOT_SERVER": "10.99.0.2",
    "ROOT_PATH": "/exports/debian",
    "FSTAB": "10.99.0.2:/x / nfs4 rw 0 0",
    "PATH": "/evil",
}


class Nfs:
    """Drivers of one export, as a plug-in would bring them."""

    def pool(self, storage: Any) -> Nfs:
        return self

    def export(self, storage: Any) -> Nfs:
        return self

    def context(self, storage: Any, reader: Reader) -> None:
        return None

    def require(self, storage: Any, capability: str) -> None:
        return None

    def location(self, context: Any, volume: Any) -> str:
        return f"/exports/{volume.name}"

    def attach(self, context: Any, volume: Any, location: str, client: Client) -> dict[str, str]:
        assert location == "/exports/debian"
        return dict(ATTACH)


class Changes:
    """Assign hooks that change the boot."""

    def __init__(self, *changes: BootChange) -> None:
        self.changes = changes

    def assign(self, resource: Any, appliance: Any) -> tuple[BootChange, ...]:
        return self.changes


def asked(world: World, token: str, *changes: BootChange, hook: bytes | None = HOOK) -> dict[str, str]:
    around = mounting.Surroundings(
        lambda _: Nfs(),  # type: ignore[arg-type,return-value]  # what a deployment needs of drivers
        lambda _: Changes(*changes),  # type: ignore[arg-type,return-value]  # and of hooks
        lambda _, name: hook if name == "root-mount.nfs-root" else None,
        "https://10.99.0.1:8443",
        "http://10.99.0.1:8080",
        "ssh-ed25519 AAAA openqrm\n",
        lambda kernel, file: f"sum of {kernel} {file}",
        lambda key: f"secret {key}",
    )
    with world.database.write() as writer:
        session = machine_tokens.session_of(writer, token)
        assert session is not None
        return deployment.assignments(writer, session, around)


def ordered(world: World, running: str = "6.1") -> tuple[int, str]:
    taken = world.register("00000000-a", kernel=running)
    world.lease(taken.resource.id)
    world.phase(taken.resource.id, "deploy")
    world.order(taken.resource.id, "deploy")
    return taken.resource.id, taken.token


def test_the_answer_holds_all_that_the_initramfs_needs(world: World) -> None:
    number, token = ordered(world)
    answer = asked(world, token)
    admission = answer.pop("TOKEN")
    assert answer == {
        "ORDER": str(world.orders(number)[0].id),
        "APPLIANCE": "web",
        "IMAGE": "debian",
        "GENERATION": "1",
        "METHOD": "switch",
        "DEPLOYMENT": "nfs-root",
        "START": "root",
        "ROOT_FS": "",
        "HOOK_URL": "https://10.99.0.1:8443/node/v1/files/root-mount.nfs-root",
        "HOOK_SHA256": hashlib.sha256(HOOK).hexdigest(),
        "ROOT_SERVER": "10.99.0.2",
        "ROOT_PATH": "/exports/debian",
        "KERNEL": "default",
        "KERNEL_VERSION": "6.1",
        "KERNEL_ARGS": "quiet",
        "VMLINUZ_URL": "http://10.99.0.1:8080/boot/kernels/default/vmlinuz",
        "INITRAMFS_URL": "http://10.99.0.1:8080/boot/kernels/default/initramfs",
        "MODULES_URL": "http://10.99.0.1:8080/boot/kernels/default/modules.tar.gz",
        "VMLINUZ_SHA256": "",
        "INITRAMFS_SHA256": "",
        "MODULES_SHA256": "sum of default modules.tar.gz",
        "ROOT_PASSWORD_HASH": "$6$x",
        "FIRST_BOOT": "1",
        "NAME": "web",
        "AUTHORIZED_KEY": "ssh-ed25519 AAAA openqrm",
        "FSTAB": "10.99.0.2:/x / nfs4 rw 0 0",
        "STORAGE_NIC": "",
        "RETURN": "kexec",
    }
    with world.database.read() as reader:
        assert machine_tokens.session_of(reader, admission) is None, "an admission registers an image, nothing else"
        assert machine_tokens.admits(reader, number, admission, stage=Stage.IMAGE, boot_id="00000000-a", generation=1)


def test_the_agent_registers_with_the_token_of_the_deployment_asked_for_last(world: World) -> None:
    _, token = ordered(world)
    first, second = asked(world, token)["TOKEN"], asked(world, token)["TOKEN"]
    assert world.refused("00000000-a", stage="image", generation=1, token=first).status == 401
    world.register("00000000-a", stage="image", generation=1, token=second)
    with world.database.read() as reader:
        assert not reader.find(Image)[0].fresh


def test_another_kernel_is_entered_by_kexec_and_then_the_machine_switches(world: World) -> None:
    number, token = ordered(world, running="5.10")
    answer = asked(world, token)
    assert (answer["METHOD"], answer["TOKEN"]) == ("kexec", "")
    again = world.register("00000000-b", kernel="6.1", ticket=world.ticket(number))
    assert asked(world, again.token)["METHOD"] == "switch"


def test_a_kernel_with_other_arguments_is_entered_by_kexec(world: World) -> None:
    _, token = ordered(world)
    with world.database.write() as writer:
        other = writer.insert(Kernel(name="other", version="6.1", arguments="quiet debug"))
        writer.update(writer.find(Appliance)[0], kernel_id=other.id)
    assert asked(world, token)["METHOD"] == "kexec"


def test_a_machine_is_not_sent_round_in_circles(world: World) -> None:
    number, _ = ordered(world, running="5.10")
    again = world.register("00000000-b", kernel="5.10", ticket=world.ticket(number))
    with pytest.raises(ConflictError, match=r"registered as 6\.1, but runs as 5\.10"):
        asked(world, again.token)


@pytest.mark.parametrize(
    ("change", "method"),
    [
        (BootChange(), "switch"),
        (BootChange(arguments=("nosmt",)), "kexec"),
        (BootChange(before_kernel="http://a/xen"), "reboot"),
        (BootChange(extra_initrds=("http://a/x",)), "reboot"),
    ],
)
def test_a_plugins_change_of_the_boot_needs_a_boot_once(world: World, change: BootChange, method: str) -> None:
    number, token = ordered(world)
    answer = asked(world, token, change)
    assert answer["METHOD"] == method
    assert answer["KERNEL_ARGS"] == " ".join(["quiet", *change.arguments])
    again = world.register("00000000-b", ticket=world.ticket(number))
    assert asked(world, again.token, change)["METHOD"] == "switch"


def test_a_ticket_of_an_earlier_boot_does_not_count_for_a_later_order(world: World) -> None:
    number = world.register("00000000-a").resource.id
    taken = world.register("00000000-b", kernel="5.10", ticket=world.ticket(number))
    world.lease(number)
    world.phase(number, "deploy")
    world.order(number, "deploy")
    assert asked(world, taken.token)["METHOD"] == "kexec"


def test_the_appliances_own_kernel_wins(world: World) -> None:
    _, token = ordered(world)
    with world.database.write() as writer:
        kernel = writer.insert(Kernel(name="special", version="6.6", ready=True))
        writer.update(writer.find(Appliance)[0], kernel_id=kernel.id)
    answer = asked(world, token)
    assert (answer["KERNEL"], answer["METHOD"]) == ("special", "kexec")


def test_without_an_order_there_is_no_deployment(world: World) -> None:
    taken = world.register("00000000-a")
    world.lease(taken.resource.id)
    with pytest.raises(ForbiddenError):
        asked(world, taken.token)


def test_without_a_lease_that_is_meant_to_run_there_is_no_deployment(world: World) -> None:
    _, token = ordered(world)
    world.appliance_becomes(AppliancePhase.STOPPING)
    with pytest.raises(ForbiddenError):
        asked(world, token)


def test_a_deployment_type_without_a_hook_is_named(world: World) -> None:
    _, token = ordered(world)
    with pytest.raises(ConflictError, match=r"root-mount\.nfs-root"):
        asked(world, token, hook=None)


@pytest.mark.parametrize("value", ["", "plain", "it's", "$(reboot)", "a b;c|d`e`", "line\nline", "\\", "'", '"', "é"])
def test_a_shell_reads_every_value_as_it_is(value: str) -> None:
    text = wire.assignments({"VALUE": value})
    printed = subprocess.run(
        ["sh", "-c", f'{text}\nprintf %s "$VALUE"'], capture_output=True, check=True
    ).stdout.decode()
    assert printed == value
    assert shlex.split(text)[0] == f"VALUE={value}"
