"""Registration: a machine appears, reports what it is, and is believed as far as what it shows goes.

One short transaction with a constant number of queries (and one per network card that is new or changed).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from openqrm.domain.errors import ConflictError
from openqrm.domain.event import Severity
from openqrm.domain.lease import Lease, LeaseState, Loan
from openqrm.domain.machine import Stage, TokenPurpose
from openqrm.domain.resource import SERVER_ID, Desired, Health, Phase, Power, Resource
from openqrm.domain.storage import Image
from openqrm.operations import addresses, machine_nics, machine_orders, machine_tokens, states
from openqrm.operations.machine_tokens import TicketVerdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from openqrm.operations.addresses import Place
    from openqrm.operations.machine_report import Report
    from openqrm.operations.machine_tokens import Session
    from openqrm.plugin_api.records import Reader, Writer

SOURCE = "machines"
SILENT = 5_000
"""So many idle machines may be lost before no new ones are taken in."""
_UNSETTLED = frozenset({Phase.NEW, Phase.BOOTING, Phase.OFF, Phase.UNKNOWN})
"""Phases that cannot be true of a machine that speaks from its initramfs."""


@dataclass(frozen=True, slots=True)
class Registered:
    """The machine is taken in. `new`: it was never seen before; `moved`: its address or SSH host keys have changed.
    `place` is None when no network has room for it."""

    resource: Resource
    token: str
    place: Place | None
    new: bool
    moved: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The machine is turned away; what the refusal changed and logged stays."""

    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Contested:
    """A machine of this MAC is still connected: it must be heard again, or be silent, before anything is decided."""

    resource_id: int


Result = Registered | Refused | Contested


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the adapter knows. `connected`: whether a machine of this resource id is heard on an open stream now.
    `source`: the address the request came from. `unheard_of`: whether a doubt about a machine is new; anybody can
    raise one, and a machine that is turned away asks again, so not each is logged. `may_enrol`: whether one more that
    nobody knows may be taken in now."""

    connected: Callable[[int], bool]
    source: str = ""
    unheard_of: Callable[[int], bool] = lambda _number: True
    may_enrol: Callable[[], bool] = lambda: True


def register(writer: Writer, report: Report, around: Circumstances) -> Result:
    """Take a machine in, or say why not. ConflictError only for a bug or a race; the caller may repeat it."""
    resource = writer.one(Resource, mac=report.mac)
    if resource is not None and resource.manual:
        text = "this MAC address belongs to a resource made by hand, a closed box"
        return _refused(writer, resource, text) if around.unheard_of(resource.id) else Refused(409, text)
    if report.stage is Stage.IMAGE:
        return _from_image(writer, resource, report)
    if resource is None:
        return _too_many(writer, around) or _taken_in(writer, _new(writer, report), report, around, new=True)
    return _from_initramfs(writer, resource, report, around)


def _too_many(writer: Writer, around: Circumstances) -> Refused | None:
    """Anybody can bring MAC addresses that nobody knows: they come at a limited pace, and while so many that came are
    silent, none are added."""
    if not around.may_enrol():
        return Refused(503, "many new machines register just now: try again")
    if writer.count(Resource, phase=Phase.IDLE, health=Health.LOST, desired=Desired.IDLE) < SILENT:
        return None
    text = f"no new machines are taken in: {SILENT} that registered are lost. Remove those that are gone"
    if around.unheard_of(SERVER_ID):
        writer.event(text, severity=Severity.ERROR, source=SOURCE)
    return Refused(503, text)


def _new(writer: Writer, report: Report) -> Resource:
    name = f"node-{report.mac.replace(':', '')}"
    resource = writer.insert(Resource(name=name, mac=report.mac, desired=Desired.IDLE))
    writer.event(f"a new machine was found: {name}", severity=Severity.NOTICE, source=SOURCE, about=resource)
    return resource


def _from_initramfs(writer: Writer, resource: Resource, report: Report, around: Circumstances) -> Result:
    verdict = machine_tokens.redeem(writer, resource, report.ticket, report.boot_id)
    if verdict is TicketVerdict.REDEEMED_BEFORE:
        return _impostor(writer, resource)
    trusted = verdict is TicketVerdict.VALID or machine_tokens.admits(
        writer, resource.id, report.token, stage=Stage.INITRAMFS, boot_id=report.boot_id, generation=0
    )
    if not trusted and around.connected(resource.id):
        return Contested(resource.id)
    rebooted = resource.boot_id != report.boot_id
    if not trusted and _at_work(writer, resource):
        return _unproved(writer, resource, around)
    if not trusted and not rebooted and resource.phase in (Phase.DEPLOYING, Phase.ACTIVE, Phase.RETURNING):
        return Refused(401, "this boot is known and in use: its token or ticket is needed to register again")
    if verdict is TicketVerdict.STALE and around.unheard_of(resource.id):
        text = f"{resource.name} showed a boot ticket that is unknown or too old; it has idle rights only"
        writer.event(text, severity=Severity.WARNING, source=SOURCE, about=resource)
    if rebooted:
        machine_orders.boot_changed(writer, resource, report.boot_id, ticket=verdict is TicketVerdict.VALID)
        machine_tokens.revoke(writer, resource.id, TokenPurpose.ADMISSION)
    return _taken_in(writer, resource, report, around, new=False)


def _at_work(reader: Reader, resource: Resource) -> bool:
    """Whether it may use a volume: for an appliance, or for an operation."""
    leased = reader.one(Lease, held_resource=resource.id) is not None
    return leased or bool(reader.find(Loan, resource_id=resource.id, state=LeaseState.HELD, limit=1))


def _unproved(writer: Writer, resource: Resource, around: Circumstances) -> Refused:
    """A lease or loan is held on this machine, and anybody can claim to be it: nothing changes, least of all what we
    hold for true about the image's user. It is asked to try again, and is taken in when the lease is released."""
    if around.unheard_of(resource.id):
        text = (
            f"{resource.name}, or something with its MAC address at {around.source or 'no address'}, came without a "
            "valid boot ticket: it is turned away while an appliance or operation holds the machine"
        )
        writer.event(text, severity=Severity.ERROR, source=SOURCE, about=resource)
    return Refused(
        401, "an appliance holds this machine: without a valid boot ticket it must wait until it is released"
    )


