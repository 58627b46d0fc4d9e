# Sourced by demo.sh, docs.sh and test.sh: finds a Python that VapourSynth runs on, makes .venv once and
# installs the project into it. Sets $root and $python (the interpreter of .venv) and
# XDG_CONFIG_HOME (where vspipe's settings for .venv lie).
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1

is_new_enough() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

# A version manager's shim can stand on PATH and still refuse to run: candidates count only when
# they start.
candidates() {
    printf '%s\n' "${VS_CVRS_PYTHON:-}" python3.12 python3.13 python3.14 python3 python
    if command -v pyenv >/dev/null 2>&1; then
        local version prefix
        while read -r version; do
            prefix=$(pyenv prefix "$version" 2>/dev/null) && printf '%s\n' "$prefix/bin/python"
        done < <(pyenv versions --bare 2>/dev/null | grep -E '^3\.(1[2-9]|[2-9][0-9])' | sort -V)
    fi
    if command -v uv >/dev/null 2>&1; then
        uv python find '>=3.12' 2>/dev/null
    fi
}

find_python() {
    local candidate
    while read -r candidate; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && is_new_enough "$candidate"; then
            command -v "$candidate"
            return 0
        fi
    done < <(candidates)
    return 1
}

export XDG_CONFIG_HOME=$root/.venv/config

# is_installed WANTED EXTRAS...: whether an install of what is wanted brought all of these extras.
is_installed() {
    local wanted=$1 stamp had extra
    shift
    for stamp in "$root"/.venv/vs-cvrs-*.stamp; do
        [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] || continue
        had=${stamp##*/vs-cvrs-}
        had=,${had%.stamp},
        for extra; do
            [[ $had == *,$extra,* ]] || continue 2
        done
        return 0
    done
    return 1
}

# environment EXTRAS...: makes .venv ready with the project and the named extras.
environment() {
    python=$root/.venv/bin/python
    if ! { [ -x "$python" ] && is_new_enough "$python"; }; then
        local base
        if ! base=$(find_python); then
            cat >&2 <<'EOF'
vs-cvrs needs Python 3.12 or newer with the venv module, and none was found.
Install one (for example: apt install python3.12-venv, dnf install python3.12, brew install
python@3.12, pyenv install 3.12, or uv python install 3.12), or name one in VS_CVRS_PYTHON.
EOF
            exit 1
        fi
        echo "Making .venv with $("$base" --version)"
        rm -rf "$root/.venv"
        "$base" -m venv "$root/.venv" || exit 1
        "$python" -m pip install --quiet --upgrade pip || exit 1
    fi
    # What the installed copy was made from; the install is repeated only when that changed.
    local extras wanted
    extras=$(IFS=,; echo "$*")
    wanted=$(cd "$root" && find pyproject.toml README.md csrc vs_cvrs -type f -not -name '*.pyc' -print0 |
        LC_ALL=C sort -z | xargs -0 cksum | cksum)
    if ! is_installed "$wanted" "$@"; then
        echo "Installing vs-cvrs[$extras] (the first time brings PyTorch: some minutes)"
        "$python" -m pip install --quiet "$root[$extras]" || exit 1
        # vspipe must be told once which Python it belongs to; the user's own setting stays as it is.
        "$root/.venv/bin/vapoursynth" config >/dev/null || exit 1
        echo "$wanted" >"$root/.venv/vs-cvrs-$extras.stamp"
    fi
}
