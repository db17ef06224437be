"""Machines of the lab whose root is a block device of the storage host: what tests of such exports have in common."""

from __future__ import annotations

import contextlib
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from openqrm.admin.demo import CommandError
from openqrm.testing.site import SiteError, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from openqrm.testing.site import Site

DIRECTORY = "/srv/openqrm-images"
SIZE_MB = 512
OUTAGE_SECONDS = 60
_KILL = 'for p in /proc/[0-9]*; do [ "$(cat $p/comm 2>/dev/null)" != {program} ] || kill -9 "${{p#/proc/}}"; done'
_WRITER = """
cat >/run/writer <<'END'
number=0
while :; do
    number=$((number + 1))
    if echo $number >/var/counter.new && sync /var/counter.new && mv /var/counter.new /var/counter; then
        echo $number $(cut -d ' ' -f 1 /proc/uptime) >>/run/written
    else
        echo $number >>/run/failed
    fi
    sleep 0.1
done
END
setsid sh /run/writer </dev/null >/run/writer.log 2>&1 &
"""


@contextlib.contextmanager
def image_on(site: Site, kind: str) -> Iterator[str]:
    """A storage of a type that keeps image files, with an image of the small system; its name. All is removed."""
    plugin = kind if kind.endswith("-storage") else f"{kind}-storage"
    for name in ("file-storage", plugin):
        if site("plugin", "show", name)["state"] == "disabled":
            site("plugin", "init", name)
            site("plugin", "start", name)
    site.on_storage(f"mkdir -p {DIRECTORY}")
    site("storage", "create", "--name", "blocks", "--type", kind, "--resource-id", "storage1")
    try:
        archive = ("--archive", site.ingredients.archive.name, "--size-mb", str(SIZE_MB))
        site("volume", "import", "--name", "disk", "--storage-id", "blocks", *archive)
        site("image", "create", "--name", "disk", "--volume-id", "disk")
        yield "disk"
    finally:
        site.as_found()
        with contextlib.suppress(CommandError):  # what is in use tells more about what went wrong before
            site("storage", "remove", "blocks")


def life_cycle(site: Site, image: str) -> None:
    """Idle, started, its page on port 80, stopped, idle again; then the same image on another machine. SiteError."""
    first, second = site.idle()
    site.make("web", "--resource-id", first["name"], image=image)
    began = time.monotonic()
    site("appliance", "start", "web")
    seen = site.page(first["address"])
    print(f"idle to page answered: {time.monotonic() - began:.1f} s")
    _expect("its name and its boots", (seen["host"], seen["boots"]), ("web", "1"))
    count = _count(site, first["address"])
    _expect("the counter in the image", _count(site, first["address"]) > count, wanted=True)
    _expect("its root", site.ssh(first["address"], "grep ' / ' /proc/mounts").split()[2], "ext4")
    count = _count(site, first["address"])
    site("appliance", "stop", "web")
    site.nothing_left()
    _expect("another boot", site.idle()[0]["boot_id"] != first["boot_id"], wanted=True)
    site("appliance", "update", "web", "--resource-id", second["name"])
    site("appliance", "start", "web")
    _expect("the one that moved", site.page(second["address"]), {"host": "web", "id": seen["id"], "boots": "2"})
    _expect("the counter that moved with it", _count(site, second["address"]) > count, wanted=True)
    site("appliance", "stop", "web")
    site.nothing_left()


def _count(site: Site, address: str) -> int:
    return int(site.page(address, "cgi-bin/count")["requests"])


def _expect(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise SiteError(f"{what}: {found}, not {wanted}")


def started(site: Site, image: str) -> str:
    """An appliance on the first idle machine; its address."""
    first = site.idle()[0]
    site.make("web", "--resource-id", first["name"], image=image)
    site("appliance", "start", "web")
    site.page(first["address"])
    return str(first["address"])


def start_writing(site: Site, address: str) -> None:
    """The machine writes a growing number to its root, to the disk, for ever; what fails is noted in memory."""
    site.ssh(address, _WRITER)
    written(site, address, after=1)


def written(site: Site, address: str, after: int, seconds: float = 60) -> int:
    """Wait until a number beyond `after` is on the disk; that number. SiteError also when a write failed meanwhile."""

    def there() -> int | None:
        said = site.ssh(address, "tail -n 1 /run/written 2>/dev/null; cat /run/failed 2>/dev/null; true").split()
        if len(said) > 2:
            raise SiteError(f"{address}: a write failed: {said}")
        return int(said[0]) if said and int(said[0]) > after else None

    return eventually(there, seconds, f"a write of {address} after number {after}", site.state)


def longest_stall(site: Site, address: str) -> float:
    """Seconds between two writes."""
    times = [float(line.split()[1]) for line in site.ssh(address, "cat /run/written").splitlines()]
    return max(later - earlier for earlier, later in pairwise(times))


def outlives_an_outage(site: Site, image: str, program: str) -> None:
    """The machine stalls while its server's processes are killed, and then the whole host is off; no write fails.

    SiteError when one does, or when there was no stall.
    """
    address = started(site, image)
    start_writing(site, address)
    site.on_storage(_KILL.format(program=program))
    last = written(site, address, after=1)
    written(site, address, after=last + 20)
    site.lab.power("storage", "off")
    time.sleep(OUTAGE_SECONDS)
    site.lab.power("storage", "on")
    written(site, address, after=last + 40, seconds=120)
    stall = longest_stall(site, address)
    print(f"longest stall: {stall:.1f} s, of a host that was off for {OUTAGE_SECONDS} s")
    _expect("a stall, as the host was off", stall > OUTAGE_SECONDS / 2, wanted=True)
    site("appliance", "stop", "web")
    site.nothing_left()
