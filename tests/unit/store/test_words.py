"""What search keeps of a value, and what it makes of a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqrm.domain.event import Event
from openqrm.domain.resource import Resource
from openqrm.store.words import LENGTH, STARTS, bounds, searched, terms, words


def test_the_fields_come_from_the_declarations() -> None:
    assert searched(Resource) == ("name", "mac", "address")
    assert searched(Event) == ("text",)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("web-node-7", {"web-node-7", "node-7", "7"}),
        ("52:54:00", {"52:54:00", "54:00", "00"}),
        ("  Disk\n FULL ", {"disk full", "full"}),
        ("", set()),
        (None, set()),
        ("---", set()),
    ],
)
def test_rests_from_word_starts(value: str | None, kept: set[str]) -> None:
    assert words({"text": value}, ("text",)) == kept


def test_long_values_are_cut() -> None:
    found = words({"text": "word " * 10_000 + "x" * 1000}, ("text",))
    assert all(len(word) <= LENGTH for word in found)
    assert len(words({"text": " ".join(map(str, range(1000)))}, ("text",))) == STARTS


@given(st.text(max_size=200))
def test_any_query_is_a_few_short_terms(query: str) -> None:
    found = terms(query)
    assert len(found) <= 8
    assert all(0 < len(term) <= LENGTH and "\x00" not in term for term in found)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=60))
def test_a_value_is_found_by_each_of_its_words(value: str) -> None:
    kept = words({"text": value}, ("text",))
    for term in terms(value)[:STARTS]:
        low, high = bounds(term[:10])
        if any(character.isalnum() for character in term):
            assert any(low <= word < high for word in kept)
