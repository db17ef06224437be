"""The small image: what goes in, what stays out. The Debian tree is a stand-in here; the lab builds the real one."""

from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest

from openqrm.admin import image
from openqrm.admin.lab import kernel
from openqrm.admin.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "6.1.0-1-cloud-amd64"


def tree_of(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def built(tmp_path: Path) -> dict[str, bytes]:
    modules = tmp_path / "k/lib/modules" / VERSION
    (modules / "kernel/net").mkdir(parents=True)
    (modules / "kernel/net/x.ko").write_bytes(b"module")
    (modules / "build").symlink_to("/usr/src/elsewhere")
    (modules / "modules.dep").write_text("kernel/net/x.ko:\n")
    (modules / "modules.alias").write_text("# none\n")
    for name in ("modules.builtin", "modules.softdep"):
        (modules / name).touch()
    tree = tree_of(
        tmp_path / "tree.tar",
        {
            "etc/debian_version": b"12",
            "etc/ssh/ssh_host_ed25519_key": b"everybody's secret",
            "etc/ssh/sshd_config": b"debian",
            "etc/machine-id": b"1",
            "etc/resolv.conf": b"nameserver of this machine",
            "dev/console": b"",
        },
    )
    spec = image.ImageSpec(kernel=kernel.KernelRoot(tmp_path / "k", VERSION))
    image.write(spec, tree, tmp_path / "out.tar.gz")
    with tarfile.open(tmp_path / "out.tar.gz", "r:gz") as archive:
        names = [member.name for member in archive]
        assert len(names) == len(set(names))
        return {
            member.name.removeprefix("./"): handle.read()
            for member in archive
            if (handle := archive.extractfile(member) if member.isreg() else None)
        }


def test_nothing_that_must_be_unique_is_in_the_image(built: dict[str, bytes]) -> None:
    assert not [
        name
        for name in built
        if "ssh_host" in name or name.endswith(("machine-id", "resolv.conf")) or name.startswith("dev/")
    ]
    assert built["etc/debian_version"] == b"12"


def test_our_files_replace_debians(built: dict[str, bytes]) -> None:
    assert b"UsePAM no" in built["etc/ssh/sshd_config"]
    assert built["usr/sbin/init"].startswith(b"#!/bin/sh")
    assert "etc/openqrm/shutdown" in built


def test_the_modules_are_there_with_their_stamp(built: dict[str, bytes]) -> None:
    top = f"usr/lib/modules/{VERSION}"
    assert built[f"{top}/kernel/net/x.ko"] == b"module"
    assert built[f"{top}/openqrm-stamp"] == hashlib.sha256(b"kernel/net/x.ko:\n").hexdigest().encode() + b"\n"
    assert f"{top}/build" not in built


def test_a_failed_build_leaves_no_half_image(tmp_path: Path) -> None:
    (tmp_path / "broken.tar").write_bytes(b"not a tarball")
    with pytest.raises(tarfile.ReadError):
        image.write(image.ImageSpec(), tmp_path / "broken.tar", tmp_path / "out.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.tar"]


def test_a_directory_that_is_not_empty_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "base", lambda *_arguments, **_options: tmp_path / "tree.tar")
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="not empty"):
        image.build(image.ImageSpec(), tmp_path)


def test_another_recipe_is_another_image() -> None:
    plain, other = image.ImageSpec(), image.ImageSpec(packages=("busybox-static",))
    assert plain.base_key() != other.base_key()
    assert plain.content_key() != other.content_key()


def test_kernel_options_that_contradict_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.tar")
    assert image.main(["build", "--out", out, "--kernel-root", str(tmp_path)]) == 1
    assert "--kernel-version" in capsys.readouterr().err
    assert image.main(["build", "--out", out, "--kernel-root", str(tmp_path), "--kernel-version", "1"]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_the_kernel_is_the_one_that_the_meta_package_depends_on() -> None:
    text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: x\n"
    assert kernel.parse_depends(text) == ("linux-image-6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64")
    assert kernel.parse_depends("nothing") is None


def test_only_a_kernel_that_was_unpacked_to_the_end_counts(tmp_path: Path) -> None:
    (tmp_path / "kernel/6.1").mkdir(parents=True)
    assert kernel.cached(tmp_path) is None
    (tmp_path / "kernel/6.1/complete").touch()
    assert kernel.cached(tmp_path) == kernel.KernelRoot(tmp_path / "kernel/6.1", "6.1")
