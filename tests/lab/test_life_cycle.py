"""The main job on real machines: idle, started, answering from port 80, stopped, idle again, and the same one later."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(420)]


def test_idle_machines_have_reported_what_they_are(site: Site) -> None:
    for resource, node in zip(site.idle(), site.lab.nodes(), strict=True):
        assert resource["mac"] == node.macs()[0]
        assert (resource["cpus"], resource["arch"], resource["firmware"]) == (1, "x86_64", "bios")
        assert 400 < resource["memory_mb"] <= site.lab.state.spec.memory_mb
        assert resource["nic_count"] == 1
        assert "QEMU" in resource["cpu_model"]
        reported = site("resource", "show", resource["name"])
        assert reported["inventory"]["nics"][0]["driver"] == "virtio_net"
        assert site.ssh(resource["address"], "cat /proc/sys/kernel/random/boot_id").strip() == reported["boot_id"]
        assert site.ssh(resource["address"], "cat /proc/sys/kernel/hostname").strip() == resource["name"]


def test_started_stopped_and_the_same_one_on_another_machine(site: Site) -> None:
    first, second = site.idle()
    site.make("web", "--resource-id", first["name"])
    began = time.monotonic()
    site("appliance", "start", "web")
    seen = site.page(first["address"])
    seconds = time.monotonic() - began
    print(f"idle to page answered: {seconds:.1f} s ({site.lab.state.accelerator})")
    assert (seen["host"], seen["boots"]) == ("web", "1")
    asked = [int(site.page(first["address"], "cgi-bin/count")["requests"]) for _ in range(3)]
    assert asked == sorted(set(asked)), "each request counts; one that a busy machine answers too late counts too"
    started = site.appliance("web")
    assert (started["phase"], started["address"]) == ("running", first["address"])
    assert (site.resource(first["id"])["phase"], site.resource(second["id"])["phase"]) == ("active", "idle")
    assert f"Clients = {first['address']};" in site.grants()

    site("appliance", "stop", "web")
    site.nothing_left()
    (again, _) = site.idle()
    assert again["boot_id"] != first["boot_id"], "idle again means another boot"
    assert site.ssh(again["address"], "cat /proc/sys/kernel/random/boot_id").strip() == again["boot_id"]

    site("appliance", "update", "web", "--resource-id", second["name"])
    site("appliance", "start", "web")
    moved = site.page(second["address"])
    assert moved == {"host": "web", "id": seen["id"], "boots": "2"}
    assert int(site.page(second["address"], "cgi-bin/count")["requests"]) > asked[-1], "the counter is in the image"
    site("appliance", "stop", "web")
    site.nothing_left()


IDENTITY = "cat /etc/machine-id /etc/ssh/ssh_host_ed25519_key.pub | cut -d ' ' -f 1-2"


@pytest.mark.slow_lab
def test_clones_are_machines_of_their_own_and_no_secret_lies_about(site: Site) -> None:
    site.make("one")
    site.make("two")
    secret = "correct-horse-battery"
    site("image", "set-password", "one", "--password", "-", secret=f"{secret}\n")
    site("appliance", "start", "one")
    site("appliance", "start", "two")
    addresses = {name: site.appliance(name)["address"] for name in ("one", "two")}
    identities = {name: site.ssh(address, IDENTITY).split() for name, address in addresses.items()}
    assert all(len(identity) == 3 for identity in identities.values()), identities
    assert not set(identities["one"]) & set(identities["two"]) - {"ssh-ed25519"}

    shadow = {name: site.ssh(address, "grep ^root: /etc/shadow").split(":")[1] for name, address in addresses.items()}
    made = site.ssh(addresses["one"], f"perl -e 'print crypt($ARGV[0], $ARGV[1])' {secret} '{shadow['one']}'")
    assert shadow["one"].startswith("$6$")
    assert made == shadow["one"]
    assert shadow["two"] in ("*", "!", "")

    assert_nowhere(site, secret, addresses["one"])
    token = site.ssh(addresses["one"], "cut -d ' ' -f 3 /run/openqrm/authorization").strip()
    assert len(token) > 20
    assert_nowhere(site, token, addresses["one"])
    assert_nowhere(site, site.password, addresses["one"])


def assert_nowhere(site: Site, secret: str, address: str) -> None:
    """Neither in the image, nor in logs, nor in a process list, nor in the database's plain text."""
    assert secret not in site.ssh(address, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    found = site.on_storage(f"grep -rlF -e '{secret}' /srv/openqrm/one /etc /var /root 2>/dev/null || true")
    assert not found, f"on the storage host: {found}"
    home = site.lab.directory
    texts = [*home.rglob("*.log"), *(home / "controller").glob("openqrm*.db*")]
    guilty = [str(path) for path in texts if secret.encode() in path.read_bytes()]
    assert not guilty


@pytest.mark.slow_lab
def test_the_cli_refuses_what_the_life_cycle_does_not_allow(site: Site) -> None:
    site.make("web")
    assert site.refusal("appliance", "stop", "web").code == 4
    site("appliance", "start", "web")
    for words in (("appliance", "start", "web"), ("appliance", "remove", "web"), ("image", "remove", "web")):
        refused = site.refusal(*words)
        assert refused.code == 4, words
        assert refused.problem["detail"]
    site("appliance", "create", "--name", "thief", "--image-id", "web")
    refused = site.refusal("appliance", "start", "thief")
    assert refused.code == 4
    assert "in use by appliance web" in refused.problem["detail"]
    assert refused.problem["field"] == "image_id"
    site("appliance", "remove", "thief")
    site("appliance", "stop", "web")
