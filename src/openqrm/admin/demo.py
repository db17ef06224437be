"""`openqrm demo up|down`: the main job in the virtual datacentre, by the CLI alone, with a timeline."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from openqrm.admin.lab.datacentre import Lab, down
from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.kernel import lab_kernel
from openqrm.admin.lab.state import LabSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from openqrm.admin.lab.kernel import KernelRoot

_NAME = "demo"
_IDLE_SECONDS = 300
_CONSOLE = "console=ttyS0"
"""The machines have no screen: what their kernel says goes to the serial line that `openqrm lab console` shows."""
_STORAGE = {"name": "storage1", "address": "10.99.0.2"}
_PLUGINS = ("dhcpd", "tftpd", "dir-storage", "nfs-storage", "btrfs-storage")


class DemoError(Exception):
    """The demo could not go on; the text says where it stood."""


class CommandError(DemoError):
    """An `openqrm` command ended with another exit code than 0; `problem` is what it said, as JSON."""

    def __init__(self, words: Sequence[str], code: int, text: str) -> None:
        super().__init__(f"openqrm {shlex.join(words)} ended with {code}: {text.strip()}")
        self.code = code
        self.problem = _problem(text)


def _problem(text: str) -> dict[str, Any]:
    for line in reversed([text, *text.splitlines()]):
        with contextlib.suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return {}


@dataclass
class Timeline:
    """What happened when, for the table at the end."""

    begun: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, float]] = field(default_factory=list)

    def phase(self, title: str) -> _Phase:
        """A context that measures one phase and says so while it runs."""
        return _Phase(self, title)

    def table(self) -> str:
        """Durations per phase."""
        width = max(len(title) for title, _ in self.rows)
        lines = [f"  {title:<{width}}  {seconds:7.1f} s" for title, seconds in self.rows]
        total = time.monotonic() - self.begun
        return "\n".join([*lines, f"  {'all':<{width}}  {total:7.1f} s"])


class _Phase:
    def __init__(self, timeline: Timeline, title: str) -> None:
        self.timeline = timeline
        self.title = title
        self.start = 0.0

    def __enter__(self) -> None:
        self.start = time.monotonic()
        print(f"==> {self.title}", flush=True)

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:
            self.timeline.rows.append((self.title, time.monotonic() - self.start))


_FOR_PROGRAMS = ("--json", "--yes")


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "openqrm.cli.main", *words]


class Cli:
    """The `openqrm` command as a user would call it; every answer is its `--json` output."""

    def __init__(self, url: str, authority: Path, home: Path) -> None:
        self.environment = {
            **os.environ,
            "OPENQRM_URL": url,
            "OPENQRM_CA": str(authority),
            "XDG_CONFIG_HOME": str(home),
            "XDG_CACHE_HOME": str(home),
        }

    def __call__(self, *words: str, quiet: bool = False, secret: str = "") -> Any:
        """Run one command and return what it printed as JSON; `secret` goes by standard input. CommandError."""
        if not quiet:
            print(f"    $ openqrm {shlex.join(words)}", flush=True)
        printed = self._run((*words, *_FOR_PROGRAMS), secret)
        return json.loads(printed) if printed.strip() else None

    def argv(self, *words: str) -> list[str]:
        """The same command for whoever wants to start it in another way."""
        return _command(*words, *_FOR_PROGRAMS)

    def login(self, password: str) -> None:
        """Log in as the first administrator; the password goes by standard input. CommandError."""
        self._run(("login", "--name", "admin", "--password-stdin"), password)

    def _run(self, words: Sequence[str], given: str) -> str:
        done = subprocess.run(
            _command(*words), env=self.environment, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise CommandError(words, done.returncode, done.stderr or done.stdout)
        return done.stdout


@dataclass(frozen=True)
class Ingredients:
    """What the lab's machines run: a kernel and the small image as a tar archive, both cached."""

    kernel: KernelRoot
    archive: Path

    @classmethod
    def get(cls) -> Ingredients:
        """From the cache, or built now. Raises LabError, RequirementError."""
        from openqrm.admin.image import build_small  # noqa: PLC0415 - built only when the demo runs

        kernel = lab_kernel()
        return cls(kernel, build_small(kernel.root, kernel.version))


def log_in(lab: Lab) -> tuple[Cli, str]:
    """The lab's CLI, logged in, and the first administrator's password."""
    home = lab.controller.home
    cli = Cli(lab.url, home / "tls" / "ca.pem", lab.directory / "cli")
    password = (home / "initial-password").read_text(encoding="utf-8").strip()
    cli.login(password)
    return cli, password


def set_up(lab: Lab, cli: Cli, ingredients: Ingredients) -> None:
    """Plug-ins, network, kernel and storage of a new installation; the image's archive lies on its shelf."""
    shelf = lab.controller.home / "shelf"
    shelf.mkdir(exist_ok=True)
    shutil.copy(ingredients.archive, shelf)
    for plugin in _PLUGINS:
        cli("plugin", "init", plugin)
    ranges = (
        *("--machines-first", "10.99.0.20", "--machines-last", "10.99.0.99"),
        *("--discovery-first", "10.99.0.100", "--discovery-last", "10.99.0.199"),
    )
    cli(*("network", "create", "--name", "management", "--cidr", "10.99.0.0/24", "--interface", "br0"), *ranges)
    for plugin in _PLUGINS:
        cli("plugin", "start", plugin)
    cli(
        *("kernel", "add", "--name", "lab", "--version", ingredients.kernel.version),
        *("--location", str(ingredients.kernel.root), "--arguments", _CONSOLE),
    )
    cli(
        *("resource", "create", "--name", _STORAGE["name"], "--address", _STORAGE["address"]),
        *("--mac", "52:54:00:99:fe:00"),
    )
    cli("storage", "create", "--name", "nfs1", "--type", storage_type(lab), "--resource-id", _STORAGE["name"])


