"""The conformance suite of types whose volumes are in the machine itself: in its memory, on its own disks.

No host keeps them and no server hands them out, so there is nothing to fill, to undo or to revoke: what these tests ask
is that such a type promises nothing that only a host could keep, and lets in no machine that cannot have the volume.
What machines then do is for the lab. Inherit from `MachineSuite` and provide the fixture `subject`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import pytest

from openqrm.domain.errors import ConflictError, InvalidError, NoCapacityError, UnsupportedError
from openqrm.plugin_api.drivers import Cap, Medium
from openqrm.plugin_api.facts import Facts
from openqrm.testing.storage_record import Recorded

if TYPE_CHECKING:
    from openqrm.domain.storage import Volume
    from openqrm.plugin_api.drivers import Client
    from openqrm.testing.storage_subject import Subject

NOTHING = Facts({})
OF_HOSTS = {Cap.REVOKE_PROOF, Cap.LEND, Cap.CLONE, Cap.CLONE_COW, Cap.FILL, Cap.SNAPSHOT, Cap.RESIZE}
"""What only a storage host can do."""


class MachineSuite(Recorded):
    """Inherit and provide the fixture `subject`, with clients; `volume` where a volume must have a certain name."""

    suites: ClassVar[tuple[str, ...]] = ("machine",)

    def volume(self, subject: Subject) -> Volume:
        """One that can be made."""
        return subject.volume(512)

    def test_no_host_is_asked_or_changed(self, subject: Subject) -> None:
        """The machine that has the volume may be off."""
        context, volume = subject.context(), self.volume(subject)
        client, where = self._rightful(subject), subject.where(volume)
        assert subject.medium is Medium.MACHINE
        assert list(subject.pool.facts(context)) == list(subject.export.facts(context)) == []
        for _ in range(2):
            assert subject.pool.create(context, volume, NOTHING) == ()
            assert subject.export.authorize(context, volume, where, client, 1, NOTHING) == ()
            assert subject.export.revoke(context, volume, where, client, 1, NOTHING) == ()
            assert subject.pool.remove(context, volume, NOTHING) == ()
        assert list(subject.export.grants(context, NOTHING)) == []
        assert list(subject.pool.leftovers(context, NOTHING)) == []

    def test_it_promises_nothing_that_only_a_host_can_do(self, subject: Subject) -> None:
        assert not subject.declared & OF_HOSTS
        volume, source = self.volume(subject), self.volume(subject)
        with pytest.raises(UnsupportedError):
            subject.pool.clone(subject.context(), source, volume, NOTHING)
        with pytest.raises(UnsupportedError):
            subject.pool.fill(subject.context(), volume, "/var/tmp/a.tar", NOTHING)  # noqa: S108  # not made

    def test_exactly_one_client(self, subject: Subject) -> None:
        """The machine that has it; or, in memory, any that has room for it beside a system."""
        exported = subject.export_declared
        assert exported is not None
        assert exported.own_machine or exported.in_memory
        context, volume = subject.context(), self.volume(subject)
        where, rightful = subject.where(volume), self._rightful(subject)
        if exported.own_machine:
            stranger = next(each for each in subject.clients if each.resource_id != subject.host)
            with pytest.raises(ConflictError):
                subject.export.authorize(context, volume, where, stranger, 1, NOTHING)
        if exported.in_memory:
            for small in (1, volume.size_mb, volume.size_mb + 32):
                with pytest.raises(NoCapacityError):
                    given = replace(rightful, memory_mb=small)
                    subject.export.authorize(context, volume, where, given, 1, NOTHING)
            unknown = replace(rightful, memory_mb=0)
            assert subject.export.authorize(context, volume, where, unknown, 1, NOTHING) == ()

    def test_what_has_no_limit_is_not_in_memory(self, subject: Subject) -> None:
        exported = subject.export_declared
        if exported is None or not exported.in_memory:
            subject.skip("its volumes are not in memory")
        with pytest.raises(InvalidError) as refused:
            subject.pool.create(subject.context(), subject.volume(0), NOTHING)
        assert refused.value.field == "size_mb"

    def test_attach_names_what_the_root_mount_needs(self, subject: Subject) -> None:
        volume = self.volume(subject)
        given = subject.attach(volume, self._rightful(subject))
        assert any(name.startswith("ROOT_") for name in given)
        assert all(name == "FSTAB" or name.startswith("ROOT_") for name in given)
        assert all("\n" not in text for name, text in given.items() if name != "FSTAB")
        assert subject.export.root_device(subject.context(), volume, subject.where(volume))

    @staticmethod
    def _rightful(subject: Subject) -> Client:
        """A machine that may have it."""
        return replace(subject.clients[0], resource_id=subject.host, memory_mb=4096)
