#!/bin/sh
# Everything CI runs: lint, types, import contracts, every test. Prints pytest's own closing line last.
set -eu
bin=.venv/bin
$bin/ruff format --check -q .
$bin/ruff check -q .
$bin/mypy
$bin/lint-imports >/tmp/openqrm-imports.$$ || { cat /tmp/openqrm-imports.$$; rm -f /tmp/openqrm-imports.$$; exit 1; }
rm -f /tmp/openqrm-imports.$$
# A folder that is not named here is run, too.
$bin/pytest -q -n 2 tests --ignore tests/integration --ignore tests/lab
exec $bin/pytest -q tests/integration tests/lab
