"""Free-text search without trigram or full-text extensions, the same on every database.

Each searchable value is cut at its word boundaries, and every rest from a boundary on is stored in lower case, at most
`LENGTH` characters: `web-node-7` gives `web-node-7`, `node-7`, `7`. A search term matches when some rest starts with
it, which is one range of an ordinary index. So parts of names, MAC addresses, IP addresses and phrases of a text are
found from any word start on; a piece from the middle of a word is not, and that is the price of needing no scan.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from openqrm.store.codec import shapes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from openqrm.domain.model import Record

LENGTH = 40
"""Characters of a stored rest; longer search terms are cut to it."""
STARTS = 24
"""Word starts kept of one value: a long event text is found by its beginning."""
TERMS = 8
"""Search terms taken from one query."""

_WORD = re.compile(r"\w+")
_LAST = "\U0010ffff"


def searched(record: type[Record]) -> tuple[str, ...]:
    """The fields of a record that take part in search."""
    return tuple(name for name, shape in shapes(record).items() if shape.attr.search)


def words(values: Mapping[str, Any], fields: tuple[str, ...]) -> set[str]:
    """What is stored for a record's searchable values."""
    found: set[str] = set()
    for name in fields:
        text = " ".join(str(values[name] or "").casefold().split())
        for number, match in enumerate(_WORD.finditer(text)):
            if number == STARTS:
                break
            found.add(text[match.start() : match.start() + LENGTH].rstrip())
    return found


def terms(query: str) -> tuple[str, ...]:
    """The search terms of a query; all of them must match. Punctuation around a term is no part of it."""
    cut = (re.sub(r"^\W+", "", term)[:LENGTH] for term in query.casefold().replace("\x00", "").split())
    return tuple(dict.fromkeys(term for term in cut if term))[:TERMS]


def bounds(term: str) -> tuple[str, str]:
    """The half-open range of stored rests that start with a term."""
    return term, term + _LAST
