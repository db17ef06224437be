"""Machines with their root on iSCSI: started, stopped, impersonated, and running on while their server is away."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from openqrm.testing.block_roots import image_on, life_cycle, longest_stall, start_writing, started, written
from openqrm.testing.site import eventually

if TYPE_CHECKING:
    from openqrm.testing.site import Site

pytestmark = [pytest.mark.lab, pytest.mark.timeout(600)]
OUTAGE_SECONDS = 60
KILL = "kill -9 $(cat /run/tgtd/pid)"
LIBRARY = """
OPENQRM_LIBRARY=1 STAGE=initramfs
. /run/openqrm/boot.env
. /run/openqrm/agent
for stage in hardware programs block; do . /lib/openqrm/$stage.sh; done
MODULES=/lib/modules/$(uname -r)
say() { :; }
refuse() { echo "refused: $*"; exit 1; }
"""
# It takes the address and the MAC of another machine, which is off, for as long as it tries.
POSE = f"""{LIBRARY}
need_modules iscsi_tcp sd_mod crc32c_generic
need_programs iscsistart
cat >/run/pose.sh <<'END'
. /run/openqrm/boot.env
own=$(ip -4 -o addr show dev $BOOT_NIC | sed 's/.*inet \\([^ ]*\\).*/\\1/')
take() {{
    ip link set $BOOT_NIC down
    ip addr flush dev $BOOT_NIC
    ip link set $BOOT_NIC address $1
    ip addr add $2 dev $BOOT_NIC
    ip link set $BOOT_NIC up
    sleep 1
}}
take $THEIR_MAC $THEIR_ADDRESS/24
for secret in "" "-u $LOGIN -w wrong-wrong-wrong" "-u $LOGIN -w $SECRET"; do
    timeout 30 /run/openqrm/rt/bin/iscsistart -i $INITIATOR -t $TARGET -g 1 -a $PORTAL $secret
    echo "status $?"
done >/run/posed.new 2>&1
take $MAC $own
mv /run/posed.new /run/posed
END
export THEIR_MAC THEIR_ADDRESS INITIATOR TARGET PORTAL LOGIN SECRET
setsid sh /run/pose.sh </dev/null >/run/pose.log 2>&1 &
"""


def test_started_stopped_and_the_same_one_on_another_machine(site: Site) -> None:
    with image_on(site, "iscsi-storage") as image:
        life_cycle(site, image)
        assert "volume-" not in site.on_storage("tgtadm --mode target --op show; ls /etc/tgt/conf.d")


def test_a_machine_that_poses_as_another_does_not_get_its_root(site: Site) -> None:
    """It has the other one's MAC and address, and says its initiator name: without the secret it is refused."""
    with image_on(site, "iscsi-storage") as image:
        first, second = site.idle()
        started(site, image)
        file = site.on_storage("cat /etc/tgt/conf.d/openqrm-*.conf").split()
        names = {"TARGET": "<target", "LOGIN": "incominguser", "INITIATOR": "initiator-name"}
        told = {name: file[file.index(word) + 1].rstrip(">") for name, word in names.items()}
        told |= {"SECRET": file[file.index("incominguser") + 2], "PORTAL": "10.99.0.2"}
        told |= {"THEIR_MAC": first["mac"], "THEIR_ADDRESS": first["address"]}
        site.power("off", site.node_of(first))
        site.ssh(second["address"], "\n".join(f"{name}={text}" for name, text in told.items()) + POSE)
        said = eventually(lambda: attempts(site, second["address"]), 180, "its attempts", site.state)
        print(said)
        ends = [line.split()[1] for line in said.splitlines() if line.startswith("status ")]
        assert "0" not in ends[:2], "without the secret it was let in"
        assert ends[2] == "0", "it was not the secret that kept it out"
        site.power("reset", site.node_of(second))
        site("appliance", "stop", "web")
        site.nothing_left()


def attempts(site: Site, address: str) -> str | None:
    """What they came to; None while the machine is somebody else."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        said = site.ssh(address, "cat /run/posed", check=False, seconds=10)
        return said if said.count("status ") == 3 else None
    return None


@pytest.mark.slow_lab
def test_a_server_that_dies_is_a_stall_and_no_error(site: Site) -> None:
    with image_on(site, "iscsi-storage") as image:
        address = started(site, image)
        start_writing(site, address)
        site.on_storage(KILL)
        last = written(site, address, after=1)
        last = written(site, address, after=last + 20)
        print(f"longest stall: {longest_stall(site, address):.1f} s, of a server that was killed")
        site.lab.power("storage", "off")
        time.sleep(OUTAGE_SECONDS)
        site.lab.power("storage", "on")
        written(site, address, after=last + 20, seconds=180)
        print(f"longest stall: {longest_stall(site, address):.1f} s, of a host that was off for {OUTAGE_SECONDS} s")
        assert longest_stall(site, address) > OUTAGE_SECONDS / 2
        site("appliance", "stop", "web")
        site.nothing_left()
