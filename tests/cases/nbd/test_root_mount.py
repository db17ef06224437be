"""The hook on a machine: which device it takes, and what the image is told of that."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import openqrm
from openqrm.plugins.storage.nbd import plugin
from openqrm.testing import needs

HOOK = Path(plugin.__file__).parent / "node/root-mount"
IMAGE = Path(openqrm.__file__).parent / "node/initramfs/image.sh"
SCRIPT = f"""
mount -t tmpfs none /run && mount -t tmpfs none /sys || exit 1
mkdir -p /run/openqrm /sys/block/nbd0 /sys/block/nbd1 "$1/etc"
echo "$2" >/sys/block/nbd0/size
echo 0 >/sys/block/nbd1/size
ROOT_SERVER=192.0.2.5 ROOT_PORTS='20821 21078' ROOT_EXPORT=volume-12 ROOT_SECRET_PSK=secret FSTAB=
refuse() {{ echo "refused: $*"; exit 1; }}
need_modules() {{ :; }}
need_programs() {{ :; }}
rt_kept() {{ # the first port is another's, the second ours
    KEPT_PID=1
    case $* in *port=20821,*) KEPT_PID=none ;; *) echo 8192 >"/sys/block/${{NBD_DEVICE##*/}}/size" ;; esac
}}
mount_block() {{ echo "mounts $1"; }}
. {IMAGE}
. {HOOK}
mount_root "$1"
write_fstab "$1"
cat "$1/etc/fstab"
"""


@pytest.mark.parametrize(("size_of_first", "device"), [("0", "/dev/nbd0"), ("2048", "/dev/nbd1")])
def test_the_image_is_told_the_device_that_was_free(tmp_path: Path, size_of_first: str, device: str) -> None:
    needs.root_and("busybox", "unshare")
    words = ("unshare", "-m", "busybox", "sh", "-c", SCRIPT, "sh", str(tmp_path), size_of_first)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.splitlines() == [f"mounts {device}", f"{device} / auto rw 0 0"], done.stderr
