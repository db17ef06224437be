"""The runtime bundle: a few programs with all their libraries, which run inside any image.

At boot it lies in a tmpfs at `/run/openqrm/rt`, moves along at switch root, and never uses the image's own libraries:
every program is started through the bundled dynamic loader.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from openqrm.netboot.cpio import Entry

PREFIX = "/run/openqrm/rt"
PROGRAMS = ("curl", "openssl", "dropbear", "dropbearkey", "kexec")
PACKAGES = {"curl": "curl", "openssl": "openssl", "dropbear": "dropbear-bin", "dropbearkey": "dropbear-bin",
            "kexec": "kexec-tools", "busybox": "busybox-static"}  # fmt: skip
SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LDD_LINE = re.compile(r"^\s*(?:(?P<name>\S+) => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$")
_LDD_MISSING = re.compile(r"^\s*(\S+) => not found$")


class RuntimeBundleError(Exception):
    """A program that the bundle needs is missing or unusable; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Libraries:
    """What a program is linked with: the loader, and library names (as programs ask for them) to files."""

    loader: str
    files: dict[str, str]


def parse_ldd(output: str) -> Libraries | None:
    """The libraries that ldd(1) printed, None for a static program.

    Raises RuntimeBundleError when one was not found.
    """
    loader, files = "", {}
    for line in output.splitlines():
        if missing := _LDD_MISSING.match(line):
            raise RuntimeBundleError(f"library {missing.group(1)} is missing; reinstall the package that needs it")
        if found := _LDD_LINE.match(line):
            name, path = found.group("name"), found.group("path")
            if name is None:
                loader = path
            else:
                files[name] = path
    return Libraries(loader, files) if loader else None


def locate(program: str) -> Path:
    """The file of `program`; raises RuntimeBundleError with the package to install."""
    found = shutil.which(program, path=SEARCH)
    if found is None:
        raise RuntimeBundleError(f"{program} is not installed: apt-get install {PACKAGES.get(program, program)}")
    return Path(found).resolve()


def libraries(program: Path) -> Libraries | None:
    """What a program is linked with; None for a static one. RuntimeBundleError when a library of it is missing."""
    done = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False)
    if done.returncode != 0 and "not a dynamic executable" not in done.stderr + done.stdout:
        raise RuntimeBundleError(f"ldd {program}: {done.stderr.strip()}")
    return parse_ldd(done.stdout)


def wrapper(program: str, loader: str) -> bytes:
    """The script at `rt/bin/PROGRAM`, for people and hooks; our own scripts start the loader themselves."""
    text = (
        f"#!{PREFIX}/bin/busybox sh\n"
        f'exec {PREFIX}/lib/{loader} --library-path {PREFIX}/lib {PREFIX}/libexec/{program} "$@"\n'
    )
    return text.encode()


def gather(programs: tuple[str, ...] = PROGRAMS) -> dict[str, Entry]:
    """The bundle's files, by path below `rt/`: bin (busybox, wrappers), libexec (programs), lib (loader, libraries).

    Raises RuntimeBundleError when a program is missing, is not dynamic, or busybox is not static.
    """
    busybox = locate("busybox")
    if libraries(busybox) is not None:
        raise RuntimeBundleError(f"{busybox} is not static: apt-get install {PACKAGES['busybox']}")
    files = {"rt/bin/busybox": Entry.file(busybox.read_bytes(), 0o755)}
    files.update({f"rt/bin/{applet}": Entry.link("busybox") for applet in ("sh", "true")})
    for program in programs:
        path = locate(program)
        linked = libraries(path)
        if linked is None:
            files[f"rt/bin/{program}"] = Entry.file(path.read_bytes(), 0o755)
            continue
        loader = Path(linked.loader)
        files[f"rt/bin/{program}"] = Entry.file(wrapper(program, "ld.so"), 0o755)
        files[f"rt/libexec/{program}"] = Entry.file(path.read_bytes(), 0o755)
        files["rt/lib/ld.so"] = Entry.file(loader.read_bytes(), 0o755)
        for name, file in linked.files.items():
            files[f"rt/lib/{name}"] = Entry.file(Path(file).read_bytes(), 0o755)
    return files
