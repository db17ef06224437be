"""The machine's side, as far as it runs without a machine: the agent's functions in the shells it meets."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from openqrm.netboot import agent
from openqrm.testing import needs

NODE = Path(agent.__file__).parent.parent / "node"
SHELLS = [["busybox", "sh"], ["dash"], ["bash", "--posix"]]


@pytest.fixture(params=SHELLS, ids=lambda shell: shell[0])
def shell(request: pytest.FixtureRequest) -> list[str]:
    command: list[str] = request.param
    needs.have(command[0])
    return command


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "agent"
    path.write_bytes(agent.script())
    return path


def run(shell: list[str], library: Path, script: str, given: str = "") -> str:
    """What `script` prints after the agent's functions were read; file descriptor 3 collects what it says."""
    prelude = f"OPENQRM_RUN={library.parent} OPENQRM_LIBRARY=1\n. {library}\nexec 3>>{library.parent}/said\n"
    command = [*shell, "-c", prelude + script]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=30)
    assert "not found" not in done.stderr
    assert "yntax" not in done.stderr
    return done.stdout


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    needs.have("shellcheck")
    stages = sorted((NODE / "initramfs").glob("*.sh"))
    library = agent.script().replace(b'[ -n "${OPENQRM_LIBRARY:-}" ] || main "$@"\n', b"")
    whole = tmp_path / "whole.sh"
    first = (NODE / "initramfs/init").read_bytes()
    whole.write_bytes(library + b"\n".join(stage.read_bytes() for stage in stages) + first)
    (tmp_path / "agent.sh").write_bytes(agent.script())
    # Stages redefine functions of the agent, so the first definitions look unreachable (SC2317).
    command = ["shellcheck", "-s", "sh", "-e", "SC2317"]
    for file in (whole, tmp_path / "agent.sh", NODE / "initramfs/dhcp"):
        done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
        assert done.stdout == ""


@pytest.mark.parametrize("text", ["plain", "", 'a "b" \\c', "tab\there", "QEMU Virtual CPU version 2.5+"])
def test_a_text_becomes_a_json_string(shell: list[str], library: Path, text: str) -> None:
    out = run(shell, library, 'IFS= read -r text; quoted "$text"; printf "%s" "$QUOTED"', text + "\n")
    assert json.loads(out) == text.replace("\t", "")


def test_the_inventory_is_json(shell: list[str], library: Path) -> None:
    told = json.loads(run(shell, library, "MAC=52:54:00:00:00:01 TOKEN=t TICKET=k GENERATION=3; inventory"))
    assert (told["mac"], told["token"], told["ticket"], told["generation"]) == ("52:54:00:00:00:01", "t", "k", 3)
    assert told["cpus"] >= 1
    assert told["memory_mb"] > 0
    assert told["stage"] == "image"
    assert set(told["dmi"]) == {"vendor", "product", "serial", "uuid"}


def test_a_machine_registers_again_until_it_is_taken(shell: list[str], library: Path) -> None:
    script = """
    MAC=52:54:00:00:00:01 TOKEN=old API=https://c
    sleep() { echo "waits $1"; }
    api() {
        grep -o '"token":"[a-z]*"' "$RUN/register.json" >>"$RUN/sent"
        if [ -e "$RUN/tried" ]; then
            printf "TOKEN='new'\\nNAME='node-1'\\nRESOURCE_ID='7'\\nHEARTBEAT_SECONDS='10'\\n" >"$RUN/answer"
            printf 200
        else
            : >"$RUN/tried"
            printf 503
        fi
    }
    register
    echo "$NAME $TOKEN"; cat "$RUN/authorization"
    register
    """
    out = run(shell, library, script)
    assert out.splitlines() == ["waits 1", "node-1 new", "Authorization: Bearer new"]
    assert (library.parent / "sent").read_text().split() == ['"token":"old"', '"token":"old"', '"token":"new"']


@pytest.mark.parametrize(("stage", "waits"), [("image", ["15", "15", "restart", "restart"]), ("initramfs", ["60"] * 4)])
def test_a_refused_machine_asks_again_and_an_image_restarts_without_its_root(
    shell: list[str], library: Path, stage: str, waits: list[str]
) -> None:
    script = f"""
    STAGE={stage} MAC=52:54:00:00:00:01 TOKEN=old API=https://c
    for program in cat mv rm mkfifo uname readlink sleep; do
        eval "$program() {{ echo \\"the root is gone: $program\\"; }}"
    done
    restart_at_once() {{ echo restart; }}
    inventory() {{ echo told >>"$RUN/told"; }}
    box() {{
        case $1 in sleep) echo "$2" ;; *) command "$@" ;; esac
    }}
    api() {{
        echo >>"$RUN/tries"
        count=0
        while read -r _; do count=$((count + 1)); done <"$RUN/tries"
        if [ "$count" -gt 4 ]; then printf 200; else printf 409; fi
        echo "NAME='node-1'" >"$RUN/answer"
    }}
    register
    """
    assert run(shell, library, script).splitlines() == waits
    assert (library.parent / "told").read_text() == "told\n"


