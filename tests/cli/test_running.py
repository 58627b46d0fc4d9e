"""What is said, and how runs and children end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vs_cvrs.cli.encoder import Ffmpeg
from vs_cvrs.cli.running import children, interruptible, say


def test_a_run_that_outlives_its_terminal() -> None:
    """As nohup starts it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert interruptible(lambda: signal.getsignal(signal.SIGHUP)) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_last_words_of_a_folder_come_once() -> None:
    code = """
import os, signal, time
from pathlib import Path
from vs_cvrs.cli.running import at_interrupt, interruptible

def work():
    for words in ("first", "again"):
        at_interrupt(Path("out.part"), lambda words=words: words)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

interruptible(work)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.endswith("vs-cvrs: interrupted. again\n")


def test_names_of_files_are_said_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("a:x:[b].mkv")
    assert capsys.readouterr().err == "a:x:[b].mkv\n"


def test_a_full_disk_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ffmpeg = tmp_path / "ffmpeg"
    said = "[out#0/nut @ 0x56422d4467c0] Error closing file: No space left on device"
    ffmpeg.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 228\n")
    ffmpeg.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ.get('PATH', '')}")
    with (
        pytest.raises(OSError, match=re.escape("[Errno 28] No space left on device") + "$"),
        Ffmpeg([]),
    ):
        pass
    assert not children
