"""How a machine logs out of its iSCSI sessions: in its shell, with a daemon that knows what the real one would."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from openqrm.netboot import agent
from openqrm.plugins.storage import iscsi
from openqrm.testing import needs

HOOK = Path(iscsi.__file__).with_name("node") / "root-mount"
# It holds a socket, and knows the sessions that there were when it started. (A lock is let go of when its holder ends.)
DAEMON = """#!/bin/sh
exec 9>>{here}/socket
flock -n 9 || exit 1
ls {here}/sys/class/iscsi_session >{here}/known.new
mv {here}/known.new {here}/known
for _ in $(seq 600); do sleep 0.1 9>&-; done
"""
PRELUDE = """
OPENQRM_RUN={here} OPENQRM_LIBRARY=1
. {here}/agent
. {here}/hook
need_programs() {{ :; }}
daemon_runs() {{ ! (flock -n 9) 9>>{here}/socket; }}
rt() {{
    case $1 in iscsid) shift; "$RT/programs/iscsid/lib/ld.so" iscsid "$@"; return ;; esac
    daemon_runs && grep -qx "session$5" {here}/known && rm -r "$all/session$5" && return 0
    echo "no session $5"
    return 21
}}
all={here}/sys/class/iscsi_session
session() {{ mkdir -p "$all/session$1" && echo "t$1" >"$all/session$1/targetname"; }}
leave() {{
    ROOT_TARGET=t$1 ROOT_INITIATOR=i
    unmount_root
    ls "$all"
    daemon_runs && echo stays
    :
}}
exec 3>&- 4>&-
"""


def run(here: Path, script: str) -> list[str]:
    """The lines that it prints; no daemon is left."""
    needs.have("busybox")
    for name in ("rt/bin", "rt/programs/iscsid/lib"):
        (here / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", here / "rt/bin/busybox")
    (here / "rt/programs/iscsid/lib/ld.so").write_text(DAEMON.format(here=here))
    (here / "rt/programs/iscsid/lib/ld.so").chmod(0o755)
    (here / "agent").write_bytes(agent.script())
    text = (
        HOOK.read_text(encoding="utf-8").replace("/run/openqrm", str(here)).replace("/sys/class", f"{here}/sys/class")
    )
    (here / "hook").write_text(text)
    whole = PRELUDE.format(here=here) + script
    done = subprocess.run(["busybox", "sh", "-c", whole], capture_output=True, text=True, check=True, timeout=60)
    assert "no logout" not in done.stderr, done.stderr
    return done.stdout.splitlines()


def test_a_session_is_logged_out_of_also_when_another_one_was_before_it(tmp_path: Path) -> None:
    assert run(tmp_path, "session 1; leave 1; session 2; leave 2") == []


def test_the_daemon_stays_as_long_as_there_is_another_session(tmp_path: Path) -> None:
    """It has logged in anew to all that it found: whoever reads from them waits until that is done."""
    assert run(tmp_path, "session 1; session 2; leave 2; leave 1") == ["session1", "stays"]


def test_without_a_session_nothing_is_started(tmp_path: Path) -> None:
    assert run(tmp_path, "mkdir -p $OPENQRM_RUN/sys/class/iscsi_session; leave 1") == []
    assert not (tmp_path / "iscsid").exists()
