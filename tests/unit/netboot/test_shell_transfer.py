"""Transfers on the machine's side: what is copied, what marks a half-done target, and what is told of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from openqrm.netboot import agent
from openqrm.testing import needs

NODE = Path(agent.__file__).parent.parent / "node"
STAGES = ("programs", "block", "sets", "attributes", "transfer")
STUBS = """
refuse() { echo "refused: $*"; exit 1; }
need_programs() { :; }
sync() { :; }
rt() { /usr/bin/env "$@"; }
awk() { busybox awk "$@"; }
find() { busybox find "$@"; }
tr() { busybox tr "$@"; }
"""


def run(directory: Path, script: str) -> list[str]:
    """The lines that `script` prints in busybox' shell; what it says to the controller lies in `said`."""
    needs.root_and("busybox", "rsync", "getfattr", "setfattr")
    (directory / "agent").write_bytes(agent.script())
    (directory / "connected").touch()
    files = [str(directory / "agent"), *(str(NODE / f"initramfs/{stage}.sh") for stage in STAGES)]
    prelude = f"OPENQRM_RUN={directory} OPENQRM_LIBRARY=1\n" + "".join(f". {file}\n" for file in files)
    prelude += f"exec 3>>{directory}/said\nASSIGNMENTS={directory}/env ID=o7\n{STUBS}"
    done = subprocess.run(
        ["busybox", "sh", "-c", prelude + script], capture_output=True, text=True, check=False, timeout=60
    )
    assert "yntax" not in done.stderr
    assert "not found" not in done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree with all that is easily lost."""
    (tmp_path / "env").write_text("FROM_ROOT_SERVER='10.0.0.1'\nFROM_ROOT_PATH='/srv/golden'\n")
    tree = tmp_path / "source"
    for name in ("etc", "proc", "tmp", "usr/bin", "lost+found"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/shadow").write_text("root:*:1::::::\n")
    os.chown(tree / "etc/shadow", 12, 34)
    (tree / "etc/shadow").chmod(0o640)
    (tree / "etc/gone").symlink_to("nowhere")
    (tree / "usr/bin/a").write_bytes(b"\x7fELF" * 1000)
    (tree / "usr/bin/b").hardlink_to(tree / "usr/bin/a")
    (tree / "usr/bin/a").chmod(0o4755)
    with (tree / "etc/sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    os.mkfifo(tree / "etc/pipe")
    os.setxattr(tree / "usr/bin/a", "user.note", b"kept\0\n")
    os.setxattr(tree / "usr/bin/a", "trusted.mark", b"1")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(tree / "usr/bin/a", "security.capability", capability)
    (tree / "tmp/left").touch()
    return tree


def attributes(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def copy(tmp_path: Path, before: str = "", how: str = "keeps_attributes() { :; }") -> list[str]:
    (tmp_path / "target").mkdir(exist_ok=True)
    return run(tmp_path, f'{how}\n{before}\ncopy_tree {tmp_path}/source {tmp_path}/target 20 60\necho "$COPIED"')


def test_a_copy_has_owners_modes_links_holes_attributes_and_no_marker(tmp_path: Path, source: Path) -> None:
    out = copy(tmp_path)
    assert out[-1].startswith("copied ")
    target = tmp_path / "target"
    shadow = (target / "etc/shadow").stat()
    assert (shadow.st_uid, shadow.st_gid, shadow.st_mode & 0o7777) == (12, 34, 0o640)
    assert (target / "usr/bin/a").stat().st_mode & 0o7777 == 0o4755
    assert (target / "usr/bin/a").stat().st_ino == (target / "usr/bin/b").stat().st_ino
    assert (target / "etc/gone").readlink() == Path("nowhere")
    assert (target / "etc/sparse").stat().st_blocks < 100
    assert (target / "etc/pipe").is_fifo()
    assert attributes(target / "usr/bin/a") == attributes(source / "usr/bin/a")
    assert (target / "tmp").is_dir()
    assert not (target / "tmp/left").exists()
    assert not (target / "lost+found").exists()
    assert not list(target.glob(".openqrm*"))
    said = (tmp_path / "said").read_text().splitlines()
    assert said
    assert all(line.startswith("progress o7 ") for line in said)
    assert 20 <= int(said[-1].split()[2]) <= 60


def test_what_was_there_goes_also_when_it_looks_the_same(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "target"
    (target / "etc").mkdir(parents=True)
    (target / "lost+found").mkdir()
    (target / "lost+found/kept").touch()
    (target / "old").touch()
    (target / "etc/shadow").write_text("root:*:2::::::\n")  # same size, same time, other contents
    times = (source / "etc/shadow").stat()
    os.utime(target / "etc/shadow", ns=(times.st_atime_ns, times.st_mtime_ns))
    copy(tmp_path)
    assert (target / "etc/shadow").read_text() == "root:*:1::::::\n"
    assert not (target / "old").exists()
    assert (target / "lost+found/kept").exists()


def test_a_broken_copy_leaves_its_marker_and_a_repetition_completes_it(tmp_path: Path, source: Path) -> None:
    out = copy(tmp_path, 'rt() { [ "$1" != rsync ] || { echo "rsync: no space left" >&2; return 11; }; }')
    assert out == ["refused: copying failed (rsync 11): rsync: no space left"]
    marker = tmp_path / "target/.openqrm-transfer"
    first = marker.read_text().split()
    assert first[0] == "o7"
    assert first[2] == "new"
    out = run(tmp_path, f"refuse_half_done {tmp_path}/target")
    assert out[0].startswith("refused: the image is the half-done target of a transfer")
    again = 'rt() { [ "$1" != rsync ] || echo "$*" >>"$RUN/ran"; /usr/bin/env "$@"; }'
    copy(tmp_path, again)
    assert "--checksum" not in (tmp_path / "ran").read_text(), "what this source has filled so far is known"
    assert not marker.exists()
    assert (tmp_path / "target/etc/shadow").read_text() == (source / "etc/shadow").read_text()


def test_what_another_source_left_half_done_is_compared_by_contents(tmp_path: Path, source: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/.openqrm-transfer").write_text("o3 0123abcd new\n")
    copy(tmp_path, 'rt() { [ "$1" != rsync ] || echo "$*" >>"$RUN/ran"; /usr/bin/env "$@"; }')
    assert "--checksum" in (tmp_path / "ran").read_text()
    assert (tmp_path / "target/etc/shadow").read_text() == (source / "etc/shadow").read_text()


@pytest.mark.parametrize("state", ["half done", "empty"])
def test_what_is_no_image_is_not_copied(tmp_path: Path, source: Path, state: str) -> None:
    if state == "empty":
        shutil.rmtree(source)
        source.mkdir()
    else:
        (source / ".openqrm-transfer").write_text("o1\n")
    assert copy(tmp_path)[0].startswith("refused: the ")
    assert not list((tmp_path / "target").iterdir())


def test_attributes_survive_storage_that_cannot_keep_them(tmp_path: Path, source: Path) -> None:
    """NFS in the middle: attributes travel in a file, and lie where they belong at the end."""
    nfs, back = tmp_path / "nfs", tmp_path / "back"
    nfs.mkdir()
    back.mkdir()
    knows = "keeps_attributes() { case $1 in */nfs*) return 1 ;; esac; }"
    before = attributes(source / "usr/bin/a")
    run(tmp_path, f"{knows}\ncopy_tree {source} {nfs} 1 99")
    assert attributes(nfs / "usr/bin/a") == {}
    assert (nfs / ".openqrm-attributes").exists()
    second = tmp_path / "nfs2"
    second.mkdir()
    run(tmp_path, f"{knows}\ncopy_tree {nfs} {second} 1 99")
    assert (second / ".openqrm-attributes").read_bytes() == (nfs / ".openqrm-attributes").read_bytes()
    (back / "usr/bin").mkdir(parents=True)
    (back / "usr/bin/a").write_bytes((source / "usr/bin/a").read_bytes())
    os.setxattr(back / "usr/bin/a", "user.stale", b"1")
    run(tmp_path, f"{knows}\ncopy_tree {second} {back} 1 99")
    assert attributes(back / "usr/bin/a") == before
    assert not (back / ".openqrm-attributes").exists()


def _restored(tmp_path: Path, listed: bytes) -> list[str]:
    """What is logged when an image with this list is copied from NFS."""
    (tmp_path / "source/.openqrm-attributes").write_bytes(listed)
    says = 'log() { echo "$*"; }\n'
    out = copy(tmp_path, how=says + "keeps_attributes() { case $1 in */source) return 1 ;; esac; }")
    return [line.removeprefix("attributes: ") for line in out if line.startswith("attributes: ")]


def test_a_list_sets_attributes_in_its_image_only(tmp_path: Path, source: Path) -> None:
    """Whoever made the image wrote the list: `..`, absolute paths, links on the way, however they are written."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").touch()
    for name in (b"away", b"a\nway", b"a\\way", b"a\001way"):
        (source / "etc" / os.fsdecode(name)).symlink_to(outside)
    paths = [
        f"{outside}/victim", "../outside/victim", "etc/../../outside/victim", "etc/away/victim", "./etc/away/victim",
        "etc//away/victim", "etc/./away/victim", "etc/a\\012way/victim", "etc/a\\134way/victim", "etc/a\001way/victim",
        "etc/aw\\141y/victim", "\\056\\056/outside/victim", "..", "",
    ]  # fmt: skip
    listed = "".join(f"# file: {path}\nuser.bad=0x31\n\n" for path in paths)
    listed += f"user.bad=0x31\n# file: {outside}/victim\nuser.bad=0x31\n\n"
    listed += f"# file: etc/shadow\nuser.good=0x31\nsystem.bad=0x31\n# file: {outside}/victim\n\r\n"
    listed += f"# file: {outside}/victim\nuser.bad=0x31\n"
    logged = _restored(tmp_path, listed.encode())
    assert attributes(outside) == attributes(outside / "victim") == attributes(tmp_path) == {}
    assert attributes(tmp_path / "target/etc/shadow") == {"user.good": b"1", "user.bad": b"1"}
    assert len(logged) == 1
    assert logged[0].startswith("19 lines are refused, first # file: /")


