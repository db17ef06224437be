"""What a lab is and what of it exists: specification, paths, the record on disk and its lock."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .errors import LabError, NotUpError
from .process import ProcessRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

Firmware = Literal["bios", "uefi"]
Accelerator = Literal["kvm", "tcg"]

BASE_DIRECTORY = Path("/var/lib/openqrm-lab")
CACHE_DIRECTORY = Path("/var/cache/openqrm")
STATE_FILE = "lab.json"
STATE_VERSION = 1
MAX_NODES = 64


def cache_directory() -> Path:
    """Where kernels, image tarballs and probe results are kept between labs (OPENQRM_CACHE_DIR overrides)."""
    return Path(os.environ.get("OPENQRM_CACHE_DIR") or CACHE_DIRECTORY)


def default_directory(name: str) -> Path:
    """Where the lab `name` keeps its state (OPENQRM_LAB_DIR overrides)."""
    override = os.environ.get("OPENQRM_LAB_DIR")
    return Path(override).resolve() if override else BASE_DIRECTORY / name


@dataclass(frozen=True)
class LabSpec:
    """What `lab up` is asked for."""

    name: str = "lab"
    nodes: int = 2
    firmware: Firmware = "bios"
    memory_mb: int = 512
    disk_mb: int = 0
    """Size of each node's disk; 0: no disk."""
    second_nic: bool = False
    """A second NIC on a storage network, 10.99.1.0/24."""
    storage_machine: bool = False
    """A storage host with a kernel of its own, 10.99.0.3, beside the usual one."""
    api_port: int = 8443
    """Port on 127.0.0.1 that is forwarded to the controller; 0: any free one."""
    with_controller: bool = True
    controller_command: tuple[str, ...] = ()
    """How the controller is started; empty: this installation's `openqrm controller run`. `{config}`, `{dir}` and
    `{socket}` are replaced."""
    database_url: str = ""
    """The controller's database; empty: SQLite in the state directory."""
    installation_key: str = ""
    """The installation's public SSH key, allowed on the storage host; empty: the controller's (made before it starts),
    or, without a controller, a new pair in the state directory."""

    def __post_init__(self) -> None:
        """Raise LabError for what cannot work."""
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,23}", self.name):
            raise LabError(
                f"lab name {self.name!r}: use up to 24 lower-case letters, digits and hyphens, a letter first"
            )
        if not 0 <= self.nodes <= MAX_NODES:
            raise LabError(f"--nodes {self.nodes}: use 0 to {MAX_NODES}")
        if self.memory_mb < 256:
            raise LabError(f"--memory {self.memory_mb}: a node needs at least 256 MB to boot from the network")
        if self.firmware not in {"bios", "uefi"}:
            raise LabError(f"firmware {self.firmware!r}: use bios or uefi")


@dataclass(frozen=True)
class LabState:
    """What exists, as recorded on disk."""

    spec: LabSpec
    boot_id: str
    accelerator: Accelerator = "tcg"
    api_port: int = 0
    complete: bool = False
    """Whether `up` came to its end; if not, the next `up` or `down` cleans."""
    processes: dict[str, ProcessRecord] = field(default_factory=dict)

    def with_process(self, name: str, record: ProcessRecord | None) -> LabState:
        """The same state with one process recorded or (None) forgotten."""
        kept = {key: value for key, value in self.processes.items() if key != name}
        return replace(self, processes=kept if record is None else {**kept, name: record})


def current_boot_id() -> str:
    """This boot of the real machine: after another one, no recorded process can still run."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def save(directory: Path, state: LabState) -> None:
    """Write the state atomically."""
    temporary = directory / f"{STATE_FILE}.new"
    temporary.write_text(json.dumps({"version": STATE_VERSION, **asdict(state)}, indent=1), encoding="utf-8")
    temporary.rename(directory / STATE_FILE)


def load(directory: Path) -> LabState | None:
    """Read the state; None when there is none. Raises LabError for a file this version cannot read."""
    path = directory / STATE_FILE
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LabError(f"{path} cannot be read: {error}") from error
    try:
        spec = data["spec"]
        spec["controller_command"] = tuple(spec["controller_command"])
        return LabState(
            LabSpec(**spec),
            data["boot_id"],
            data["accelerator"],
            data["api_port"],
            data["complete"],
            {name: ProcessRecord(**record) for name, record in data["processes"].items()},
        )
    except (KeyError, TypeError) as error:
        raise LabError(
            f"{path} was written by another version ({error}); end that lab with the version that started it"
        ) from error


def require(directory: Path) -> LabState:
    """Read the state of a lab that must be up. Raises NotUpError."""
    state = load(directory)
    if state is None or not state.complete or state.boot_id != current_boot_id():
        raise NotUpError(f"no lab is up in {directory}; start one with: openqrm lab up")
    return state


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[Path]:
    """Hold the lab's lock: only one command changes a lab at a time. The kernel frees it when the holder dies.

    Yields the lock's file, which the holder may remove at its end. Raises LabError when another holds it.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    lock = directory.parent / f".{directory.name}.lock"
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(handle.fileno()).st_ino == lock.stat().st_ino
        except (BlockingIOError, FileNotFoundError):
            held = False
        if not held:  # or removed by its holder since it was opened: then it locks nothing
            raise LabError(f"another `openqrm lab` command is changing the lab in {directory}; try again")
        yield lock
