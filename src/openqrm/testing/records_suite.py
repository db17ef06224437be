"""What every Database must do, as tests to inherit: give the class a fixture `database` with the core's entities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from openqrm.domain.appliance import Appliance, Requirements
from openqrm.domain.errors import ConflictError, InvalidError, NotFoundError
from openqrm.domain.event import Event, Severity
from openqrm.domain.network import Address, AddressRange, Network
from openqrm.domain.operation import Operation
from openqrm.domain.resource import Phase, Resource
from openqrm.domain.storage import Image, Storage, Volume
from openqrm.domain.user import Token, User
from openqrm.testing.commits_suite import CommitsSuite, ConcurrencySuite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openqrm.plugin_api.records import Writer

MAC = "52:54:00:00:00:01"


def make_image(writer: Writer, name: str = "web") -> Image:
    """An image with the storage and volume it needs."""
    host = writer.insert(Resource(name=f"{name}-host"))
    storage = writer.insert(Storage(name=name, type="dir-nfs", resource_id=host.id))
    volume = writer.insert(Volume(name=name, storage_id=storage.id))
    return writer.insert(Image(name=name, volume_id=volume.id))


class StoringSuite:
    """Records come back as they were stored."""

    def test_insert_gives_id_and_times(self, database: Any) -> None:
        with database.write() as writer:
            stored = writer.insert(Resource(name="a", mac=MAC))
            now = writer.now
        assert stored.id > 0
        assert stored.created_at == stored.updated_at == now
        with database.read() as reader:
            assert reader.get(Resource, stored.id) == stored

    def test_columns_are_fields_of_the_records_that_meet_the_conditions(self, database: Any) -> None:
        since = datetime(2026, 3, 29, 1, 30, 15, 123456, tzinfo=UTC)
        with database.write() as writer:
            for name in ("b", "a", "c"):
                writer.insert(Resource(name=name, phase=Phase.IDLE, phase_since=since, ssh_host_keys=("k",)))
            writer.insert(Resource(name="d"))
        with database.read() as reader:
            found = reader.columns(Resource, ("name", "phase", "phase_since", "ssh_host_keys", "mac"), phase=Phase.IDLE)
            assert reader.columns(Resource, ("name",), phase__in=[Phase.OFF]) == []
        assert found == [(name, Phase.IDLE, since, ("k",), None) for name in ("b", "a", "c")]

    def test_every_kind_of_field_survives(self, database: Any) -> None:
        since = datetime(2026, 3, 29, 1, 30, 15, 123456, tzinfo=UTC)
        inventory: dict[str, Any] = {
            "disks": [{"size": 2**40, "ratio": 0.5}],
            "empty": {},
            "none": None,
            "text": "ü€\u2028",
        }
        with database.write() as writer:
            first = writer.insert(
                Resource(
                    name="a", phase=Phase.IDLE, phase_since=since, manual=True, inventory=inventory,
                    ssh_host_keys=("k1", "k2"), memory_mb=2**40,
                )
            )  # fmt: skip
            network = writer.insert(
                Network(name="n", cidr="10.0.0.0/8", machines=AddressRange(first="10.0.0.1", last="10.0.0.9"))
            )
            image = make_image(writer)
            appliance = writer.insert(Appliance(name="a", image_id=image.id, requirements=Requirements(cpus=4)))
        with database.read() as reader:
            found = reader.get(Resource, first.id)
            assert (found.phase, found.phase_since, found.manual) == (Phase.IDLE, since, True)
            assert isinstance(found.phase, Phase)
            assert found.phase_since is not None
            assert found.phase_since.utcoffset() == timedelta(0)
            assert (found.inventory, found.ssh_host_keys, found.memory_mb) == (inventory, ("k1", "k2"), 2**40)
            assert found.mac is None
            assert reader.get(Network, network.id).machines == AddressRange(first="10.0.0.1", last="10.0.0.9")
            assert reader.get(Appliance, appliance.id).requirements == Requirements(cpus=4)

    def test_the_server_brings_its_id_and_others_do_not(self, database: Any) -> None:
        with database.write() as writer:
            assert writer.insert(Resource(id=0, name="server", type="server")).id == 0
            assert writer.insert(Resource(name="next")).id > 0
            with pytest.raises(ValueError, match="ids are given by the store"):
                writer.insert(Resource(id=7, name="seven"))
            with pytest.raises(ConflictError):
                writer.insert(Resource(id=0, name="server-again"))

    def test_ids_are_never_given_twice(self, database: Any) -> None:
        with database.write() as writer:
            gone = writer.insert(Resource(name="a"))
            writer.delete(Resource, gone.id)
        with database.write() as writer:
            assert writer.insert(Resource(name="b")).id > gone.id

    def test_json_that_a_database_cannot_keep_is_mended(self, database: Any) -> None:
        with database.write() as writer:
            data = {"out": "a\x00b", "half": "\udcff", "escaped": "\\u0000", "nan": float("nan")}
            stored = writer.insert(Resource(name="a", inventory=data))
        with database.read() as reader:
            kept = reader.get(Resource, stored.id).inventory
        assert kept["out"] == "a\ufffdb"
        assert kept["escaped"] == "\\u0000"
        assert kept["half"].isprintable()
        assert kept["nan"] is None

    def test_text_that_a_database_cannot_keep_is_refused_by_name(self, database: Any) -> None:
        with database.write() as writer:
            with pytest.raises(InvalidError) as refused:
                writer.insert(Resource(name="a", cpu_model="a\x00b"))
            assert refused.value.field == "cpu_model"
            with pytest.raises(InvalidError):
                writer.find(Resource, group="a\x00b")

    def test_what_is_inside_a_record_is_the_callers_own(self, database: Any) -> None:
        with database.write() as writer:
            mine = {"a": [1]}
            stored = writer.insert(Resource(name="a", inventory=mine))
            mine["a"].append(2)
            stored.inventory["a"].append(3)
        with database.read() as reader:
            assert reader.get(Resource, stored.id).inventory == {"a": [1]}


class ChangingSuite:
    """Updates and deletions."""

    def test_update_writes_only_what_is_named(self, database: Any) -> None:
        with database.write() as writer:
            old = writer.insert(Resource(name="a", mac=MAC))
            writer.update(old, phase=Phase.IDLE)
            again = writer.update(old, group="g")
        assert (again.phase, again.group, again.mac) == (Phase.IDLE, "g", MAC)

    def test_update_validates(self, database: Any) -> None:
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
            with pytest.raises(InvalidError) as refused:
                writer.update(record, name="Not A Name")
            assert refused.value.field == "name"
            with pytest.raises(InvalidError) as refused:
                writer.update(record, phase="nonsense")
            assert refused.value.field == "phase"
            with pytest.raises(InvalidError):
                writer.update(record, no_such_field=1)
            with pytest.raises(ValueError, match="set by the store"):
                writer.update(record, id=9)
            assert writer.update(record, phase="idle").phase is Phase.IDLE

    def test_update_moves_updated_at_only(self, database: Any) -> None:
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
        with database.write() as writer:
            later = writer.update(record, group="g")
            assert later.updated_at == writer.now
        assert later.created_at == record.created_at

    def test_what_is_not_there(self, database: Any) -> None:
        with database.write() as writer:
            gone = writer.insert(Resource(name="a"))
            writer.delete(Resource, gone.id)
            for missing in (gone.id, -1, 10**30):
                with pytest.raises(NotFoundError):
                    writer.get(Resource, missing)
            with pytest.raises(NotFoundError):
                writer.update(gone, group="g")
            with pytest.raises(NotFoundError):
                writer.delete(Resource, gone.id)

    def test_an_exception_rolls_everything_back(self, database: Any) -> None:
        with database.write() as writer:
            record = writer.insert(Resource(name="a"))
            writer.put_secret("s", "old")

        def fail() -> None:
            with database.write() as writer:
                writer.insert(Resource(name="b"))
                writer.update(record, group="g")
                writer.put_secret("s", "new")
                writer.event("never seen", severity=Severity.INFO, source="test")
                raise RuntimeError("on purpose")

        with pytest.raises(RuntimeError, match="on purpose"):
            fail()
        with database.read() as reader:
            assert [found.group for found in reader.find(Resource)] == [""]
            assert reader.get_secret("s") == "old"
            assert reader.count(Event) == 0


class ConstraintSuite:
    """Unique fields and references, and that a transaction goes on after a refusal."""

    def test_unique_fields_name_field_and_value(self, database: Any) -> None:
        with database.write() as writer:
            writer.insert(Resource(name="a", mac=MAC))
            other = writer.insert(Resource(name="b"))
            with pytest.raises(ConflictError, match="name a") as refused:
                writer.insert(Resource(name="a"))
            assert refused.value.field == "name"
            with pytest.raises(ConflictError, match=MAC) as refused:
                writer.update(other, mac=MAC)
            assert refused.value.field == "mac"
            writer.insert(Resource(name="c"))
        with database.read() as reader:
            assert [found.name for found in reader.find(Resource)] == ["a", "b", "c"]
            assert reader.get(Resource, other.id).mac is None

    def test_empty_fields_are_not_equal(self, database: Any) -> None:
        with database.write() as writer:
            writer.insert(Resource(name="a", mac=None))
            writer.insert(Resource(name="b", mac=None))
            assert writer.count(Resource, mac=None) == 2

    def test_fields_unique_together(self, database: Any) -> None:
        with database.write() as writer:
            one = writer.insert(Network(name="one", cidr="10.1.0.0/16"))
            two = writer.insert(Network(name="two", cidr="10.2.0.0/16"))
            writer.insert(Address(network_id=one.id, address="10.1.0.1"))
            writer.insert(Address(network_id=two.id, address="10.1.0.1"))
            with pytest.raises(ConflictError, match=r"10\.1\.0\.1") as refused:
                writer.insert(Address(network_id=one.id, address="10.1.0.1"))
            assert refused.value.field == "address"
            writer.insert(Address(network_id=one.id, address="10.1.0.2"))

    def test_a_freed_value_can_be_taken(self, database: Any) -> None:
        with database.write() as writer:
            first = writer.insert(Resource(name="a"))
            writer.update(first, name="b")
            second = writer.insert(Resource(name="a"))
            writer.delete(Resource, second.id)
            assert writer.insert(Resource(name="a")).id > second.id

    def test_secret_values_are_not_told(self, database: Any) -> None:
        with database.write() as writer:
            user = writer.insert(User(name="u"))
            writer.insert(Token(name="a", user_id=user.id, token_hash="very-secret"))
            with pytest.raises(ConflictError) as refused:
                writer.insert(Token(name="b", user_id=user.id, token_hash="very-secret"))
            assert "very-secret" not in refused.value.detail

    def test_a_reference_must_exist(self, database: Any) -> None:
        with database.write() as writer:
            with pytest.raises(ConflictError, match="no resource 4711") as refused:
                writer.insert(Storage(name="s", type="t", resource_id=4711))
            assert refused.value.field == "resource_id"
            image = make_image(writer)
            appliance = writer.insert(Appliance(name="a", image_id=image.id))
            with pytest.raises(ConflictError) as refused:
                writer.update(appliance, running_on=4711)
            assert refused.value.field == "running_on"
            assert writer.get(Appliance, appliance.id).running_on is None

    def test_what_is_in_use_stays(self, database: Any) -> None:
        with database.write() as writer:
            image = make_image(writer, "shop")
            with pytest.raises(ConflictError, match="volume shop is used by image shop"):
                writer.delete(Volume, image.volume_id)
            assert writer.count(Volume) == 1
            writer.delete(Image, image.id)
            writer.delete(Volume, image.volume_id)
            assert writer.count(Volume) == 0

    def test_a_record_may_point_to_its_own_kind(self, database: Any) -> None:
        with database.write() as writer:
            first = writer.insert(Operation(name="x.y"))
            again = writer.insert(Operation(name="x.y", rerun_of=first.id))
            with pytest.raises(ConflictError):
                writer.delete(Operation, first.id)
            writer.delete(Operation, again.id)
            writer.delete(Operation, first.id)


def _named(found: Sequence[Resource]) -> str:
    return "".join(record.name for record in found)


class FindingSuite:
    """Conditions and order mean the same everywhere."""

    @pytest.fixture
    def filled(self, database: Any) -> Any:
        with database.write() as writer:
            for name, cpus, address, phase in (
                ("b", 2, "z", Phase.IDLE),
                ("a", 8, None, Phase.NEW),
                ("d", 2, "Z", Phase.IDLE),
                ("c", 4, None, Phase.OFF),
            ):
                writer.insert(Resource(name=name, cpus=cpus, address=address, phase=phase))
        return database

    @pytest.mark.parametrize(
        ("conditions", "names"),
        [
            ({}, "badc"),
            ({"cpus": 2}, "bd"),
            ({"cpus__eq": 2, "name": "d"}, "d"),
            ({"cpus__ne": 2}, "ac"),
            ({"cpus__lt": 4}, "bd"),
            ({"cpus__le": 4}, "bdc"),
            ({"cpus__gt": 4}, "a"),
            ({"cpus__ge": 4}, "ac"),
            ({"cpus__gt": 1, "cpus__lt": 8}, "bdc"),
            ({"name__in": ["a", "d", "x"]}, "ad"),
            ({"name__in": []}, ""),
            ({"phase": Phase.IDLE}, "bd"),
            ({"phase": "idle"}, "bd"),
            ({"phase__in": {Phase.NEW, Phase.OFF}}, "ac"),
            ({"address": None}, "ac"),
            ({"address__null": False}, "bd"),
            ({"address__ne": "z"}, "adc"),
            ({"address__ne": None}, "bd"),
            ({"address__gt": "Z"}, "b"),
            ({"manual": False, "manual__ne": True}, "badc"),
        ],
    )
    def test_conditions(self, filled: Any, conditions: dict[str, Any], names: str) -> None:
        with filled.read() as reader:
            assert _named(reader.find(Resource, **conditions)) == names
            assert reader.count(Resource, **conditions) == len(names)

    @pytest.mark.parametrize(
        ("order", "names"),
        [("id", "badc"), ("-id", "cdab"), ("name", "abcd"), ("-name", "dcba"), ("cpus", "bdca"), ("-cpus", "acdb"),
         ("address", "acdb"), ("-address", "bdca")],
    )  # fmt: skip
    def test_order_is_by_code_point_with_empty_first_and_id_last(self, filled: Any, order: str, names: str) -> None:
        with filled.read() as reader:
            assert _named(reader.find(Resource, order=order)) == names
            assert _named(reader.find(Resource, order=order, limit=2)) == names[:2]

    def test_one(self, filled: Any) -> None:
        with filled.read() as reader:
            found = reader.one(Resource, name="a")
            assert found is not None
            assert found.cpus == 8
            assert reader.one(Resource, name="x") is None
            with pytest.raises(ValueError, match="several"):
                reader.one(Resource, cpus=2)

    @pytest.mark.parametrize(
        "conditions", [{"nonsense": 1}, {"name__like": "a"}, {"cpus__lt": None}, {"name__in": ["a", None]}]
    )
    def test_unknown_conditions_are_a_mistake(self, filled: Any, conditions: dict[str, Any]) -> None:
        with filled.read() as reader, pytest.raises(ValueError, match=r"no condition|needs a value|cannot look"):
            reader.find(Resource, **conditions)

    def test_unknown_order_is_a_mistake(self, filled: Any) -> None:
        with filled.read() as reader, pytest.raises(ValueError, match="sort"):
            reader.find(Resource, order="nonsense")


class RecordsSuite(StoringSuite, ChangingSuite, ConstraintSuite, FindingSuite, CommitsSuite, ConcurrencySuite):
    """All of it."""
