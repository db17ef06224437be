"""Trees that are exported by NFS: extended attributes lie in a file too, since machines see none of them otherwise.

See docs/explanation/node-protocol.md, Transfers. Not in the conformance suite: a pool for other exports need not do so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openqrm.testing.manifest import ATTRIBUTES

if TYPE_CHECKING:
    from openqrm.testing.storage_subject import Subject


async def check_attributes_are_listed(subject: Subject) -> None:
    """AssertionError unless a tree that is filled has that file, and one whose archive has no attributes has none."""
    for make, expected in (("printf one >kept; setfattr -n user.color -v red kept", True), ("printf one >kept", False)):
        volume, archive = subject.volume(), await subject.content.archive(make)
        for steps in (await subject.create(volume), await subject.fill(volume, archive)):
            await subject.runner.do(steps)
        listed = await subject.in_tree(volume, f'cat "$1/{ATTRIBUTES}" 2>/dev/null || true')
        assert ("# file: kept\nuser.color=0x726564\n" in listed) is expected  # noqa: S101
        assert bool(listed) is expected  # noqa: S101
        await subject.drop(volume)
