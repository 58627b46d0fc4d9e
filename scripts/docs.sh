#!/usr/bin/env bash
# Build the documentation into docs/_build/html, strictly: a link, an anchor or a name that leads nowhere
# is an error. No network is needed.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment docs
rm -rf docs/api/generated docs/_build
"$python" -m sphinx --quiet --fail-on-warning --keep-going --jobs auto -b html docs docs/_build/html
echo "Documentation: docs/_build/html/index.html"
