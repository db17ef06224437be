"""How a client machine uses what an export hands out, for the conformance suite: one `Access` for each protocol.

A plug-in author writes one class, in the tests or as `access_NAME.py`:

    class IscsiAccess(MachineAccess):
        def read(self, client, attach, secrets):
            machine = self.machine(client)          # a network namespace: machine.run(...), machine.start(...)
            done = machine.run("reader", attach["ROOT_TARGET"], given=secrets["chap"])
            return read_back(done.stdout) if done.returncode == 0 else None

What is read and written, the *mark* and the *counter*, is where the volume's medium has it:

- TREE: the files `mark` and `counter` at the top of the tree.
- BLOCK: the blocks of BLOCK_BYTES at MARK_AT and COUNTER_AT of the device (bytes), text filled up with NUL.

`attach` is what the driver's `attach` (or `lent`) gave: nothing else is known of the server. `secrets` are texts by
the names that the export declares. Who a machine is on the network (address and MAC) is its own; who it says it is in
the protocol (an initiator's name, say) is in `attach`. So a machine that poses as another is asked with the other's
`attach`, without or with the other's secrets.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from openqrm.plugin_api.drivers import Client
    from openqrm.testing.client_machines import ClientMachine

MARK, COUNTER = "mark", "counter"
"""Files of a TREE."""
BLOCK_BYTES = 4096
MARK_AT, COUNTER_AT = 1 << 20, 2 << 20
"""Where a BLOCK volume has them, in bytes: multiples of BLOCK_BYTES, behind what a file system begins with."""


class Access(Protocol):
    """Client machines using one protocol. All calls block; none lasts longer than half a minute."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """The mark, read on a session of its own, which is closed again; None when the server refuses, is silent, or
        shows no such volume. What the server said must not come from a cache of the client."""

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """Replace the mark, on a session of its own; whether the server took it, to its disk."""

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """Open one session and write a growing number to the counter without end, past every cache of the client
        (O_DIRECT, O_SYNC), whatever errors it meets: it goes on with the session it has, and now and then connects
        anew, as a stubborn machine does. Returns what ends it; after that nothing of it writes any more."""

    def set_link(self, client: Client, *, up: bool) -> None:
        """The machine's network."""

    def posing_as(self, impostor: Client, victim: Client) -> AbstractContextManager[None]:
        """While it lasts, the impostor's machine has the victim's address and MAC; the victim is off."""


class MachineAccess:
    """What every access has: its machines, by the resource ids of `ClientMachine.client`."""

    def __init__(self, machines: tuple[ClientMachine, ...]) -> None:
        self._machines = {each.client().resource_id: each for each in machines}

    def machine(self, client: Client) -> ClientMachine:
        """The machine of a client."""
        return self._machines[client.resource_id]

    def set_link(self, client: Client, *, up: bool) -> None:
        """The machine's network card."""
        self.machine(client).set_link(up=up)

    def posing_as(self, impostor: Client, victim: Client) -> AbstractContextManager[None]:
        """Address and MAC of another machine."""
        return self.machine(impostor).posing_as(self.machine(victim))


class ProgramAccess(MachineAccess, ABC):
    """BLOCK volumes by a program that runs on the machine: `... read AT`, `... write AT TEXT` and `... count AT`.

    `secret` names the export's secret that it reads from its standard input, if it has one.
    """

    secret = ""

    @abstractmethod
    def words(self, attach: Mapping[str, str]) -> tuple[str, ...]:
        """The program, and what it is told of the volume before the verb."""

    def read(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]) -> str | None:
        """On a session of its own."""
        words = (*self.words(attach), "read", str(MARK_AT))
        done = self.machine(client).run(*words, given=secrets.get(self.secret))
        return read_back(done.stdout) if done.returncode == 0 else None

    def write(self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str], text: str) -> bool:
        """On a session of its own."""
        words = (*self.words(attach), "write", str(MARK_AT), text)
        return self.machine(client).run(*words, given=secrets.get(self.secret)).returncode == 0

    def start_counting(
        self, client: Client, attach: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Callable[[], None]:
        """On one session."""
        words = (*self.words(attach), "count", str(COUNTER_AT))
        child = self.machine(client).start(*words, given=secrets.get(self.secret, ""))

        def stop() -> None:
            child.kill()
            child.wait()

        return stop


def block_of(text: str) -> bytes:
    """A mark or counter as a BLOCK volume holds it."""
    return text.encode().ljust(BLOCK_BYTES, b"\0")


def read_back(block: bytes | str) -> str:
    """The text in such a block."""
    data = block.encode() if isinstance(block, str) else block
    return data.rstrip(b"\0").decode(errors="replace")
