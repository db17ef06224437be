"""The machine's side of what root-mount hooks may ask for: programs, block devices, processes that outlive it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from openqrm.netboot import agent
from openqrm.netboot.programs import Programs
from openqrm.plugin_api.plugin import Dependency
from openqrm.testing import needs

NODE = Path(agent.__file__).parent.parent / "node"
STAGES = ("programs", "block")
REFUSE = 'refuse() { echo "refused: $*"; exit 1; }\n'


def run(directory: Path, script: str, *, check: bool = True) -> list[str]:
    """The lines that `script` prints in busybox' shell, after the agent's and the initramfs' functions were read."""
    needs.have("busybox")
    (directory / "agent").write_bytes(agent.script())
    files = [str(directory / "agent"), *(str(NODE / f"initramfs/{stage}.sh") for stage in STAGES)]
    prelude = f"OPENQRM_RUN={directory} OPENQRM_LIBRARY=1\n" + "".join(f". {file}\n" for file in files)
    prelude += f"KEPT={directory}/kept START_SCRIPTS={directory}/start.d\n"
    prelude += f"exec 3>>{directory}/said 4>/dev/null\n{REFUSE}"
    done = subprocess.run(
        ["busybox", "sh", "-c", prelude + script], capture_output=True, text=True, check=False, timeout=60
    )
    assert not check or done.returncode == 0, done.stderr
    assert "yntax" not in done.stderr
    return done.stdout.splitlines()


def test_a_program_is_fetched_once_and_runs_with_its_own_libraries(tmp_path: Path) -> None:
    archive = Programs(tmp_path / "cache").archive(Dependency("cat", "coreutils"))
    (tmp_path / "rt/bin").mkdir(parents=True)
    (tmp_path / "rt/lib").mkdir()
    (tmp_path / "text").write_text("read\n")
    libc = next(path for path in Path("/lib/x86_64-linux-gnu").glob("libc.so.6"))
    shutil.copy(libc, tmp_path / "rt/lib/libc.so.6")
    out = run(
        tmp_path,
        f"""
        API=https://c
        fetch() {{ echo "fetches $1"; cp {archive} "$2"; }}
        need_programs cat && need_programs cat
        rt cat {tmp_path}/text
        ls -A $RT/.new 2>/dev/null
        ls $RT/bin
        """,
    )
    assert out == ["fetches https://c/node/v1/programs/cat.tar.gz", "read", "cat"]
    shared = tmp_path / "rt/programs/cat/lib/libc.so.6"
    assert shared.stat().st_ino == (tmp_path / "rt/lib/libc.so.6").stat().st_ino, "one copy in memory"
    assert (tmp_path / "rt/programs/cat/lib/ld.so").stat().st_mode & 0o111


def test_a_program_that_the_server_lacks_ends_the_deployment_with_its_package(tmp_path: Path) -> None:
    problem = (
        '{"code": "missing-dependency", "detail": "machines need nbd-client", "remedy": "apt-get install nbd-client"}'
    )
    script = f"API=https://c\nfetch() {{ echo '{problem}' >\"$2.part\"; return 1; }}\nneed_programs nbd-client"
    out = run(tmp_path, script, check=False)
    expected = "refused: program nbd-client: machines need nbd-client; on the server: apt-get install nbd-client"
    assert out == [expected]


def test_only_what_is_kept_survives_becoming_the_image(tmp_path: Path) -> None:
    script = """
    kill() { echo "ends $2"; }
    keep_process 77
    keep_process $PPID
    end_other_processes | sort -u >"$RUN/ended"
    grep -c . "$RUN/ended"
    grep -x -e "ends 1" -e "ends 77" -e "ends $PPID" "$RUN/ended"
    grep -qx "ends $$" "$RUN/ended" && echo others go
    """
    out = run(tmp_path, script)
    assert int(out[0]) > 1
    assert out[1:] == ["others go"]


def test_start_scripts_run_inside_the_image_and_a_failing_one_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "rt/bin").mkdir(parents=True)
    busybox = shutil.which("busybox")
    if busybox:
        shutil.copy(busybox, tmp_path / "rt/bin/busybox")
    script = """
    echo "echo first; exit 3" | at_start 10-first
    echo "echo second" | at_start 20-second
    echo "echo half" >"$START_SCRIPTS/30-half.new"
    run_start_scripts
    """
    assert run(tmp_path, script) == ["first", "second"]


MOUNT = """
await_device() { DEVICE_NODE=$1 && [ -e "$1" ]; }
need_modules() { echo "modules $*"; }
need_programs() { :; }
rt() { /usr/bin/env "$@"; }
mount() { echo "mount $*"; }
grep() { case "$*" in *filesystems) return 1 ;; *) command grep "$@" ;; esac; }
"""


