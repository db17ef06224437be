"""Who may not: a machine without a grant, one whose grant was taken, and those that only say they are a machine."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.admin.lab.network import CONTROLLER_ADDRESS, STORAGE_ADDRESS
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]

LOAD_NFS = """\
for path in $(modprobe -a -D nfs nfsv4 | sed -n 's/^insmod //p'); do
    [ -e "$path" ] && continue
    mkdir -p "${path%/*}"
    wget -q -O "$path" "http://CONTROLLER:8080/boot/kernels/lab/modules/${path#/lib/modules/$(uname -r)/}" || exit 1
done
modprobe -a nfs nfsv4 && grep nfs4 /proc/filesystems
"""


def try_mount(site: Site, address: str, path: str) -> str:
    """What an idle machine's mount(8) says to an export; ends with `status=` and its status."""
    options = f"addr={STORAGE_ADDRESS},vers=4.1,soft,timeo=50,retrans=1,clientaddr=0.0.0.0"
    mount = f"mount -t nfs4 -o {options} {STORAGE_ADDRESS}:{path} /tmp/m"
    command = f"umount -l /tmp/m 2>/dev/null; mkdir -p /tmp/m && {mount} && ls /tmp/m"
    return site.ssh(address, command, check=False, seconds=90)


def test_a_machine_without_a_grant_cannot_mount_the_image(site: Site) -> None:
    first, second = site.idle()
    assert "nfs4" in site.ssh(second["address"], LOAD_NFS.replace("CONTROLLER", CONTROLLER_ADDRESS))
    site.make("web", "--resource-id", first["name"])
    for what in ("before anything is granted", "while it is granted to another machine"):
        for path in ("/srv/openqrm/web", "/srv/openqrm/golden"):
            said = try_mount(site, second["address"], path)
            assert "status=0" not in said, what
            assert "denied" in said.lower() or "no such file" in said.lower(), said
        if not site.leases():
            site("appliance", "start", "web")
    try_mount(site, second["address"], "/")  # the server's own root has names in it, at most
    inside = "ls /tmp/m/srv/openqrm/web/ /tmp/m/srv/openqrm/golden/; cat /tmp/m/srv/openqrm/web/etc/shadow"
    assert "root" not in site.ssh(second["address"], inside, check=False)
    site.ssh(second["address"], "umount -l /tmp/m; true")
    site("appliance", "stop", "web")


WRITER = """\
n=0; while :; do n=$((n + 1)); echo $n | dd of=/counter bs=512 conv=sync,fsync,notrunc oflag=direct 2>/dev/null
done >/dev/null 2>&1 </dev/null &
"""


@pytest.fixture
def cut_off(site: Site) -> Iterator[Any]:
    """Takes a node's network cable out and puts it in again; all are in at the end."""
    cut: set[str] = set()

    def cable(node: str, state: str) -> None:
        cut.add(node)
        site.lab.inside("ip", "link", "set", f"tap{site.lab.node(node).number}", state)

    yield cable
    for node in tuple(cut):
        cable(node, "up")
        site.power("off", node)


@pytest.mark.slow_lab
def test_a_machine_that_lost_its_grant_never_writes_again(site: Site, cut_off: Any) -> None:
    first, second = site.idle()
    site.make("web", "--resource-id", first["name"])
    site("appliance", "start", "web")
    site.ssh(first["address"], WRITER)

    def counter() -> int:
        return int(site.on_storage("tr -d '\\0' </srv/openqrm/web/counter || true").split("\n")[0] or 0)

    eventually(lambda: counter() > 3, 30, "a counter that grows")
    node = site.node_of(first)
    cut_off(node, "down")
    began = time.monotonic()
    site("appliance", "stop", "web")
    print(f"stopped by revocation alone after {time.monotonic() - began:.0f} s")
    site.nothing_left()
    last = counter()
    cut_off(node, "up")
    site("appliance", "update", "web", "--resource-id", second["name"])
    site("appliance", "start", "web")
    assert site.page(second["address"])["boots"] == "2"
    for _ in range(10):
        time.sleep(1)
        assert counter() == last, "the old holder still writes"
    site("appliance", "stop", "web")


