"""The pool of ZFS file systems on a real storage host, by zfs-fuse: the only ZFS in Debian's main archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from openqrm.domain.errors import CommandFailedError, UnsupportedError
from openqrm.plugin_api.drivers import Cap, confirmed
from openqrm.plugins.storage.zfs.plugin import PLUGIN
from openqrm.testing import needs
from openqrm.testing.storage_attributes import check_attributes_are_listed
from openqrm.testing.storage_on_host import RealPoolSuite
from openqrm.testing.storage_subject import Subject

if TYPE_CHECKING:
    from collections.abc import Mapping

START = """\
#!/bin/sh
mkdir -p /run/zfs /var/lock/zfs /var/lib/zfs
setsid zfs-fuse --enable-xattr --no-daemon --pidfile /run/zfs-fuse.pid </dev/null >/var/log/zfs-fuse.log 2>&1 &
for _ in $(seq 100); do ! zpool list >/dev/null 2>&1 || break; sleep 0.1; done
zfs mount -a
"""
PREPARE = f"""\
mkdir -p /etc/init.d
cat >/etc/init.d/openqrm-zfs <<'END'
{START}END
chmod 755 /etc/init.d/openqrm-zfs
/etc/init.d/openqrm-zfs start </dev/null >/dev/null 2>&1
for name in tank small; do
    size=160M
    [ $name = small ] || size=4G
    truncate -s $size /srv/openqrm/$name.zfs
    zpool create -O mountpoint=/srv/$name $name /srv/openqrm/$name.zfs
    zfs create $name/openqrm
done
"""

pytestmark = pytest.mark.usefixtures("zfs_fuse")


@pytest.fixture(scope="module")
def zfs_fuse() -> None:
    """This machine has it."""
    needs.root_and("zfs-fuse")


class TestZfs(RealPoolSuite):
    """The conformance suite of the pool for trees."""

    plugin = PLUGIN
    pool = "zfs-tree"
    prepare = PREPARE
    settings: ClassVar[Mapping[str, object]] = {"directory": "/srv/tank/openqrm"}
    small_settings: ClassVar[Mapping[str, object] | None] = {
        "dataset": "small/openqrm",
        "directory": "/srv/small/openqrm",
    }

    async def test_a_source_is_removed_and_its_copies_live_on(self, subject: Subject) -> None:
        """Copies of copies too, in whichever order; nothing of them is left in the end."""
        source = await subject.made("one")
        copies = [subject.volume() for _ in range(3)]
        for parent, copy in zip((source, source, copies[0]), copies, strict=True):
            await subject.runner.do(await subject.clone(parent, copy))
        await subject.drop(source)
        assert [await subject.mark(copy) for copy in copies] == ["one"] * 3
        await subject.drop(copies[0])
        assert await subject.mark(copies[2]) == "one"
        await subject.drop(copies[1], copies[2])
        left = await subject.shell("zfs get -H -r -o name type tank/openqrm")
        assert not [line for line in left.splitlines() if "@openqrm-" in line]

    async def test_a_volume_is_held_to_its_size(self, subject: Subject) -> None:
        volume = await subject.made(size_mb=20)
        write = 'head -c 30000000 /dev/urandom >"$1/big" 2>/dev/null && sync "$1" && echo all || echo some'
        assert await subject.in_tree(volume, write) == "some\n"
        await subject.runner.do(await subject.resize(volume, 60))
        assert await subject.in_tree(volume, write) == "all\n"
        await subject.drop(volume)

    async def test_extended_attributes_are_listed_for_what_mounts_by_nfs(self, subject: Subject) -> None:
        await check_attributes_are_listed(subject)

    async def test_what_is_not_ours_is_not_removed(self, subject: Subject) -> None:
        """A dataset is ours by a property of its own; one of what it lies in does not count."""
        volume = subject.volume()
        await subject.shell('zfs create "tank/openqrm/$1" && zfs create "tank/openqrm/$1/inner"', volume.name)
        await subject.shell("zfs set openqrm:volume=yes tank/openqrm")
        assert volume.name not in await subject.names()
        with pytest.raises(CommandFailedError, match="not ours to remove"):
            await subject.runner.do(await subject.remove(volume))
        await subject.shell("zfs inherit openqrm:volume tank/openqrm")
        assert volume.name not in await subject.names()
        with pytest.raises(CommandFailedError, match="not ours to remove"):
            await subject.runner.do(await subject.remove(volume))
        await subject.shell('zfs set openqrm:volume=yes "tank/openqrm/$1"', volume.name)
        assert volume.name in await subject.names()
        await subject.drop(volume)
        assert await subject.shell('zfs list "tank/openqrm/$1" 2>/dev/null || echo gone', volume.name) == "gone\n"

    async def test_zvols_are_not_there_and_the_driver_says_so(self, subject: Subject) -> None:
        zvols = Subject.alone(
            PLUGIN, "zfs", hosts=subject.hosts, host=subject.host, address=subject.address, dead_host=subject.dead_host
        )
        assert not confirmed(zvols.pool, Cap.CLONE, zvols.context(), await zvols.pool_facts())
        with pytest.raises(UnsupportedError):
            await zvols.create(zvols.volume())
