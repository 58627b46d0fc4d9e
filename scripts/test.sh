#!/usr/bin/env bash
# Lint, types, the C++ build with warnings as errors, and all tests: scripts/test.sh [PYTEST ARGS].
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export CMAKE_ARGS="${CMAKE_ARGS:-} -DCVRS_WARNINGS_AS_ERRORS=ON"
environment demo train test
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
# Not "python -m pytest": that would put the source tree, which has no compiled part, in front of the
# installed package.
exec "$root/.venv/bin/pytest" "$@"