def mounted(tmp_path: Path, device: Path, before: str = "") -> list[str]:
    """What mount_block does with a file in place of a device."""
    path = os.environ["PATH"] + ":/sbin:/usr/sbin"
    # By env(1), since the shell has small mke2fs and blkid of its own.
    return run(tmp_path, f"PATH={path}\n{MOUNT}{before}\nmount_block {device} /mnt", check=False)


@pytest.fixture
def device(tmp_path: Path) -> Path:
    needs.have("mke2fs", "blkid", "e2fsck")
    path = tmp_path / "device"
    path.write_bytes(b"")
    os.truncate(path, 32 << 20)
    return path


def test_an_empty_device_is_made_a_file_system_only_to_be_filled(tmp_path: Path, device: Path) -> None:
    assert mounted(tmp_path, device) == [f"refused: there is no file system on {device}, and nothing to fill it with"]
    assert mounted(tmp_path, device, "FILLING=1") == ["modules ext4", f"mount -t ext4 -o rw {device} /mnt"]
    marked = device.read_bytes()
    assert mounted(tmp_path, device, "FILLING=1 ROOT_READ_ONLY=1")[1] == f"mount -t ext4 -o ro {device} /mnt"
    assert device.read_bytes() == marked, "what holds a file system is left alone"


@pytest.mark.parametrize(
    ("offset", "content", "told"),
    [
        (510, b"\x55\xaa", "dos"),
        (512, b"LABELONE", "data of a kind that we do not know"),
        (4086, b"SWAPSPACE2", "swap"),
        (257, b"ustar\x0000", "data of a kind that we do not know"),
    ],
    ids=["partitions", "a damaged volume group", "swap", "a bare tar archive"],
)
def test_what_is_somebodys_is_never_made_a_file_system(
    tmp_path: Path, device: Path, offset: int, content: bytes, told: str
) -> None:
    with device.open("r+b") as file:
        if told == "dos":
            file.seek(446)
            file.write(bytes([0, 0, 2, 0, 0x83, 0, 0, 0]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little"))
        if told == "swap":
            file.seek(1024)
            file.write((1).to_bytes(4, "little") + (4096).to_bytes(4, "little"))
        file.seek(offset)
        file.write(content)
    before = device.read_bytes()
    out = mounted(tmp_path, device, "FILLING=1")
    assert out[0].startswith(f"refused: {device} holds ")
    assert told in out[0]
    assert device.read_bytes() == before


@pytest.mark.parametrize(("magic", "offset", "name"), [(b"XFSB", 0, "xfs"), (b"_BHRfS_M", 65600, "btrfs")])
def test_the_file_system_that_is_there_is_mounted(
    tmp_path: Path, device: Path, magic: bytes, offset: int, name: str
) -> None:
    with device.open("r+b") as file:
        file.seek(offset)
        file.write(magic)
    assert mounted(tmp_path, device) == [f"modules {name}", f"mount -t {name} -o rw {device} /mnt"]
    refusal = f"refused: the file system of {device} is {name}, not ext4"
    assert mounted(tmp_path, device, "ROOT_FS=ext4") == [refusal]


def test_a_file_system_with_errors_is_checked_before_it_is_mounted(tmp_path: Path, device: Path) -> None:
    mounted(tmp_path, device, "FILLING=1")
    debugfs = ["/usr/sbin/debugfs", "-w", "-R", "ssv state 3", str(device)]  # valid, with errors
    subprocess.run(debugfs, check=True, capture_output=True)
    counting = 'rt() { echo "$1" >>"$RUN/ran"; /usr/bin/env "$@"; }'
    assert mounted(tmp_path, device, counting) == ["modules ext4", f"mount -t ext4 -o rw {device} /mnt"]
    assert (tmp_path / "ran").read_text() == "e2fsck\n"
    with device.open("rb") as file:
        file.seek(1082)
        assert file.read(1) == b"\x01", "the check has put it right"
    mounted(tmp_path, device, counting)
    assert (tmp_path / "ran").read_text() == "e2fsck\n", "what is clean is mounted without a check"


def test_a_device_is_waited_for_and_may_be_named_by_what_it_carries(tmp_path: Path) -> None:
    script = """
    sleep() { tries=$((tries + 10)); echo waits; }
    need_programs() { echo "needs $*"; }
    rt() { [ ! -e "$RUN/seen" ] || echo /dev/vda1; : >"$RUN/seen"; }
    is_device() { [ "$1" = /dev/vda1 ]; }
    await_device PARTUUID=1-01 && echo "$DEVICE_NODE"
    await_device /dev/vda1 && echo "$DEVICE_NODE"
    await_device /dev/vdz9 >/dev/null || echo none
    """
    assert run(tmp_path, script) == ["needs blkid", "waits", "/dev/vda1", "/dev/vda1", "none"]