def test_names_of_all_kinds_keep_their_attributes(tmp_path: Path, source: Path) -> None:
    names = (b"new\nline", b"back\\slash", b"\\134", b"\xff not utf-8", "für".encode(), b"re\rturn", b" = # file: ")
    for name in names:
        (tmp_path / os.fsdecode(b"source/etc/" + name)).mkdir()
        (tmp_path / os.fsdecode(b"source/etc/" + name + b"/file")).touch()
    own = 'need_programs() { :; }\nRUN=$RUN list_attributes "$SOURCE"'
    for name in names:
        os.setxattr(os.fsencode(source) + b"/etc/" + name + b"/file", "user.note", name)
    run(tmp_path, f"SOURCE={source}\n{own} >{tmp_path}/list")
    assert _restored(tmp_path, (tmp_path / "list").read_bytes()) == []
    for name in names:
        path = os.fsencode(tmp_path) + b"/target/etc/" + name + b"/file"
        assert os.getxattr(path, "user.note") == name


@pytest.mark.parametrize("keeps", [0, 1])
def test_a_list_that_is_a_link_shows_nothing_of_the_machine(tmp_path: Path, source: Path, keeps: int) -> None:
    (tmp_path / "secret").write_text("# file: etc\nuser.secret=0x31\n")
    (source / ".openqrm-attributes").symlink_to(tmp_path / "secret")
    copy(tmp_path, how=f"keeps_attributes() {{ case $1 in */target) [ {keeps} = 1 ] ;; *) return 1 ;; esac; }}")
    assert not (tmp_path / "target/.openqrm-attributes").exists()
    assert attributes(tmp_path / "target/etc") == {}


