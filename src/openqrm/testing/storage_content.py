"""What tests put into volumes and look for, on the storage host itself: the same words for trees and block devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from openqrm.plugin_api.drivers import Medium
from openqrm.testing.access import BLOCK_BYTES, COUNTER, COUNTER_AT, MARK, MARK_AT

if TYPE_CHECKING:
    from collections.abc import Awaitable

_READ_BLOCK = f"""\
dd if="$1" bs={BLOCK_BYTES} skip="$2" count=1 iflag=direct 2>/dev/null ||
    dd if="$1" bs={BLOCK_BYTES} skip="$2" count=1 iflag=nocache 2>/dev/null
"""
_WRITE_BLOCK = f"""\
block=$(mktemp)
head -c {BLOCK_BYTES} /dev/zero >"$block"
printf %s "$3" | dd of="$block" conv=notrunc 2>/dev/null
dd if="$block" of="$1" bs={BLOCK_BYTES} seek="$2" conv=notrunc,fsync 2>/dev/null
rm -f "$block"
"""
# In a mount namespace of its own: nothing stays mounted, whatever becomes of the command.
_MOUNTED = """\
script=$1 device=$2
shift 2
exec unshare --mount --propagation private sh -ec '
script=$1 device=$2
shift 2
directory=$(mktemp -d)
if [ -f "$device" ]; then mount -o loop "$device" "$directory"; else mount "$device" "$directory"; fi
status=0
sh -ec "$script" sh "$directory" "$@" || status=$?
umount "$directory"
rmdir "$directory"
exit $status
' sh "$script" "$device" "$@"
"""
_ARCHIVE = """\
directory=$(mktemp -d -p /var/tmp)
mkdir "$directory/tree"
(cd "$directory/tree" && eval "$1")
tar --xattrs --xattrs-include='*' $2 -cf "$directory/archive" -C "$directory/tree" .
rm -rf "$directory/tree"
echo "$directory/archive"
"""


class Shell(Protocol):
    """Runs a script on the host."""

    def __call__(self, script: str, *words: str, seconds: float = 120) -> Awaitable[str]:
        """Its output; CommandFailedError."""


@dataclass(frozen=True)
class ContentOfVolumes:
    """By location; the medium says whether that is a directory or a device (or a file that stands for one)."""

    shell: Shell
    medium: Medium

    async def put_mark(self, where: str, text: str) -> None:
        """To the disk."""
        if self.medium is Medium.TREE:
            await self.shell(f'printf %s "$2" >"$1/{MARK}"; sync "$1/{MARK}"', where, text)
        else:
            await self.shell(_WRITE_BLOCK, where, str(MARK_AT // BLOCK_BYTES), text)

    async def mark(self, where: str) -> str:
        """Past the host's caches where it can be."""
        if self.medium is Medium.TREE:
            return await self.shell(f'cat "$1/{MARK}"', where)
        return (await self.shell(_READ_BLOCK, where, str(MARK_AT // BLOCK_BYTES))).rstrip("\0")

    async def counter(self, where: str) -> str:
        """As `mark`; empty when nothing was written yet."""
        if self.medium is Medium.TREE:
            return await self.shell(f'cat "$1/{COUNTER}" 2>/dev/null || true', where)
        return (await self.shell(_READ_BLOCK, where, str(COUNTER_AT // BLOCK_BYTES))).rstrip("\0")

    async def in_tree(self, where: str, script: str, *words: str) -> str:
        """Run a script with the tree as `$1`, and `words` behind it."""
        if self.medium is Medium.TREE:
            return await self.shell(script, where, *words)
        return await self.shell(_MOUNTED, script, where, *words)

    async def archive(self, script: str, *, gzip: bool = False) -> str:
        """A tar archive on the host of what a script makes in its current directory; its path."""
        return (await self.shell(_ARCHIVE, script, "--gzip" if gzip else "")).strip()

    async def is_empty(self, where: str) -> bool:
        """Whether a volume that was made just now holds nothing of another one: no file, or no mark."""
        if self.medium is Medium.TREE:
            found = await self.shell('ls -A "$1"', where)
            return found.strip() in ("", "lost+found")
        return await self.mark(where) == ""
