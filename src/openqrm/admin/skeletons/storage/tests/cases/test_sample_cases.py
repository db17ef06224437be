"""Case files: settings and facts in, the exact steps out."""

from pathlib import Path

from openqrm.admin.skeletons.storage.plugin import PLUGIN
from openqrm.testing.cases import case_test

test_case = case_test(PLUGIN, Path(__file__).parent)