def test_a_target_is_marked_and_not_what_a_link_in_it_names(tmp_path: Path, source: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "mine").write_text("whole")
    (tmp_path / "target/.openqrm-transfer.new").symlink_to(tmp_path / "mine")
    copy(tmp_path)
    assert (tmp_path / "mine").read_text() == "whole"


def test_progress_only_grows_and_is_halved_while_files_are_still_looked_for(tmp_path: Path) -> None:
    lines = "  32,768  80%  1.00MB/s 0:00:01 (xfr#1, ir-chk=10/20)\\n"
    lines += "  64,000  30%  2.00MB/s 0:00:09 (xfr#2, to-chk=5/20)\\n"
    lines += "  99,000  50%  2.00MB/s 0:00:05 (xfr#3, to-chk=1/20)\\nsome words\\n"
    run(tmp_path, f"printf '%b' '{lines}' | report_progress 0 100")
    said = (tmp_path / "said").read_text().splitlines()
    assert said == [
        "progress o7 40 copied 32,768 bytes, 1.00MB/s, 0:00:01 left",
        "progress o7 50 copied 99,000 bytes, 2.00MB/s, 0:00:05 left",
    ]
    assert (tmp_path / "rsync.bytes").read_text() == "99,000\n"


SETS = """
fetch() { cp "$RUN/hooks/${1##*/}" "$2"; }
mount() { echo "mount $*"; }
FROM_DEPLOYMENT=nfs-root FROM_HOOK_URL=https://c/nfs FROM_ROOT_SERVER=10.0.0.1 ROOT_OPTIONS=own ROOT_SERVER=own
FROM_HOOK_SHA256=$(sha256sum <"$RUN/hooks/nfs") && FROM_HOOK_SHA256=${FROM_HOOK_SHA256%% *}
TO_DEVICE=/dev/vda1
"""