def _taken_in(writer: Writer, resource: Resource, report: Report, around: Circumstances, *, new: bool) -> Registered:
    rebooted, reached = resource.boot_id != report.boot_id, _reached(resource)
    if rebooted or resource.phase in _UNSETTLED:
        resource = states.apply(writer, resource, "phase", "registered-initramfs")
    place = addresses.keep_or_allocate(writer, resource, around.source)
    fields = report.fields() | {"power": Power.ON, "health": Health.OK, "agentless": False}
    if place is not None:
        fields["address"] = place.address
    if resource.desired in (Desired.NONE, Desired.OFF):
        fields["desired"] = Desired.IDLE
    resource = _changed(writer, resource, fields)
    boot_nic = machine_nics.sync(writer, resource, report)
    if place is not None and boot_nic is not None:
        addresses.attach(writer, place, boot_nic)
    if rebooted and not new:
        resource = _resume_deployment(writer, resource)
        text = f"{resource.name} booted into its initramfs"
        writer.event(text, severity=Severity.INFO, source=SOURCE, about=resource)
    token = machine_tokens.issue(
        writer, resource.id, TokenPurpose.SESSION, Stage.INITRAMFS, report.boot_id, generation=0
    )
    return Registered(resource, token, place, new, _reached(resource) != reached)


def _reached(resource: Resource) -> tuple[str | None, tuple[str, ...]]:
    """Where and as what our SSH finds it."""
    return resource.address, resource.ssh_host_keys


def _changed(writer: Writer, resource: Resource, fields: dict[str, Any]) -> Resource:
    """Only what differs is written: most boots bring nothing new."""
    changes = {name: value for name, value in fields.items() if getattr(resource, name) != value}
    return writer.update(resource, **changes) if changes else resource