def storage_type(lab: Lab) -> str:
    """Of the first storage: subvolumes, cloned in an instant; directories where this machine cannot mount a btrfs."""
    return "btrfs-nfs" if lab.storage.pool == "btrfs" else "nfs-storage"


def idle_nodes(cli: Cli, wanted: int) -> list[dict[str, Any]]:
    """Wait until so many machines idle; print each with its inventory when it comes."""
    deadline = time.monotonic() + _IDLE_SECONDS
    seen: set[str] = set()
    while time.monotonic() < deadline:
        items = cli("resource", "list", "--phase", "idle", quiet=True)["items"]
        for item in items:
            if item["name"] not in seen:
                seen.add(item["name"])
                print(
                    f"    {item['name']}: {item['cpus']} CPU ({item['cpu_model']}), {item['memory_mb']} MB, "
                    f"{item['nic_count']} NIC, {item['mac']}, {item['address']}, {item['firmware']}",
                    flush=True,
                )
        if len(items) >= wanted:
            return list(items)
        time.sleep(0.3)
    raise DemoError(f"only {len(seen)} of {wanted} machines became idle in {_IDLE_SECONDS} s")


def fetch_page(lab: Lab, address: str) -> str:
    """The appliance's page from its port 80, fetched inside the lab's network."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return lab.inside("curl", "-sf", "-m", "2", f"http://{address}/")
        except LabError:
            time.sleep(0.2)
    raise DemoError(f"nothing answers at http://{address}/")


def run(lab: Lab, cli: Cli, archive: Path, timeline: Timeline) -> None:
    """From power-off to a page and back."""
    nodes = len(lab.nodes())
    with timeline.phase(f"power-off to idle, {nodes} machines by PXE"):
        for node in lab.nodes():
            lab.power(node.name, "on")
        idle_nodes(cli, nodes)
    with timeline.phase("volume and image"):
        cli("volume", "import", "--name", "golden", "--storage-id", "nfs1", "--archive", archive.name)
        cli("volume", "clone", "golden", "--name", "web1")
        cli("image", "create", "--name", "web1", "--volume-id", "web1")
    with timeline.phase("appliance created"):
        cli("appliance", "create", "--name", "web", "--image-id", "web1")
    with timeline.phase("idle to page answered"):
        cli("appliance", "start", "web")
        appliance = cli("appliance", "show", "web", quiet=True)
        page = fetch_page(lab, appliance["address"])
    print(f"    {appliance['placement']}")
    print("\n".join(f"    | {line}" for line in page.strip().splitlines()))
    with timeline.phase("page answered to idle again"):
        cli("appliance", "stop", "web")
        idle_nodes(cli, nodes)


def up(arguments: argparse.Namespace) -> int:
    """Bring everything up, run the main job, leave the controller serving."""
    timeline = Timeline()
    with timeline.phase("kernel and small image"):
        ingredients = Ingredients.get()
    with timeline.phase("lab up"):
        spec = LabSpec(name=_NAME, nodes=arguments.nodes, firmware=arguments.firmware, api_port=arguments.port)
        lab = Lab.up(spec)
    with timeline.phase("log in, plug-ins, network, kernel, storage"):
        cli, password = log_in(lab)
        set_up(lab, cli, ingredients)
    run(lab, cli, ingredients.archive, timeline)
    print(f"\nTimeline ({arguments.firmware}, {lab.state.accelerator})\n{timeline.table()}\n")
    print(farewell(lab, password, cli))
    return 0


def farewell(lab: Lab, password: str, cli: Cli) -> str:
    """How to look, and how to end it."""
    settings = {name: cli.environment[name] for name in ("OPENQRM_URL", "OPENQRM_CA", "XDG_CONFIG_HOME")}
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    inside = f".venv/bin/openqrm lab exec --name {_NAME} -- .venv/bin/openqrm"
    return (
        f"The controller serves {lab.url}\n"
        f"  in a browser: {lab.url}/docs, admin / {password}; the CLI line below is logged in already\n"
        f"  CLI:     export {exports}\n"
        f"           .venv/bin/openqrm resource list\n"
        f"  nodes:   .venv/bin/openqrm lab status --name {_NAME}\n"
        f"  console: .venv/bin/openqrm lab console --name {_NAME} node1\n"
        f"  doctor:  {inside} doctor --config {shlex.quote(str(lab.controller.configuration))}\n"
        f"  end it:  make demo-down"
    )


def main(argv: list[str]) -> int:
    """Run `openqrm demo ARGV`: 0 done, 1 failed, 2 something is missing."""
    parser = argparse.ArgumentParser(prog="openqrm demo", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("up", help="bring the virtual datacentre up and run the main job")
    start.add_argument("--nodes", type=int, default=2, help="how many machines (default: 2)")
    start.add_argument("--firmware", choices=("bios", "uefi"), default="bios")
    start.add_argument("--port", type=int, default=8443, help="on 127.0.0.1, for the API (default: 8443)")
    verbs.add_parser("down", help="end it and remove everything")
    arguments = parser.parse_args(argv)
    try:
        if arguments.verb == "down":
            from openqrm.admin.lab.state import default_directory  # noqa: PLC0415 - only here

            print("ended" if down(default_directory(_NAME), _NAME) else "nothing was up")
            return 0
        return up(arguments)
    except (LabError, DemoError) as error:
        print(f"openqrm demo: {error}", file=sys.stderr)
        return error.exit_status if isinstance(error, LabError) else 1
