"""The bundle of programs that runs inside any image."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from openqrm.netboot import runtime
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

LDD = """\
\tlinux-vdso.so.1 (0x00007ffd6a5f2000)
\tlibssl.so.3 => /lib/x86_64-linux-gnu/libssl.so.3 (0x00007f22ae102000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f22ada1e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f22ae2b0000)
"""


def test_libraries_are_read_from_ldd() -> None:
    assert runtime.parse_ldd(LDD) == runtime.Libraries(
        "/lib64/ld-linux-x86-64.so.2",
        {"libssl.so.3": "/lib/x86_64-linux-gnu/libssl.so.3", "libc.so.6": "/lib/x86_64-linux-gnu/libc.so.6"},
    )


def test_a_static_program_has_none() -> None:
    assert runtime.parse_ldd("\tstatically linked\n") is None


def test_a_missing_library_is_named() -> None:
    with pytest.raises(runtime.RuntimeBundleError, match=r"libtomcrypt\.so\.1"):
        runtime.parse_ldd("\tlibtomcrypt.so.1 => not found\n")


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "SEARCH", "/nowhere")
    with pytest.raises(runtime.RuntimeBundleError, match="apt-get install dropbear-bin"):
        runtime.locate("dropbear")


def test_the_bundled_openssl_runs_with_bundled_libraries_only(tmp_path: Path) -> None:
    try:
        bundle = runtime.gather(("openssl",))
    except runtime.RuntimeBundleError as error:
        needs.lacking(str(error))
    for name, entry in bundle.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(entry.data)
        path.chmod(0o755)
    root = tmp_path / "rt"
    command = [f"{root}/lib/ld.so", "--library-path", f"{root}/lib", f"{root}/libexec/openssl", "version"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    )
    libraries = [line.split("=> ")[1] for line in done.stdout.splitlines() if "=> " in line]
    assert libraries
    assert all(library.startswith(str(root)) for library in libraries)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OpenSSL")
