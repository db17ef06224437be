"""The three databases under the one suite."""

from __future__ import annotations

from openqrm.testing.records_suite import RecordsSuite


class TestRecords(RecordsSuite):
    """On memory, SQLite and PostgreSQL, by the fixture `database`."""