def test_lines_become_chunks(shell: list[str], library: Path) -> None:
    (library.parent / "authorization").write_text("Authorization: Bearer abc\n")
    out = run(shell, library, "chunks host:8443", "hb u=1\ndone 7 0 all is well\n")
    head, _, body = out.partition("\n\n")  # text mode makes CR LF one line end
    assert "POST /node/v1/stream HTTP/1.1" in head
    assert "Authorization: Bearer abc" in head
    assert body == "7\nhb u=1\n\n15\ndone 7 0 all is well\n\n"


def test_an_order_acts_once_and_its_result_is_told_again(shell: list[str], library: Path) -> None:
    script = """
    perform() { echo "did $2"; finish "$1" 0 "ran $2"; }
    : >"$RUN/connected"
    order o-1 inventory; wait; order o-1 inventory; wait
    order ../evil inventory; wait
    """
    assert run(shell, library, script) == "did inventory\n"
    said = (library.parent / "said").read_text().splitlines()
    assert said == ["ack o-1", "done o-1 0 ran inventory", "done o-1 0 ran inventory"]


def test_an_order_in_work_is_only_acknowledged(shell: list[str], library: Path) -> None:
    (library.parent / "orders/o2").mkdir(parents=True)
    assert run(shell, library, 'perform() { echo again; }; : >"$RUN/connected"; order o2 idle; wait') == ""
    assert (library.parent / "said").read_text() == "ack o2\n"


def test_nothing_is_said_while_nobody_listens(shell: list[str], library: Path) -> None:
    run(shell, library, "say hello")
    assert (library.parent / "said").read_text() == ""


def test_the_answer_is_read_whatever_its_framing(shell: list[str], library: Path) -> None:
    answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhello 30\n\r\nf\r\norder o9 deploy\n\r\n"
    script = """
    heartbeats() { echo "pace $1"; }
    order() { echo "order $1 $2"; }
    { cat; sleep 0.3; } | consume; wait
    """
    assert sorted(run(shell, library, script, answer).splitlines()) == ["order o9 deploy", "pace 30"]
    assert (library.parent / "connected").exists()


def test_a_refused_stream_asks_for_a_new_registration(shell: list[str], library: Path) -> None:
    run(shell, library, "consume", "HTTP/1.1 401 Unauthorized\r\n\r\n")
    assert (library.parent / "unauthorized").exists()


LEAVING = """
BOOT=http://c API=https://c MAC=m
fetch() {
    case $1 in
    */boot) cp "$RUN/boot.served" "$2" ;;
    */vmlinuz) echo kernel >"$2" ;;
    */initramfs) echo initramfs >"$2" ;;
    */ticket) echo "$TICKET_ANSWER" >"$2.part"; [ "$TICKET_ANSWER" = ticket ] && mv "$2.part" "$2" ;;
    esac
}
kexec_load() { cat "$1" "$2"; echo "$3"; }
load_next_boot || echo reboot
"""


@pytest.mark.parametrize(
    ("kernel", "ticket", "expected"),
    [
        ("kernel", "ticket", "kernel initramfs ticket a=1 b"),
        ("kernel", '{"status":404}', "kernel initramfs a=1 b"),
        ("kernel", '{"status":503}', "reboot"),
        ("another", "ticket", "reboot"),
        ("", "ticket", "reboot"),
    ],
    ids=["awaited", "not awaited", "controller away", "another kernel", "no digest"],
)
def test_leaving_boots_what_the_controller_says_over_tls(
    shell: list[str], library: Path, kernel: str, ticket: str, expected: str
) -> None:
    digest = {name: hashlib.sha256(f"{name}\n".encode()).hexdigest() for name in ("kernel", "initramfs", "another")}
    (library.parent / "boot.served").write_text(
        f"BOOT_KERNEL='http://c/vmlinuz'\nBOOT_KERNEL_SHA256='{digest.get(kernel, '')}'\n"
        f"BOOT_INITRD='http://c/initramfs'\nBOOT_INITRD_SHA256='{digest['initramfs']}'\nBOOT_ARGS='a=1 b'\n"
    )
    assert run(shell, library, f"TICKET_ANSWER='{ticket}'\n{LEAVING}").split() == expected.split()