def _resume_deployment(writer: Writer, resource: Resource) -> Resource:
    """A boot that was handed its deploy order (by ticket) is deploying, not free."""
    if machine_orders.deploy_pending(writer, resource) is None:
        return resource
    return states.apply(writer, resource, "phase", "deploy")


def _from_image(writer: Writer, resource: Resource | None, report: Report) -> Result:
    if resource is None or not machine_tokens.admits(
        writer, resource.id, report.token, stage=Stage.IMAGE, boot_id=report.boot_id, generation=report.generation
    ):
        return Refused(401, "this token does not admit this boot of this machine at this generation")
    lease = writer.one(Lease, held_resource=resource.id)
    if lease is None or lease.generation != report.generation:
        return _refused(writer, resource, f"generation {report.generation} of its image is no longer held")
    if resource.boot_id != report.boot_id:
        return Refused(401, "the machine has booted anew since this image was started")
    try:
        resource = states.apply(writer, resource, "phase", "registered-image")
    except ConflictError as error:
        return _refused(writer, resource, error.detail)
    image = writer.get(Image, lease.image_id)
    if image.fresh:
        writer.update(image, fresh=False)
    reached = _reached(resource)
    fields = report.fields() | {"power": Power.ON, "health": Health.OK, "agentless": False}
    resource = _changed(writer, resource, fields)
    machine_nics.sync(writer, resource, report)
    machine_orders.deployed(writer, resource, image.name)
    text = f"{resource.name} runs image {image.name}"
    if resource.phase is Phase.RETURNING:  # called off meanwhile: it is taken in to be told so, over its stream
        text += ", though it is to go back to idle"
    writer.event(text, severity=Severity.INFO, source=SOURCE, about=resource)
    token = machine_tokens.issue(
        writer, resource.id, TokenPurpose.SESSION, Stage.IMAGE, report.boot_id, report.generation
    )
    place = addresses.place_of(writer, resource)
    return Registered(resource, token, place, new=False, moved=_reached(resource) != reached)


def _refused(writer: Writer, resource: Resource, text: str) -> Refused:
    writer.event(f"{resource.name} was refused: {text}", severity=Severity.ERROR, source=SOURCE, about=resource)
    return Refused(409, text)


def _impostor(writer: Writer, resource: Resource) -> Refused:
    """Nobody can tell which of the two is the machine: neither may go on."""
    text = "a boot ticket of this machine was redeemed twice; its deployment is stopped"
    machine_orders.fail_open(writer, resource, text)
    machine_tokens.revoke(writer, resource.id)
    return _refused(writer, resource, text)


def second_machine(writer: Writer, resource_id: int) -> Refused:
    """The other boot was heard again while this one wanted to register: two machines with one MAC."""
    resource = writer.get(Resource, resource_id)
    return _refused(writer, resource, f"another live machine has the MAC address {resource.mac}")


def script_asked(writer: Writer, resource: Resource, *, connected: bool) -> bool:
    """The firmware asked for the boot script. Anybody can ask, so this moves only a machine that is not heard.

    One that an operation deploys or sends back stays as it is: its deadline belongs to that operation.
    """
    if resource.manual or connected or resource.phase in (Phase.BOOTING, Phase.DEPLOYING, Phase.RETURNING):
        return False
    states.apply(writer, resource, "phase", "script-asked")
    return True


def misjudged(reader: Reader, session: Session) -> bool:
    """Whether a machine that speaks is in a phase that this disproves."""
    resource = reader.get(Resource, session.resource_id)
    if resource.boot_id != session.boot_id:
        return False
    return resource.phase in (_UNSETTLED if session.stage is Stage.INITRAMFS else {Phase.BOOTING})


def set_right(writer: Writer, session: Session) -> None:
    """The machine never restarted: somebody else asked for its boot script while its stream was broken."""
    if not misjudged(writer, session):
        return
    resource = writer.get(Resource, session.resource_id)
    event = "registered-initramfs" if session.stage is Stage.INITRAMFS else "registered-image"
    states.apply(writer, resource, "phase", event)
    text = f"{resource.name} is heard again in the same boot"
    writer.event(text, severity=Severity.NOTICE, source=SOURCE, about=resource)
