"""What each operating system does in its own way, on this one; and what importing must not do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vs_cvrs.programs.system import ended_by, hold, sync

HOLDER = """
import pathlib, sys
from vs_cvrs.programs.system import hold
with hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError), hold(tmp_path):
            pass
        other.kill()
        other.wait(30)
        assert ended_by(other.returncode) == "SIGKILL"
    with hold(tmp_path):
        (tmp_path / "file").write_text("x")
        sync(tmp_path / "file")
        sync(tmp_path)
    assert ended_by(0) == ended_by(1) == ""
    assert ended_by(-40) == "signal 40"


def test_a_script_without_our_filters_does_not_wait_for_pytorch() -> None:
    script = (
        "import sys, vapoursynth as vs\n"
        "vs.core.std.BlankClip().get_frame(0), vs.core.cvrs.version\n"
        "import vs_cvrs\n"
        "print([name for name in ('torch', 'numpy', 'vs_cvrs.plugin') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"
