"""Runs the case files of this folder."""

from __future__ import annotations

from pathlib import Path

from openqrm.plugins.storage.file.plugin import PLUGIN as FILE
from openqrm.plugins.storage.nbd.plugin import PLUGIN
from openqrm.testing.cases import case_test

test_case = case_test(PLUGIN, Path(__file__).parent, others=(FILE,))
