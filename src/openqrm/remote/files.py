"""Files on a host, as commands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from openqrm.domain.errors import CommandFailedError, InvalidError
from openqrm.engine.ports import Ready

if TYPE_CHECKING:
    from openqrm.engine.ports import Finished

MODE = re.compile(r"[0-7]{4}")
ABSENT = 3
"""Exit status of READ for a file that is not there."""

READ = f"""\
[ -e "$1" ] || exit {ABSENT}
stat -c %a -- "$1" && exec cat -- "$1"
"""
"""The mode without its leading zero on a line of its own, then the content."""

WRITE = """\
set -eu
directory=$(dirname -- "$1")
[ -d "$directory" ] || (umask 022 && mkdir -p -- "$directory")
umask 077
new=$(mktemp "$1.XXXXXX")
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(wc -c <"$new")" -eq "$3" ]
chmod "$2" "$new"
sync "$new" 2>/dev/null || sync
mv -f -- "$new" "$1"
sync "$directory" 2>/dev/null || sync
"""
"""With path, mode and size as arguments and the content as input: the old file or the whole new one is there."""
RECEIVE = WRITE.replace('new=$(mktemp "$1.XXXXXX")', 'new=$1.part\nrm -f -- "$new"')
"""The same for what is large: what a host that died left of it is known by its name, and goes when it is sent again."""


def read_argv(path: str) -> tuple[str, ...]:
    """The command whose output `parse_read` understands."""
    return ("sh", "-c", READ, "read-file", path)


def parse_read(host: int, path: str, finished: Finished) -> tuple[str, str] | None:
    """Content and mode (`0644`), or None. CommandFailedError for a directory, no permission, or what is no UTF-8."""
    if finished.status == ABSENT:
        return None
    mode, separator, content = finished.stdout.partition("\n")
    if finished.status or not separator:
        raise CommandFailedError(
            f"cannot read {path} on resource {host}", exit_status=finished.status, output=finished.stderr
        )
    if "�" in content:
        raise CommandFailedError(f"{path} on resource {host} is not a text file", output="")
    return content, mode.zfill(4)[-4:]


def receive_argv(path: str, size: int) -> tuple[str, ...]:
    """The command that makes its input a file of `size` bytes, for root alone."""
    return ("sh", "-c", RECEIVE, "receive-file", path, "0600", str(size))


def write_command(path: str, content: str | None, mode: str) -> Ready:
    """The command that replaces a file, or removes it and what was received of it in part.

    InvalidError for a mode that is not like `0644`.
    """
    if content is None:
        return Ready(("rm", "-f", "--", path, f"{path}.part"))
    if not MODE.fullmatch(mode):
        raise InvalidError(f"{mode!r} is not a file mode such as 0644", field="mode")
    size = len(content.encode())
    return Ready(("sh", "-c", WRITE, "write-file", path, mode, str(size)), input=content)
