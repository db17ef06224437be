"""What a machine says about itself when it registers. It comes from outside: everything is bounded and checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from openqrm.domain.machine import Stage
from openqrm.domain.model import Mac

_MAC: TypeAdapter[str] = TypeAdapter(Mac)


def _not_negative(value: Any) -> Any:
    """Linux reports -1 as the speed of a link that is down."""
    return max(value, 0) if isinstance(value, int) else value


NICS = 32
"""So many network cards of a machine are kept; a server with hundreds of virtual functions is taken in with these."""


def _printable(value: Any) -> Any:
    """DMI tables and disk models hold whatever a vendor left there."""
    return "".join(character for character in value if character.isprintable()) if isinstance(value, str) else value


Short = Annotated[str, BeforeValidator(_printable), StringConstraints(max_length=200, strip_whitespace=True)]
Key = Annotated[str, BeforeValidator(_printable), StringConstraints(max_length=4000, strip_whitespace=True)]
BootId = Annotated[str, StringConstraints(min_length=8, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
SecretText = Annotated[str, StringConstraints(max_length=200)]
Amount = Annotated[int, BeforeValidator(_not_negative), Field(ge=0, le=2**40)]


class _Reported(BaseModel):
    """Fields that a newer machine adds are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class NicReport(_Reported):
    """A network card."""

    name: Short = ""
    mac: Short = ""
    driver: Short = ""
    speed_mbit: Annotated[int, BeforeValidator(_not_negative), Field(ge=0, le=10_000_000)] = 0
    link: bool = False

    @property
    def address(self) -> str | None:
        """The MAC as we write it; None for what is no Ethernet card (InfiniBand has 20 bytes)."""
        try:
            return _MAC.validate_python(self.mac)
        except ValidationError:
            return None


class DiskReport(_Reported):
    """A local disk."""

    name: Short = ""
    size_mb: Amount = 0
    model: Short = ""
    rotational: bool = False


class DmiReport(_Reported):
    """What the firmware says the machine is."""

    vendor: Short = ""
    product: Short = ""
    serial: Short = ""
    uuid: Short = ""


class Report(_Reported):
    """The body of `POST /node/v1/register`."""

    mac: Mac
    boot_id: BootId
    stage: Stage
    ticket: SecretText = ""
    generation: Annotated[int, Field(ge=0, le=2**53)] = 0
    token: SecretText = ""
    arch: Annotated[str, BeforeValidator(_printable), StringConstraints(max_length=32)] = ""
    kernel: Short = ""
    firmware: Annotated[str, BeforeValidator(_printable), StringConstraints(max_length=16)] = ""
    hostname: Short = ""
    memory_mb: Amount = 0
    cpus: Annotated[int, Field(ge=0, le=65536)] = 0
    cpu_model: Short = ""
    swap_mb: Amount = 0
    nics: Annotated[tuple[NicReport, ...], Field(max_length=256), AfterValidator(lambda nics: nics[:NICS])] = ()
    disks: Annotated[tuple[DiskReport, ...], Field(max_length=1024)] = ()
    dmi: DmiReport = DmiReport()
    ssh_host_keys: Annotated[tuple[Key, ...], Field(max_length=16)] = ()

    def inventory(self) -> dict[str, Any]:
        """What is kept as the resource's inventory."""
        return self.model_dump(mode="json", include={"nics", "disks", "dmi", "hostname"})

    def fields(self) -> dict[str, Any]:
        """The resource's own fields."""
        return {
            "boot_id": self.boot_id,
            "cpus": self.cpus,
            "memory_mb": self.memory_mb,
            "swap_mb": self.swap_mb,
            "nic_count": min(len(self.nics), 1024),
            "arch": self.arch,
            "firmware": self.firmware,
            "cpu_model": self.cpu_model,
            "kernel_running": self.kernel,
            "inventory": self.inventory(),
            "ssh_host_keys": self.ssh_host_keys,
        }