def hooks(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks/nfs").write_text(
        'mount_root() { echo "$ROOT_SERVER ${ROOT_OPTIONS:-none} $ROOT_READ_ONLY $1"; keep_process 999999; }\n'
        'unmount_root() { echo "leaves $ROOT_SERVER $1"; }\n'
    )
    (tmp_path / "env").write_text(
        "ROOT_SERVER='own'\nROOT_OPTIONS='own'\nFROM_ROOT_SERVER='10.0.0.1'\nFROM_DEPLOYMENT='nfs-root'\n"
    )


def test_a_set_is_mounted_with_its_own_values_and_left_by_its_hook(tmp_path: Path) -> None:
    hooks(tmp_path)
    script = f"""{SETS}
    kill() {{ echo "ends $1"; }}
    sleep() {{ :; }}
    KEPT={tmp_path}/kept
    has_set FROM_ && has_set TO_ && ! has_set STORE_ && echo known
    mount_set FROM_ {tmp_path}/from read
    echo "$ROOT_SERVER $ROOT_OPTIONS"
    leave_set FROM_ {tmp_path}/from
    """
    out = run(tmp_path, script)
    assert out == [
        "known",
        f"10.0.0.1 none 1 {tmp_path}/from",
        f"mount -o remount,ro {tmp_path}/from",
        "own own",
        f"leaves 10.0.0.1 {tmp_path}/from",
        "ends 999999",
    ]
    assert not (tmp_path / "kept").exists(), "what serves a source ends with this system"
    assert not list(tmp_path.glob("FROM_*"))


def test_a_hook_with_another_checksum_is_not_run(tmp_path: Path) -> None:
    hooks(tmp_path)
    script = f"{SETS}\nFROM_HOOK_SHA256=0\nmount_set FROM_ {tmp_path}/from read || echo failed"
    assert run(tmp_path, script) == ["refused: the root-mount hook has another checksum than ordered", "failed"]


def test_only_a_target_may_be_made_a_file_system(tmp_path: Path) -> None:
    hooks(tmp_path)
    script = f"""{SETS}
    FILLING=1 FROM_DEVICE=/dev/vdb
    mount_block() {{ echo "$1 $FILLING $ROOT_READ_ONLY"; }}
    mount_set FROM_ {tmp_path}/from read
    mount_set TO_ {tmp_path}/to fill
    mount_set TO_ {tmp_path}/to use
    """
    out = [line for line in run(tmp_path, script) if line.startswith("/dev")]
    assert out == ["/dev/vdb 0 1", "/dev/vda1 1 0", "/dev/vda1 0 0"]


ORDER = """
fetch() { cp "$RUN/served" "$2"; }
finish() { echo "done $*"; }
mount_set() { echo "mount $1 $3" >>"$RUN/did"; }
leave_set() { echo "leave $1" >>"$RUN/did"; }
unmount_below() { :; }
tee() { cat >"$1"; }
exec 4>/dev/null
"""


def test_an_ordered_transfer_ends_with_what_it_did(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("FROM_DEPLOYMENT='nfs-root'\nTO_DEVICE='/dev/vda1'\n")
    script = (
        ORDER
        + """
    copy_tree() { COPIED="copied 5 bytes in 1 s"; }
    transfer o7
    """
    )
    (tmp_path / "deploy.error").touch()
    assert _transferred(tmp_path, script) == ["done o7 0 copied 5 bytes in 1 s"]
    assert (tmp_path / "did").read_text().splitlines() == [
        "mount FROM_ read",
        "mount TO_ fill",
        "leave FROM_",
        "leave TO_",
    ]


def test_a_failed_transfer_says_why_and_leaves_nothing_mounted(tmp_path: Path) -> None:
    (tmp_path / "served").write_text("FROM_DEPLOYMENT='nfs-root'\nTO_DEVICE='/dev/vda1'\n")
    script = f'{ORDER}\ncopy_tree() {{ refuse "no room"; }}\ntransfer o7'
    assert _transferred(tmp_path, script)[-1] == "done o7 1 refused: no room"
    assert (tmp_path / "did").read_text().splitlines()[-2:] == ["leave FROM_", "leave TO_"]


def _transferred(tmp_path: Path, script: str) -> list[str]:
    """With the initramfs' own place replaced by the test's."""
    functions = (NODE / "initramfs/transfer.sh").read_text().replace("/run/openqrm", str(tmp_path))
    (tmp_path / "transfer.sh").write_text(functions)
    return run(tmp_path, f"{STUBS}\n. {tmp_path}/transfer.sh\n{script}")
