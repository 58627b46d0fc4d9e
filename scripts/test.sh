#!/usr/bin/env bash
# Lint, types, the C++ build with warnings as errors, the documentation, and all tests:
# scripts/test.sh [PYTEST ARGS].
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export CMAKE_ARGS="${CMAKE_ARGS:-} -DCVRS_WARNINGS_AS_ERRORS=ON"
environment demo docs test train
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
find csrc tests/csrc -name '*.cpp' -o -name '*.h' | xargs "$root/.venv/bin/clang-format" --dry-run --Werror
scripts/docs.sh
# Not "python -m pytest": that would put the source tree, which has no compiled part, in front of the
# installed package.
exec "$root/.venv/bin/pytest" "$@"
