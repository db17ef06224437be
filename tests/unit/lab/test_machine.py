"""The nodes' command line and the network they are plugged into."""

from __future__ import annotations

from pathlib import Path

import pytest

from openqrm.admin.lab import accel, network
from openqrm.admin.lab.errors import LabError
from openqrm.admin.lab.machine import Node
from openqrm.admin.lab.state import LabSpec

HOME = Path("/lab")


def words(spec: LabSpec, number: int = 1) -> str:
    return " ".join(Node(HOME, spec, number).arguments("tcg"))


def test_a_node_knows_nothing_but_how_to_boot_from_the_network() -> None:
    line = words(LabSpec())
    assert "virtio-net-pci,netdev=n0,mac=52:54:00:99:00:01,bootindex=1" in line
    assert "ifname=tap1" in line
    assert "-drive" not in line


def test_emulation_uses_the_processor_that_does_not_stall() -> None:
    assert "-accel tcg,tb-size=128 -cpu qemu64 -smp 1" in words(LabSpec())


def test_uefi_boots_by_the_firmwares_own_pxe() -> None:
    line = words(LabSpec(firmware="uefi"), 2)
    assert "bootindex=1,romfile=" in line
    assert "file=/lab/nodes/node2/vars.fd" in line
    assert "readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd" in line


def test_a_second_nic_never_boots_and_a_disk_is_only_there_when_asked_for() -> None:
    line = words(LabSpec(second_nic=True, disk_mb=100))
    assert "mac=52:54:00:99:01:01,romfile=" in line
    assert line.count("bootindex") == 1
    assert "virtio-blk-pci" in line


def test_every_nic_has_its_own_mac() -> None:
    spec = LabSpec(nodes=64, second_nic=True)
    macs = [mac for number in range(1, 65) for mac in Node(HOME, spec, number).macs()]
    assert len(set(macs)) == 128
    assert network.STORAGE_MAC not in macs


def test_a_path_too_long_for_a_socket_is_refused_before_qemu_fails(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="shorter --dir"):
        Node(tmp_path / ("x" * 100), LabSpec(), 1).prepare()


def test_the_bridge_forwards_at_once_and_every_node_is_on_it() -> None:
    plan = network.plan(LabSpec(nodes=2))
    assert any("type bridge forward_delay 0 stp_state 0" in line for line in plan)
    assert "link set tap1 master br0 up" in plan
    assert "link set tap2 master br0 up" in plan
    assert not any("br1" in line for line in plan)


def test_the_second_network_has_a_bridge_and_a_storage_port_of_its_own() -> None:
    spec = LabSpec(nodes=1, second_nic=True)
    assert "link set tap1s master br1 up" in network.plan(spec)
    assert "addr add 10.99.1.2/24 dev eth1" in network.plan_storage(spec)


def test_interface_names_fit_the_kernels_limit() -> None:
    assert len(network.tap_name(64, 1)) <= 15


def test_the_probe_is_a_boot_sector() -> None:
    sector = accel.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")


def test_the_accelerator_can_be_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENQRM_LAB_ACCEL", "tcg")
    assert accel.choose() == "tcg"
    monkeypatch.setenv("OPENQRM_LAB_ACCEL", "kvm")
    assert accel.choose() == "kvm"


def test_a_probe_is_not_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("OPENQRM_LAB_ACCEL", raising=False)
    monkeypatch.setenv("OPENQRM_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("os.access", lambda _path, _mode: True)
    asked: list[object] = []

    def works(kernel: Path | None) -> bool:
        asked.append(kernel)
        return False

    monkeypatch.setattr(accel, "works", works)
    assert [accel.choose(), accel.choose()] == ["tcg", "tcg"]
    assert asked == [None]
