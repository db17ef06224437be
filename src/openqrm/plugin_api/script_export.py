"""An export driver made of one shell script: the shortest way to hand volumes to machines.

A plug-in has its script beside its code, and a class that names both:

    class ShelfExport(ScriptExport):
        package = "openqrm_shelf"
        scripts = ("shell:say", "export")

It is run on the storage host as `export VERB HOST... [VOLUME LOCATION [CLIENT GENERATION GRANT...]]`, where HOST is
what `about_host` says, GRANT what `about_grant` and `made_with` say, VOLUME is `volume-ID` and CLIENT is what the
server software knows a machine by:

- `facts HOST...` changes nothing and says, one a line: `has WORD [VALUE]` for what the host has, `grant VOLUME CLIENT
  GENERATION LOCATION` for each grant of ours, and `other CLIENT LOCATION` for what somebody else hands out.
- `authorize` makes CLIENT the only one that has LOCATION, now and after a restart of the server; the secret of the
  grant, if the export declares one, is on standard input. `revoke HOST... VOLUME LOCATION` ends when nobody has it,
  and fails unless the server shows so. Both run behind the host gate, and are idempotent.
- `withdraw HOST... VOLUME LOCATION CLIENT` takes back what `facts` named; VOLUME is `-` for what is none of ours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from openqrm.domain.errors import InvalidError
from openqrm.domain.network import plain_ip
from openqrm.plugin_api.drivers import Grant, Placed
from openqrm.plugin_api.facts import Fact
from openqrm.plugin_api.scripts import script
from openqrm.plugin_api.steps import Command, Gate, Irreversible, Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client, StorageContext
    from openqrm.plugin_api.facts import Facts
    from openqrm.plugin_api.steps import Steps
    from openqrm.plugin_api.values import Secret

_TAKEN = Irreversible(reason="access that was taken back is granted anew, under a new lease")
_UNKNOWN = Irreversible(reason="no lease knows of this access")
_LENT = Irreversible(reason="it is lent anew when it is needed")


@dataclass(frozen=True)
class ExportFacts:
    """What `facts` said. `has`: of the host, by word; a word without a value has an empty one."""

    has: Mapping[str, str]
    grants: tuple[Grant, ...]


def parse(output: str) -> ExportFacts:
    """The output of `facts`. ValueError for anything else."""
    has: dict[str, str] = {}
    grants: list[Grant] = []
    for line in output.splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "has":
                name, _, has_value = rest.partition(" ")
                has[name] = has_value
            case "grant":
                volume, client, generation, location = rest.split(" ", 3)
                grants.append(Grant(volume, client, int(generation), location))
            case "other":
                client, location = rest.split(" ", 1)
                grants.append(Grant("", client, -1, location))
            case _:
                raise ValueError(f"{line!r} is none of: has, grant, other")
    return ExportFacts(has, tuple(grants))


def within(path: str, place: str) -> bool:
    """Whether a path on the host lies in a pool: a directory, a volume group or a dataset. Everything, without place.

    The volumes of a volume group or a dataset are devices below its own name.
    """
    if not place:
        return True
    if place.startswith("/"):
        return path.startswith(f"{place.rstrip('/')}/")
    group = place.partition("/")[0]
    # In the device mapper's names one dash is between group and volume, and two are a dash in one of them.
    mapped = f"/dev/mapper/{group.replace('-', '--')}-"
    if path.startswith(mapped):
        return not path.startswith(f"{mapped}-")
    return path.startswith((f"/dev/{group}/", f"/dev/zvol/{place}/", f"/{group}/"))


def around(path: str, place: str) -> bool:
    """Whether a directory on the host is that of the pool, or holds it."""
    return path.startswith("/") and f"{place.rstrip('/')}/".startswith(f"{path.rstrip('/')}/")


def mac_of(client: Client) -> str:
    """One MAC address of one machine and nothing else, in lower case with colons. InvalidError."""
    mac = client.mac.lower().replace("-", ":")
    if not re.fullmatch(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}", mac):
        raise InvalidError(
            f"{client.name} has no MAC address to export to", remedy=f"give resource {client.name} its MAC address"
        )
    return mac


def address_of(client: Client) -> str:
    """One address of one machine and nothing else: what goes into a server's configuration names exactly one client.

    InvalidError.
    """
    try:
        return plain_ip(client.address)
    except ValueError:
        raise InvalidError(
            f"{client.name} has no address to export to", remedy=f"give resource {client.name} an address"
        ) from None


class ScriptExport:
    """Implements `ExportDriver` but for `root_device` and `attach`.

    `secret` names the one of the export's secrets that `authorize` reads. `seconds` is what a verb may take.
    """

    package: ClassVar[str]
    scripts: ClassVar[tuple[str, ...]] = ("export",)
    secret: ClassVar[str] = ""
    seconds: ClassVar[float] = 90

    def about_host(self, context: StorageContext) -> tuple[str, ...]:
        """What every verb is told: settings of the host. Nothing, unless a class says otherwise."""
        del context
        return ()

    def about_grant(self, context: StorageContext, volume: Volume, client: Client) -> tuple[str, ...]:
        """What `authorize` is told besides. Nothing, unless a class says otherwise."""
        del context, volume, client
        return ()

    def known_as(self, client: Client) -> str:
        """What the server software knows a machine by: its MAC address. InvalidError."""
        return mac_of(client)

    def check(self, context: StorageContext, found: ExportFacts) -> None:
        """Raise unless the host has what a grant needs. Nothing is needed, unless a class says otherwise."""

    def made_with(self, context: StorageContext, found: ExportFacts) -> tuple[str, ...]:
        """What `authorize` is told last: which software of the host to use. Nothing, unless a class says otherwise."""
        del context, found
        return ()

    def parse(self, output: str) -> ExportFacts:
        """The output of `facts`, for a class whose script says more than `parse` of this module knows. ValueError."""
        return parse(output)

    def facts(self, context: StorageContext) -> Sequence[Fact[Any]]:
        """One question: `facts`."""
        return (self._fact(context),)

    def found(self, context: StorageContext, facts: Facts) -> ExportFacts:
        """What the host answered."""
        return facts.get(self._fact(context))

    def grants(self, context: StorageContext, facts: Facts) -> Sequence[Grant]:
        """Ours, wherever they lie, and others' of the storage's pool; what else they export is no matter of ours."""
        place = context.pool.place if isinstance(context.pool, Placed) else ""
        found = self.found(context, facts).grants
        # Whoever has a directory that the pool is in has all of the pool.
        return [one for one in found if one.volume or within(one.location, place) or around(one.location, place)]

    def authorize(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """One client, read and write. Takes it from whoever had it. Undo revokes. The errors of `known_as`, `check`;
        InvalidError without the secret."""
        found = self.found(context, facts)
        self.check(context, found)
        grant = (*self.about_grant(context, volume, client), *self.made_with(context, found))
        words = (self.known_as(client), str(generation), *grant)
        secret = self._secret(client)
        do = self.command(context, "authorize", f"volume-{volume.id}", location, *words, secret=secret)
        undo = self.command(context, "revoke", f"volume-{volume.id}", location)
        gate = Gate(volume=f"volume-{volume.id}", generation=generation)
        return (self._step(context, "authorize", f"Export {location} to {client.name}", do, undo, gate),)

    def revoke(
        self, context: StorageContext, volume: Volume, location: str, client: Client, generation: int, facts: Facts
    ) -> Steps:
        """Nobody has it any more, and the host shows so."""
        del facts  # the host is asked when it is done, whatever software it had before
        do = self.command(context, "revoke", f"volume-{volume.id}", location)
        gate = Gate(volume=f"volume-{volume.id}", generation=generation)
        return (self._step(context, "revoke", f"Take {location} back from {client.name}", do, _TAKEN, gate),)

    def withdraw(self, context: StorageContext, grant: Grant, facts: Facts) -> Steps:
        """What no lease knows is taken back."""
        del facts  # as for revoke
        do = self.command(context, "withdraw", grant.volume or "-", grant.location, grant.client)
        return (self._step(context, "withdraw", f"Take {grant.location} back from {grant.client}", do, _UNKNOWN),)

    def command(self, context: StorageContext, verb: str, *words: str, secret: Secret | None = None) -> Command:
        """The script's call for a verb; it is an argument where a secret is on standard input."""
        text, words = script(self.package, *self.scripts), (verb, *self.about_host(context), *words)
        if secret is None:
            return Command(argv=("sh", "-s", "--", *words), input=text)
        return Command(argv=("sh", "-c", text, "export", *words), input=secret)

    def _step(
        self,
        context: StorageContext,
        name: str,
        title: str,
        do: Command,
        undo: Command | Irreversible,
        gate: Gate | None = None,
    ) -> Run:
        return Run(name=name, title=title, host=context.host, do=do, undo=undo, gate=gate, timeout=self.seconds)

    def _secret(self, client: Client) -> Secret | None:
        if self.secret and self.secret not in client.secrets:
            raise InvalidError(f"there is no {self.secret} for {client.name}")
        return client.secrets[self.secret] if self.secret else None

    def _fact(self, context: StorageContext) -> Fact[ExportFacts]:
        return Fact(
            name="export",
            host=context.host,
            argv=("sh", "-c", script(self.package, *self.scripts), "export", "facts", *self.about_host(context)),
            parse=self.parse,
        )


