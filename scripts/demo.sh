#!/usr/bin/env bash
# The whole chain on real footage: scripts/demo.sh [VIDEO]. Results go to out/.
set -euo pipefail
caller=$PWD
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
environment demo
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    video=$(cd "$caller" && realpath -- "$1")
    shift
    set -- "$video" "$@"
fi
exec "$python" "$root/scripts/demo.py" "$@"
