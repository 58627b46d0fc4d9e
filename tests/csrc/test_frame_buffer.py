"""Builds and runs the C++ tests of the frame buffer and the group filter."""

import shutil
import subprocess
from pathlib import Path

import pytest
from places import ROOT

COMPILER = shutil.which("c++")


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_frame_buffer_and_group_filter(sanitizers: str, tmp_path: Path) -> None:
    program = tmp_path / "group_filter_test"
    sources = ["csrc/frame_buffer.cpp", "csrc/group_filter.cpp", "tests/csrc/group_filter_test.cpp"]
    flags = ["-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-Icsrc"]
    subprocess.run(
        [str(COMPILER), *flags, f"-fsanitize={sanitizers}", *sources, "-o", str(program)],
        cwd=ROOT,
        check=True,
    )
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