class ScriptLender(ScriptExport):
    """Implements `Lends` as well, but for `lent`. Its script has two more verbs, behind the same gate:

    - `lend HOST... VOLUME LOCATION CLIENT SOFTWARE...`, where SOFTWARE is what `made_with` says: CLIENT may read
      LOCATION, now and after a restart, beside whoever else may.
    - `reclaim HOST... VOLUME LOCATION CLIENT` ends when it may not, and nobody else has noticed.
    """

    def lend(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """One more client may read. Undo reclaims. The errors of `known_as` and `check`."""
        found = self.found(context, facts)
        self.check(context, found)
        words = (f"volume-{volume.id}", location, self.known_as(client))
        do = self.command(context, "lend", *words, *self.made_with(context, found))
        undo = self.command(context, "reclaim", *words)
        gate = Gate(volume=f"volume-{volume.id}", generation=volume.generation)
        return (self._step(context, "lend", f"Export {location} to {client.name} to read", do, undo, gate),)

    def reclaim(self, context: StorageContext, volume: Volume, location: str, client: Client, facts: Facts) -> Steps:
        """It may read no longer. The errors of `known_as`."""
        del facts  # as for revoke
        do = self.command(context, "reclaim", f"volume-{volume.id}", location, self.known_as(client))
        gate = Gate(volume=f"volume-{volume.id}", generation=volume.generation)
        title = f"Take {location} back from {client.name}, which read it"
        return (self._step(context, "reclaim", title, do, _LENT, gate),)