@pytest.mark.parametrize("served", ["genuine", "another", "cut"])
def test_modules_take_the_place_of_the_old_ones_only_with_the_right_checksum(
    shell: list[str], library: Path, tmp_path: Path, served: str
) -> None:
    tree = tmp_path / "tree/lib/modules/6.1"
    tree.mkdir(parents=True)
    (tree / "new.ko").write_bytes(bytes(range(256)) * 500)
    (tree / "modules.dep").touch()
    subprocess.run(["tar", "-czf", tmp_path / "good", "-C", tmp_path / "tree", "lib"], check=True)
    digest = hashlib.sha256((tmp_path / "good").read_bytes()).hexdigest()
    content = (tmp_path / "good").read_bytes()
    given = {"genuine": content, "another": content + b"\0", "cut": content[:-100]}[served]
    (tmp_path / "served").write_bytes(given)
    old = tmp_path / "root/lib/modules/6.1"
    old.mkdir(parents=True)
    (old / "old.ko").touch()
    script = f"""
    . {NODE}/initramfs/image.sh
    refuse() {{ echo "refused: $*"; exit 1; }}
    box() {{ if [ "$1" = wget ]; then cat {tmp_path}/served; else "$@"; fi; }}
    sha256sum() {{ if [ "$#" = 1 ]; then echo "other  x"; else command sha256sum "$@"; fi; }}
    MODULES=/lib/modules/6.1 MODULES_URL=http://c/m MODULES_SHA256={digest} IMAGE_MODULES=all ID=o1
    install_modules {tmp_path}/root
    """
    out = run(shell, library, script)
    assert ("refused" in out) is (served != "genuine")
    left = sorted(path.name for path in old.iterdir())
    assert left == (["modules.dep", "new.ko"] if served == "genuine" else ["old.ko"])
    assert [path.name for path in (tmp_path / "root/lib/modules").iterdir()] == ["6.1"]


def test_services_start_and_stop_with_the_list(shell: list[str], library: Path) -> None:
    script = """
    fetch() { : >"$2"; [ "${1##*/}" = services ] && cat "$RUN/list" >"$2"; return 0; }
    box() { case $1 in sha256sum) echo "good  x" ;; tar) for f in start stop; do
        printf '#!/bin/sh\\necho %s\\n' "$f" >"$5/$f"; chmod +x "$5/$f"; done ;; esac; }
    API=https://c
    echo "web 1 good" >"$RUN/list"; update_services && echo started
    update_services && ls "$RUN/services"
    echo "web 2 good" >"$RUN/list"; update_services && cat "$RUN/services/web/.version"
    : >"$RUN/list"; update_services && ls "$RUN/services"
    echo "bad 1 other" >"$RUN/list"; update_services || echo refused
    """
    (library.parent / "services").mkdir()
    assert run(shell, library, script).split() == ["started", "web", "stop", "2", "stop", "refused"]


def test_swap_is_known_by_its_signature(tmp_path: Path) -> None:
    page = b"\0" * 4086 + b"SWAPSPACE2"
    (tmp_path / "page").write_bytes(page)
    reading = (NODE / "initramfs/swap.sh").read_text()
    line = next(part.strip() for part in reading.splitlines() if part.strip().startswith("page="))
    script = line.replace("/dev/$name", str(tmp_path / "page")) + '; echo "$page"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "SWAPSPACE2\n"


@pytest.mark.parametrize(
    ("said", "seconds", "tries"),
    [
        ('{"status": 503}', 4, 3),
        ("", 4, 3),
        ('{"status": 403}', 4, 1),
        ('{"status": 503}', 0, 1),
    ],
    ids=["busy", "away", "refused", "impatient"],
)
def test_a_download_waits_for_a_controller_but_not_after_a_refusal(
    shell: list[str], library: Path, said: str, seconds: int, tries: int
) -> None:
    script = f"""
API=https://controller FETCH_SECONDS={seconds}
sleep() {{ :; }}
api() {{ echo try; [ -z '{said}' ] || echo '{said}' >"$3"; return 22; }}
fetch https://controller/x {library.parent}/x && echo fetched
"""
    assert run(shell, library, script).split() == ["try"] * tries
