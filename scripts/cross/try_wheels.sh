# Sourced by wheels.sh: tries the wheels in dist/ as far as this machine can run them.
# shellcheck shell=bash

# cpp_test COMPILER PROGRAM FLAGS...: compiles the C++ test of frame buffers and groups.
cpp_test() {
    local compiler=$1 program=$2
    shift 2
    "$compiler" -std=c++17 -O1 -Icsrc "$@" csrc/frame_buffer.cpp csrc/group_filter.cpp \
        tests/csrc/group_filter_test.cpp -o "$program"
}

# link_packages SITE VERSION: what .venv has of PyTorch and the rest, by hard links, into a folder of
# packages for that version of Python; of another version, only what fits all.
link_packages() {
    [ -x "$root/.venv/bin/python" ] || return 0
    "$root/.venv/bin/python" - "$@" <<'PYTHON'
import importlib.metadata
import os
import sys
from pathlib import Path

site, version = Path(sys.argv[1]), sys.argv[2]
for package in importlib.metadata.distributions():
    fits_all = "Tag: py3-none-" in (package.read_text("WHEEL") or "")
    if package.name in ("vs-cvrs", "VapourSynth", "vapoursynth", "pip"):
        continue
    if fits_all or version == "%d.%d" % sys.version_info[:2]:
        for file in package.files or ():
            source, target = Path(package.locate_file(file)), site / file
            if ".." not in file.parts and source.is_file() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
PYTHON
}