def api(site: Site, path: str, token: str = "", body: dict[str, Any] | None = None) -> tuple[int, dict[str, str], str]:
    """One request to the node API, by curl from inside the lab's network: status, `NAME='value'` lines, text."""
    argv = ["curl", "-s", "-m", "60", "--cacert", str(site.lab.controller.home / "tls/ca.pem"), "-w", "\n%{http_code}"]
    if token:
        argv += ["-H", f"Authorization: Bearer {token}"]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    text, _, status = site.lab.inside(*argv, f"https://{CONTROLLER_ADDRESS}:8443/node/v1/{path}").rpartition("\n")
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("{"))
    return int(status), {name: value.strip("'") for name, value in values.items()}, text


def report(mac: str, **more: Any) -> dict[str, Any]:
    """What a machine says of itself when it registers."""
    plain = {"mac": mac, "boot_id": str(uuid.uuid4()), "stage": "initramfs", "ticket": "", "generation": 0, "token": ""}
    machine = {"arch": "x86_64", "kernel": "6.1", "firmware": "bios", "hostname": "x", "memory_mb": 470, "cpus": 1}
    rest = {"cpu_model": "x", "swap_mb": 0, "nics": [], "disks": [], "dmi": {}, "ssh_host_keys": []}
    return {**plain, **machine, **rest, **more}


def test_a_wrong_token_opens_nothing(site: Site) -> None:
    first, _ = site.idle()
    for path in ("deployment", "services", "files/agent"):
        for token in ("wrong", "", "../../etc/passwd"):
            status, _, text = api(site, path, token)
            assert status == 401, (path, token, text)
            assert json.loads(text)["status"] == 401
    image = report(first["mac"], stage="image", token="wrong", generation=1)
    for boot_id in (first["boot_id"], image["boot_id"]):
        status, _, text = api(site, "register", body={**image, "boot_id": boot_id})
        assert status == 401, text
    assert site.resource(first["id"]) == first, "nothing of the machine changed"


def test_a_second_machine_with_the_same_mac_is_refused_while_the_first_one_lives(site: Site) -> None:
    first, _ = site.idle()
    seen = site.last_event()
    status, _, text = api(site, "register", body=report(first["mac"]))
    assert status == 409, text
    assert "another live machine" in json.loads(text)["detail"]
    assert site.events("another live machine has the MAC address", after=seen)
    assert site.resource(first["id"])["boot_id"] == first["boot_id"]
    box = site("resource", "show", "storage1")
    status, _, text = api(site, "register", body=report(box["mac"]))
    assert status == 409, text
    assert "closed box" in json.loads(text)["detail"]


def ticket_of(site: Site, mac: str) -> str:
    """A boot ticket, as whoever is on the boot network can get one."""
    argv = (
        f"curl -sf http://{CONTROLLER_ADDRESS}:8080/boot/ticket/{mac} | busybox cpio -i --to-stdout etc/openqrm/ticket"
    )
    return site.lab.inside("sh", "-c", f"{argv} 2>/dev/null").strip()


@pytest.mark.slow_lab
def test_a_ticket_redeemed_twice_stops_the_deployment_and_tells(site: Site) -> None:
    first, _ = site.idle()
    site.make("web", "--resource-id", first["name"])
    site("appliance", "start", "web")
    node = site.node_of(first)
    site.power("off", node)
    seen = site.last_event()
    ticket = ticket_of(site, first["mac"])
    assert len(ticket) > 20
    status, answer, text = api(site, "register", body=report(first["mac"], ticket=ticket))
    assert status == 200, text
    status, _, text = api(site, "register", body=report(first["mac"], ticket=ticket))
    assert status == 409, text
    assert site.events("redeemed twice", after=seen)[0]["severity"] == "error"
    status, _, text = api(site, "deployment", answer["TOKEN"])
    assert status == 401, "what the first redemption got is void too"
    site("appliance", "stop", "web")
