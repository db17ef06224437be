"""A real, small datacentre for tests: a lab with a controller, reached through the CLI, SSH and the storage host alone.

Everything is changed through the public command line. What must hold is looked up where it is real: the exports on
the storage host, the page of an appliance, the boot id that a machine itself reports.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from openqrm.admin.demo import Cli, CommandError, Ingredients, log_in, set_up
from openqrm.admin.lab.datacentre import Lab
from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.network import STORAGE_ADDRESS, enter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from openqrm.admin.lab.state import LabSpec

IDLE_SECONDS = 240
PAGE_SECONDS = 60
EXPORTS = "cat /etc/ganesha/exports.d/*.conf 2>/dev/null | grep -v '^#'; true"
LIVE_EXPORTS = (
    "gdbus call --system --dest org.ganesha.nfsd --object-path /org/ganesha/nfsd/ExportMgr "
    "--method org.ganesha.nfsd.exportmgr.ShowExports"
)
_ENDED = ("done", "failed", "abandoned", "cancelled")


class SiteError(AssertionError):
    """What a test waited for did not come."""


@dataclass
class Site:
    """A lab that is up and set up, with its CLI."""

    lab: Lab
    cli: Cli
    password: str
    ingredients: Ingredients

    @classmethod
    def up(cls, spec: LabSpec, directory: Path) -> Site:
        """Bring the lab up, with the golden volume on its storage and every node off. Raises LabError, DemoError."""
        ingredients = Ingredients.get()
        lab = Lab.up(spec, directory)
        try:
            cli, password = log_in(lab)
            set_up(lab, cli, ingredients)
            site = cls(lab, cli, password, ingredients)
            site("volume", "import", "--name", "golden", "--storage-id", "nfs1", "--archive", ingredients.archive.name)
        except BaseException:
            lab.down()
            raise
        return site

    @classmethod
    def open(cls, directory: Path) -> Site:
        """One that is up already. Raises NotUpError."""
        lab = Lab.open(directory)
        return cls(lab, *log_in(lab), ingredients=Ingredients.get())

    def __call__(self, *words: str, secret: str = "") -> Any:
        """One CLI command; its JSON. CommandError."""
        return self.cli(*words, quiet=True, secret=secret)

    def refusal(self, *words: str) -> CommandError:
        """What the CLI says to a command that must fail. SiteError when it does not."""
        try:
            self(*words)
        except CommandError as error:
            return error
        raise SiteError(f"openqrm {' '.join(words)} was accepted")

    def power(self, verb: str, *nodes: str) -> None:
        """`on`, `off` or `reset` for the named nodes; without names for all."""
        for name in nodes or [node.name for node in self.lab.nodes()]:
            self.lab.power(name, verb)  # type: ignore[arg-type]  # one of PowerVerb; refused by the lab otherwise

    def node_of(self, resource: dict[str, Any]) -> str:
        """The lab's name of a resource."""
        return next(node.name for node in self.lab.nodes() if node.macs()[0] == resource["mac"])

    def resource(self, which: str | int) -> dict[str, Any]:
        """A resource by name, id, or the lab's name of a node."""
        for node in self.lab.nodes():
            if node.name == which:
                items = self("resource", "list", "--search", node.macs()[0])["items"]
                found = [item for item in items if item["mac"] == node.macs()[0]]
                if not found:
                    raise SiteError(f"{which} never registered")
                which = found[0]["id"]
        shown: dict[str, Any] = self("resource", "show", str(which))
        return shown

    def appliance(self, name: str) -> dict[str, Any]:
        """An appliance by name."""
        found: dict[str, Any] = self("appliance", "show", name)
        return found

    def make(self, name: str, *more: str, image: str = "") -> str:
        """An appliance `name` on a fresh clone of golden (or `image`); returns the image's name."""
        if not image:
            image = name
            self("volume", "clone", "golden", "--name", image)
            self("image", "create", "--name", image, "--volume-id", image)
        self("appliance", "create", "--name", name, "--image-id", image, *more)
        return image

    def idle(self, *nodes: str, seconds: float = IDLE_SECONDS) -> list[dict[str, Any]]:
        """Wait until the named nodes (default: all) are idle and heard; their resources."""
        wanted = nodes or tuple(node.name for node in self.lab.nodes())
        macs = {self.lab.node(name).macs()[0]: name for name in wanted}

        def there() -> list[dict[str, Any]] | None:
            items = self("resource", "list", "--phase", "idle", "--health", "ok")["items"]
            found = {item["mac"]: item for item in items if item["mac"] in macs}
            return [found[mac] for mac in macs] if len(found) == len(macs) else None

        return eventually(there, seconds, f"{', '.join(wanted)} idle", self.state)

    def page(self, address: str, path: str = "status.txt", seconds: float = PAGE_SECONDS) -> dict[str, str]:
        """The appliance's page by its `name=value` lines."""

        def there() -> str | None:
            with contextlib.suppress(LabError):
                return self.lab.inside("curl", "-sf", "-m", "3", f"http://{address}/{path}")
            return None

        text = eventually(there, seconds, f"an answer at http://{address}/", self.state, pause=0.1)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def ssh(self, address: str, command: str, *, check: bool = True, seconds: float = 60) -> str:
        """Run a shell command as root, with the installation's key. LabError when it fails and `check` is set."""
        done = subprocess.run(
            enter(self.lab.namespace, *self.ssh_argv(address, command)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if check and done.returncode:
            raise LabError(f"{address}: {command!r} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout if check else f"{done.stdout}{done.stderr}\nstatus={done.returncode}"

    def ssh_argv(self, address: str, command: str) -> list[str]:
        """The ssh(1) command, to be run in the lab's network."""
        options = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=5")
        flags = [word for option in options for word in ("-o", option)]
        return ["ssh", "-i", str(self.lab.controller.installation_key), *flags, f"root@{address}", command]

    def on_storage(self, command: str) -> str:
        """Run a shell command on the storage host."""
        return self.lab.on_storage("sh", "-c", command)

    def grants(self) -> str:
        """What the storage host exports now: in its configuration and in the running server; empty when nothing."""
        live = [part for part in self.on_storage(LIVE_EXPORTS).split("'") if part.startswith("/srv/")]
        return "\n".join([*self.on_storage(EXPORTS).split("\n"), *live]).strip()

    def leases(self) -> list[dict[str, Any]]:
        """The leases that are held."""
        items: list[dict[str, Any]] = self("lease", "list", "--state", "held")["items"]
        return items

    def operation(self, operation_id: int, seconds: float = 300) -> dict[str, Any]:
        """Wait for an operation to end; SiteError when it wants a hand."""

        def ended() -> dict[str, Any] | None:
            with contextlib.suppress(CommandError):
                found: dict[str, Any] = self("operation", "show", str(operation_id))
                if found["status"] == "attention":
                    raise SiteError(f"operation {operation_id} needs attention: {found['error']}\n{self.state()}")
                return found if found["status"] in _ENDED else None
            return None

        return eventually(ended, seconds, f"the end of operation {operation_id}", self.state)

    def events(self, words: str, after: int = 0) -> list[dict[str, Any]]:
        """Events after the one with that id whose text has `words`."""
        items = self("event", "list", "--sort=-id", "--limit", "200")["items"]
        return [item for item in items if item["id"] > after and words in item["text"]]

    def last_event(self) -> int:
        """The id of the newest event."""
        items = self("event", "list", "--sort=-id", "--limit", "1")["items"]
        return int(items[0]["id"]) if items else 0

    def state(self) -> str:
        """What a failed test wants to know."""
        lines = []
        for kind in ("resource", "appliance", "operation"):
            with contextlib.suppress(CommandError):
                for item in self(kind, "list", "--sort=-id", "--limit", "8")["items"]:
                    kept = ("id", "name", "phase", "health", "status", "boot_id", "target_name", "error", "running_on")
                    lines.append(f"{kind} " + " ".join(f"{key}={item[key]}" for key in kept if item.get(key)))
        return "\n".join(lines)

    def nothing_left(self) -> None:
        """No grant and no lease is held, and nobody needs to be told anything. SiteError."""
        if self.grants() or self.leases():
            raise SiteError(f"left over: {self.grants()} {self.leases()}\n{self.state()}")
        waiting = self("operation", "list", "--status", "attention")["items"]
        if waiting:
            raise SiteError(f"operations need attention: {waiting}")

    def as_found(self) -> None:
        """Whatever a test did: storage and controller run, no appliance is left, every node is on and idle."""
        self.lab.power("storage", "on")
        self.lab.start_controller()
        for item in self("operation", "list", "--sort=-id", "--limit", "10")["items"]:
            if item["status"] == "queued" and item["name"] == "appliance.start":
                with contextlib.suppress(CommandError):  # it may just have begun
                    self("operation", "cancel", str(item["id"]))
            if item["status"] not in _ENDED:
                self.operation(item["id"])
        appliances = self("appliance", "list")["items"]
        running = [item["name"] for item in appliances if item["phase"] == "running"]
        for operation in [self("appliance", "stop", name, "--no-wait") for name in running]:
            self.operation(operation["id"])
        for item in appliances:
            self("appliance", "remove", item["name"])
        for item in self("image", "list")["items"]:
            self("image", "remove", item["name"])
        for item in self("volume", "list")["items"]:
            if item["name"] != "golden":
                self("volume", "remove", item["name"])
        self.power("on")
        self.idle()
        self.nothing_left()

    @contextlib.contextmanager
    def calling(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A CLI command in the background; ended with the block if it still runs."""
        argv = self.cli.argv(*words)
        with subprocess.Popen(
            argv,
            env=self.cli.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                yield running
            finally:
                running.kill()


_T = TypeVar("_T")


def eventually(
    look: Callable[[], _T | None], seconds: float, what: str, state: Callable[[], str] | None = None, pause: float = 0.5
) -> _T:
    """Look until there is something; SiteError naming `what` after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise SiteError(f"not seen in {seconds:.0f} s: {what}\n{state() if state else ''}")
        time.sleep(pause)


__all__ = ["STORAGE_ADDRESS", "Site", "SiteError", "eventually"]