# Each wheel for this machine in a new environment, with no compiler on PATH: a round trip in Python, and
# one through vspipe. What .venv does not have comes from PyPI (without .venv: 3 GB for each Python).
try_linux() {
    local python fresh=$work/fresh site clean
    for python in $(pythons); do
        echo "== cp$(digits "$python") in a new environment"
        rm -rf "$fresh"
        "$python" -m venv "$fresh"
        site=$("$fresh/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        link_packages "$site" "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        clean=(env -i HOME="$fresh" PATH="$fresh/bin:$work/no-compiler" XDG_CONFIG_HOME="$fresh/config"
            OMP_NUM_THREADS="${OMP_NUM_THREADS:-}" PIP_CACHE_DIR="$("$fresh/bin/python" -m pip cache dir)")
        rm -rf "$work/no-compiler"
        mkdir "$work/no-compiler"
        ln -s "$(command -v bash)" "$(command -v ffmpeg || command -v true)" "$work/no-compiler"
        "${clean[@]}" "$fresh/bin/python" -c \
            'import shutil; assert not any(map(shutil.which, ["cc", "c++", "gcc", "clang", "cmake"]))'
        # A tree of the sources must not stand in for the wheel.
        cd "$fresh"
        "${clean[@]}" "$fresh/bin/python" -m pip install --quiet --only-binary=:all: vapoursynth==81 \
            "$root"/dist/*-cp"$(digits "$python")"-*"$(uname -m)"*.whl
        "${clean[@]}" "$fresh/bin/python" "$root/scripts/try_wheel.py"
        # vspipe would not load a Python that needs a newer C library than this system's.
        [[ $python == "$work"/* ]] || try_vspipe
        cd "$root"
        rm -rf "$fresh"
    done
}

try_vspipe() {
    "${clean[@]}" "$fresh/bin/vapoursynth" config >/dev/null
    cat >round_trip.vpy <<'SCRIPT'
import vapoursynth as vs

core = vs.core
shades = [core.std.BlankClip(None, 96, 64, vs.RGB24, 1, 30, color=[60 + 9 * n, 120, 99]) for n in range(8)]
clip = core.std.Splice(shades)
core.cvrs.Upsample(core.cvrs.Downsample(clip, fps=15)).set_output()
SCRIPT
    "${clean[@]}" "$fresh/bin/vspipe" round_trip.vpy restored.raw
    "${clean[@]}" "$fresh/bin/python" - <<'SCRIPT'
import numpy as np

frames = np.fromfile("restored.raw", np.uint8).reshape(8, 3, 64, 96).astype(int)  # planes G, B, R
worst = max(abs(frames[n, 2].mean() - (60 + 9 * n)) for n in range(8))
assert worst < 3, f"red is off by {worst:.1f} levels"
print(f"through vspipe: restored within {worst:.2f} levels")
SCRIPT
}

# The wheels for aarch64 under emulation, with Debian's Pythons: VapourSynth lists the filters. PyTorch, which
# would take minutes to start there, is not needed for that.
try_aarch64() {
    local version python site=$work/aarch64-site
    if ! command -v qemu-aarch64 >/dev/null; then
        echo "wheels.sh: no qemu-aarch64 (apt install qemu-user): no wheel for aarch64 is tried" >&2
        return 0
    fi
    for version in 3.13 3.14; do
        python=$(debian aarch64 "$version")
        if ! [ -x "$python" ] || ! compgen -G "$root/dist/*-cp${version/./}-*aarch64.whl" >/dev/null; then
            echo "wheels.sh: no Python $version or no wheel for it: not tried under qemu" >&2
            continue
        fi
        echo "== cp${version/./} for aarch64 under qemu"
        cpp_test "$(zig aarch64-linux-gnu.2.28)" "$work/cpp_test" -pthread
        qemu-aarch64 -L "$work/debian-aarch64-$version" "$work/cpp_test"
        rm -rf "$site"
        python -m pip install --quiet --no-deps --target "$site" --only-binary=:all: --python-version "$version" \
            --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
            vapoursynth==81 "$root"/dist/*-cp"${version/./}"-*aarch64.whl
        # A tree of the sources must not stand in for the wheel.
        cd "$site"
        PYTHONPATH=$site "$python" - <<'SCRIPT'
import platform

import vapoursynth as vs

import vs_cvrs._core

names = sorted(function.name for function in vs.core.cvrs.functions())
assert names == ["Downsample", "Upsample", "Version"], names
print(f"vs-cvrs {vs_cvrs.__version__} on {platform.machine()}: VapourSynth finds {', '.join(names)}")
SCRIPT
        cd "$root"
    done
}

# What Wine 8 can run: the C++ test, and a round trip by the first wheel for Windows, with CPython's own
# DLL and PyTorch for Windows.
try_windows() {
    local python tag folder site wheel wine
    if ! command -v wine >/dev/null; then
        echo "wheels.sh: no Wine (apt install wine64 wine): no wheel for Windows is tried" >&2
        return 0
    fi
    python=$(pythons | head -1)
    tag=$(digits "$python")
    folder=$work/windows-$tag
    site=$folder/Lib/site-packages
    wheel=$(compgen -G "$root/dist/*-cp$tag-*win_amd64.whl" || true)
    if ! [ -f "$wheel" ]; then
        echo "wheels.sh: no wheel of cp$tag for Windows: none is tried" >&2
        return 0
    fi
    echo "== cp$tag for Windows under Wine"
    # Intel's OpenMP asks for the processor's groups, which Wine does not know.
    wine=(env WINEPREFIX="$work/wine" WINEDEBUG=-all KMP_AFFINITY=disabled PYTHONDONTWRITEBYTECODE=1 wine)
    "${wine[@]}" reg add 'HKCU\Software\Wine' /v Version /d win10 /f >/dev/null 2>&1 </dev/null
    cpp_test x86_64-w64-mingw32-g++-posix "$work/cpp_test.exe" -static
    "${wine[@]}" "$work/cpp_test.exe" </dev/null 2>/dev/null
    if ! [ -d "$site/torch" ]; then
        rm -rf "$folder/Lib"
        mkdir -p "$site"
        (cd "$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" &&
            tar -cf - --exclude=site-packages --exclude=dist-packages --exclude=test --exclude=__pycache__ .) |
            tar -xf - -C "$folder/Lib"
        # Wine's answers to questions about the machine are unfinished; Python does without.
        rm -f "$folder/DLLs/_wmi.pyd"
        # msvc-runtime stands in for what most PCs have; NumPy's newer releases need a newer Wine.
        python -m pip install --quiet --no-deps --target "$site" --only-binary=:all: \
            --python-version "${tag/3/3.}" --platform win_amd64 numpy==2.0.2 torch==2.14.1 safetensors pyyaml \
            typing_extensions filelock sympy mpmath networkx jinja2 markupsafe fsspec setuptools psutil \
            msvc-runtime
        find "$site" -iname '*140*.dll' -not -path '*/torch/*' -exec cp {} "$folder" \;
    fi
    # Both at once: with --target pip replaces whole folders, and they share one.
    rm -rf "$site"/vs_cvrs* "$site"/vapoursynth*
    python -m pip install --quiet --no-deps --target "$site" --only-binary=:all: \
        --python-version "${tag/3/3.}" --platform win_amd64 vapoursynth==81 "$wheel"
    printf '%s\n' '#include <wchar.h>' '__declspec(dllimport) int Py_Main(int, wchar_t **);' \
        'int wmain(int n, wchar_t **words) { return Py_Main(n, words); }' >"$work/python.c"
    x86_64-w64-mingw32-gcc -municode -static "$work/python.c" "$folder/python$tag.dll" -o "$folder/python.exe"
    # Panda3D leaves out the DLL for modules that fit all versions of Python: all of its names lead to the other.
    {
        echo EXPORTS
        x86_64-w64-mingw32-objdump -p "$folder/python$tag.dll" |
            sed -n "s/^.*\] *\(+base\[[^]]*\] *[0-9a-f]* \)\{0,1\}\(_*Py[A-Za-z0-9_]*\)$/\2 = python$tag.\2/p" | sort -u
    } >"$work/python3.def"
    x86_64-w64-mingw32-gcc -shared -nostdlib "$work/python3.def" -o "$folder/python3.dll"
    # Programs in Rust ask this DLL, which Wine 8 lacks, for random numbers.
    printf '%s\n' '#include <windows.h>' '#include <ntsecapi.h>' \
        '__declspec(dllexport) BOOL ProcessPrng(PBYTE data, SIZE_T length) { return RtlGenRandom(data, length); }' \
        >"$work/prng.c"
    x86_64-w64-mingw32-gcc -shared -static "$work/prng.c" -o "$folder/bcryptprimitives.dll" -ladvapi32
    # A console that is no file: this Python wants its streams.
    "${wine[@]}" "$folder/python.exe" scripts/try_wheel.py </dev/null 2>&1 | cat
}
