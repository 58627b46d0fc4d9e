#!/usr/bin/env bash
# Lint, types, the C++ build with warnings as errors, the documentation, and all tests in two processes:
# scripts/test.sh. With PYTEST ARGS, the tests that they name, in one process unless they say -n 2.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
export CMAKE_ARGS="${CMAKE_ARGS:-} -DCVRS_WARNINGS_AS_ERRORS=ON"
environment demo docs test train
"$python" -m ruff check .
"$python" -m ruff format --check .
"$python" -m mypy
find csrc tests/csrc -name '*.cpp' -o -name '*.h' | xargs "$root/.venv/bin/clang-format" --dry-run --Werror
scripts/docs.sh
if [ $# -eq 0 ]; then
    # Each process takes one half in order, so that what the tests of a file share is made once, and helps
    # the other one out at the end. PyTorch's threads would only wait for those of the other process.
    # Not more than two: some tests take gigabytes.
    export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
    set -- -n 2 --dist worksteal
fi
# Not "python -m pytest": that would put the source tree, which has no compiled part, in front of the
# installed package.
exec "$root/.venv/bin/pytest" "$@"
