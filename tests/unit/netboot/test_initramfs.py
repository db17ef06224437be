"""The initramfs: what is in it, that it is the same twice, and what is said when something is missing."""

from __future__ import annotations

import gzip
import stat
from typing import TYPE_CHECKING

import pytest

from openqrm.admin import initramfs as command
from openqrm.netboot import initramfs, modules, runtime
from openqrm.netboot.cpio import Entry
from openqrm.testing import needs

if TYPE_CHECKING:
    from pathlib import Path

DEP = "kernel/drivers/net/virtio_net.ko: kernel/net/core/failover.ko\nkernel/net/core/failover.ko:\nkernel/fs/xfs.ko:\n"
ALIAS = "alias virtio:d00000001v* virtio_net\nalias fs-xfs xfs\n"


@pytest.fixture
def spec(tmp_path: Path) -> initramfs.InitramfsSpec:
    base = tmp_path / "lib/modules/6.1"
    for path in modules.parse_dep(DEP):
        (base / path).parent.mkdir(parents=True, exist_ok=True)
        (base / path).write_bytes(b"\x7fELF\0firmware=acme/nic.bin\0" if "virtio" in path else b"\x7fELF")
    (base / "modules.dep").write_text(DEP)
    (base / "modules.alias").write_text(ALIAS)
    (tmp_path / "lib/firmware/acme").mkdir(parents=True)
    (tmp_path / "lib/firmware/acme/nic.bin").write_bytes(b"blob")
    output = tmp_path / "out/initramfs"
    return initramfs.InitramfsSpec("6.1", tmp_path, output, "-----CA-----\n", "ssh-ed25519 AAAA op\n")


@pytest.fixture
def _programs() -> None:
    try:
        runtime.gather()
    except runtime.RuntimeBundleError as error:
        needs.lacking(str(error))


def _entry(files: dict[str, bytes | Entry], name: str) -> Entry:
    entry = files[name]
    return entry if isinstance(entry, Entry) else Entry.file(entry)


@pytest.mark.usefixtures("_programs")
def test_it_has_drivers_access_and_runtime_but_only_the_modules_it_needs(spec: initramfs.InitramfsSpec) -> None:
    files, paths = initramfs.contents(spec)
    assert paths == ("kernel/net/core/failover.ko", "kernel/drivers/net/virtio_net.ko")
    assert "lib/modules/6.1/kernel/fs/xfs.ko" not in files
    assert _entry(files, "lib/modules/6.1/modules.alias").data == b"alias virtio:d00000001v* virtio_net\n"
    assert _entry(files, "lib/firmware/acme/nic.bin").data == b"blob"
    assert stat.S_IMODE(_entry(files, "init").mode) == 0o755
    assert _entry(files, "seed/authorized_keys").data == b"ssh-ed25519 AAAA op\n"
    for program in ("curl", "dropbear", "kexec", "openssl"):
        assert f"seed/rt/bin/{program}" in files
    assert "bin/busybox" in files
    assert _entry(files, "bin/sh").data == b"busybox"
    assert not stat.S_ISLNK(_entry(files, "bin/busybox").mode)


@pytest.mark.usefixtures("_programs")
def test_the_same_inputs_give_the_same_bytes(spec: initramfs.InitramfsSpec) -> None:
    built = initramfs.build(spec)
    first = spec.output.read_bytes()
    initramfs.build(spec)
    assert spec.output.read_bytes() == first
    assert built.size == len(first)
    assert len(first) % 4 == 0
    assert gzip.decompress(first).startswith(b"070701")  # without a kernel configuration: gzip, which all can read


@pytest.mark.usefixtures("_programs")
def test_an_extra_module_is_added(spec: initramfs.InitramfsSpec) -> None:
    wanted = initramfs.InitramfsSpec("6.1", spec.root, spec.output, "", "", extra_modules=("xfs",))
    assert "kernel/fs/xfs.ko" in initramfs.contents(wanted)[1]


def test_an_unknown_extra_module_is_refused(spec: initramfs.InitramfsSpec) -> None:
    wanted = initramfs.InitramfsSpec("6.1", spec.root, spec.output, "", "", extra_modules=("xfs", "nosuch"))
    with pytest.raises(modules.ModulesError, match=r"kernel 6\.1 has no module nosuch"):
        initramfs.build(wanted)
    assert not spec.output.exists()


def test_zstd_is_taken_only_where_the_kernel_says_so(
    spec: initramfs.InitramfsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/zstd")
    assert initramfs.best_compression(spec) is initramfs.Compression.GZIP
    (spec.root / "boot").mkdir()
    (spec.root / "boot/config-6.1").write_text("CONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n")
    assert initramfs.best_compression(spec) is initramfs.Compression.GZIP
    (spec.root / "boot/config-6.1").write_text("CONFIG_RD_ZSTD=y\n")
    assert initramfs.best_compression(spec) is initramfs.Compression.ZSTD


def test_the_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    arguments = ["build", "-v", "9.9", "-l", str(tmp_path), "-o", str(tmp_path / "o")]
    arguments += ["--key", str(tmp_path / "ca.pem")]
    assert command.main([*arguments, "--ca", str(tmp_path / "ca.pem")]) == 1
    assert "no modules for kernel 9.9" in capsys.readouterr().err
    assert command.main([*arguments, "--ca", str(tmp_path / "absent.pem")]) == 1
    assert "absent.pem" in capsys.readouterr().err
