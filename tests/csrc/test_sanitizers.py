"""The plugin built with AddressSanitizer and UndefinedBehaviorSanitizer, under the other tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pybind11
import pytest
import vapoursynth
import watched
from places import ROOT

from vs_cvrs import __version__

LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so.6")
UNDER_TEST = [
    *("plugin/test_filters.py", "plugin/test_fuzz.py::test_any_arguments[Upsample]"),
    "end_to_end/test_concurrency.py::test_every_frame_is_right[sixteen threads-2]",
    "end_to_end/test_concurrency.py::test_a_script_reloaded_fifty_times[a core for each]",
    "end_to_end/test_vspipe.py::test_python_ends_cleanly[frames in flight]",
    "end_to_end/test_vspipe.py::test_a_reader_that_leaves_early",
]
INSTALLED = Path(vapoursynth.__file__).parent


def _library(compiler: str, name: str) -> str | None:
    """Path of a library of the compiler's; compilers say the name where they have none."""
    said = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = said.stdout.strip()
    return path if Path(path).is_absolute() else None


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A folder for reports, and an environment whose VapourSynth loads a sanitized plugin only."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    compiler, cmake = shutil.which("g++"), shutil.which("cmake", path=path)
    if compiler is None or cmake is None:
        pytest.skip("needs g++ and cmake")
    libraries = [_library(compiler, name) for name in LIBRARIES]
    if None in libraries:
        pytest.skip(f"{compiler} comes without its sanitizers' libraries")
    folder = tmp_path_factory.mktemp("sanitized")
    configure = {
        "CMAKE_BUILD_TYPE": "Debug",
        "CMAKE_CXX_COMPILER": compiler,
        "SKBUILD_PROJECT_VERSION": __version__,
        "CVRS_WARNINGS_AS_ERRORS": "ON",
        "CVRS_SANITIZE": "address,undefined",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    build = folder / "build"
    words = [f"-D{key}={value}" for key, value in configure.items()]
    for command in (
        [cmake, "-S", str(ROOT / "csrc"), "-B", str(build), *words],
        [cmake, "--build", str(build), "--parallel", "2"],
    ):
        code, out, log = watched.run(command, seconds=280)
        assert code == 0, out.decode() + log
    # VapourSynth loads plugins from beside itself, so it takes a VapourSynth with other plugins.
    copy = folder / "site" / INSTALLED.name
    shutil.copytree(INSTALLED, copy, ignore=shutil.ignore_patterns("plugins", "__pycache__"))
    plugin = copy / "plugins" / "cvrs"
    plugin.mkdir(parents=True)
    shutil.copy(next(build.glob("_core.*.so")), plugin / "sanitized.so")
    (plugin / "manifest.vs").write_text("[VapourSynth Manifest V1]\nsanitized\n")
    return folder, os.environ | {
        "PYTHONPATH": str(folder / "site"),
        "LD_PRELOAD": " ".join(str(library) for library in libraries),
        # Python keeps much until the end, and on purpose we do too. pytest would keep what is said.
        # Freed memory is held back to catch its use: 256 MiB of that would look like a leak to the
        # tests that measure memory.
        "ASAN_OPTIONS": f"detect_leaks=0:quarantine_size_mb=32:log_path={folder}/report",
        "UBSAN_OPTIONS": f"halt_on_error=1:print_stacktrace=1:log_path={folder}/report",
        "OMP_WAIT_POLICY": "passive",
    }


@pytest.mark.timeout(900)
def test_plugin_under_sanitizers(sanitized: tuple[Path, dict[str, str]]) -> None:
    folder, env = sanitized
    where = (
        "import vapoursynth as vs; print(vs.core.cvrs.plugin_path, open('/proc/self/maps').read())"
    )
    code, out, log = watched.run([sys.executable, "-c", where], env)
    assert code == 0, log
    assert b"sanitized.so" in out.split()[0]
    assert b"libasan" in out
    tests = [str(ROOT / "tests" / name) for name in UNDER_TEST]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    code, out, log = watched.run([*pytest_, "--rootdir", str(ROOT), *tests], env, 800)
    reports = "".join(path.read_text() for path in folder.glob("report.*"))
    assert reports == ""
    assert code == 0, out.decode()[-8000:] + log[-8000:]
    print(out.decode().splitlines()[-1])
