"""Options made from the schema, and the arguments they stand for."""

from __future__ import annotations

import io
from typing import Any

import pytest

from openqrm.api.compact import compact
from openqrm.cli import options
from openqrm.cli.failures import EXIT_CODES, CliError, of_answer
from openqrm.operations.registry import Registry

SCHEMA = compact(Registry.of_installation())
OPERATIONS = {each["name"]: each for each in SCHEMA["operations"]}
ENTITIES = SCHEMA["entities"]


def given(name: str, *words: str) -> dict[str, Any]:
    operation = OPERATIONS[name]
    return options.arguments(operation, options.operation_parser(operation).parse_args(words))


def test_the_manuals_spelling() -> None:
    assert given("kernel.add", "-n", "lab", "-v", "6.1", "-l", "/srv") == {
        "name": "lab",
        "version": "6.1",
        "location": "/srv",
    }


def test_references_by_either_name_and_by_id_or_name() -> None:
    assert given("image.create", "--name", "web", "--volume", "v1") == {"name": "web", "volume_id": "v1"}
    assert given("image.create", "--name", "web", "--volume-id", "7") == {"name": "web", "volume_id": 7}


def test_fields_of_an_object_one_by_one_or_as_a_whole() -> None:
    wanted = {"name": "lan", "cidr": "10.0.0.0/24", "machines": {"first": "10.0.0.1", "last": "10.0.0.9"}}
    common = ("--name", "lan", "--cidr", "10.0.0.0/24")
    assert given("network.create", *common, "--machines-first", "10.0.0.1", "--machines-last", "10.0.0.9") == wanted
    assert given("network.create", *common, "--machines", '{"first": "10.0.0.1", "last": "10.0.0.9"}') == wanted
    assert given("network.update", "lan", "--machines", "null") == {"machines": None}
    with pytest.raises(CliError, match="not JSON"):
        given("network.create", *common, "--machines", "10.0.0.1")


def test_lists_numbers_flags_and_pairs() -> None:
    assert given("network.update", "lan", "--dns", "1.1.1.1", "--dns", "9.9.9.9") == {"dns": ["1.1.1.1", "9.9.9.9"]}
    assert given("network.update", "lan", "--dns", "[]") == {"dns": []}
    assert given("network.update", "lan", "--vlan", "7") == {"vlan": 7}
    assert given("user.update", "eve", "--no-enabled") == {"enabled": False}
    assert given("appliance.update", "web", "--requirements-cpus", "2") == {"requirements": {"cpus": 2}}
    assert given("storage.update", "s", "--settings", "path=/x", "--settings", "size=5") == {
        "settings": {"path": "/x", "size": 5}
    }
    with pytest.raises(CliError, match="is not a number"):
        given("network.update", "lan", "--vlan", "x")


def test_lists_are_limited_to_at_least_one_and_tell_their_choices() -> None:
    events = ENTITIES["event"]
    assert options.list_parser("event", events).parse_args(["--limit", "1"]).limit == 1
    for wrong in ("0", "-1", "x"):
        with pytest.raises(CliError, match="not a number from 1 on"):
            options.list_parser("event", events).parse_args([f"--limit={wrong}"])
    text = options.list_parser("event", events).format_help()
    assert "debug|info|notice|warning|error" in text
    assert "(default: -id)" in text
    assert "(default: id)" in options.list_parser("kernel", ENTITIES["kernel"]).format_help()
    assert "default_mark" not in ENTITIES["kernel"]["titles"]


def test_a_secret_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\nmore\n"))
    assert given("user.set-password", "eve", "--password", "-") == {"password": "correct horse"}


def test_wrong_usage_is_an_error_with_a_code() -> None:
    for words in ((), ("--mac", "x"), ("--mac", "x", "--address", "y", "--colour", "red"), ("--ma", "x")):
        with pytest.raises(CliError) as caught:
            given("resource.create", *words)
        assert caught.value.code == 2


@pytest.mark.parametrize("nothing", ["", "  "])
def test_a_target_that_is_empty_is_none(nothing: str) -> None:
    """`openqrm volume remove "$VOLUME"` in a script that never set it."""
    parsers = [options.operation_parser(one) for one in OPERATIONS.values() if one["target"]]
    assert parsers
    for parser in (*parsers, options.show_parser("volume")):
        with pytest.raises(CliError, match="is empty"):
            parser.parse_args([nothing])


def test_short_options_are_unique_and_help_stays_help() -> None:
    for operation in OPERATIONS.values():
        shorts = [option["short"] for option in operation["arguments"] if option["short"]]
        assert len(shorts) == len(set(shorts))
        assert "h" not in shorts
        options.operation_parser(operation)


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 5), (403, 5), (404, 3), (409, 4), (412, 4), (413, 2), (422, 2), (500, 7), (502, 7), (503, 6)],
)
def test_exit_codes_by_status(status: int, code: int) -> None:
    error = of_answer(status, {"detail": "no", "remedy": "yes", "output": "boom\n", "errors": [{}, {"detail": "b"}]})
    assert error.code == code
    assert error.text == "no\nb\nboom"
    assert code in EXIT_CODES
