"""Runs of the command line, and videos for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vs_cvrs.cli.app import app
from vs_cvrs.cli.clips import open_video, undecodable
from vs_cvrs.programs.ffmpeg import find_ffmpeg

COMMAND = [sys.executable, "-m", "vs_cvrs"]


@dataclass(frozen=True)
class Ended:
    stdout: str
    stderr: str


def run(*words: object, code: int = 0) -> Ended:
    """A command in this process; it must end with this exit code."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (done.exit_code, done.stdout, done.stderr, done.exception)
    return Ended(done.stdout, done.stderr)


def ffmpeg(*words: object) -> str:
    """Run ffmpeg; what it says."""
    done = subprocess.run(
        [find_ffmpeg(), "-v", "error", "-nostdin", "-y", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def video(path: Path, seconds: float = 2, rate: str = "30000/1001", size: str = "64x48") -> Path:
    """Moving pictures, with a beep that begins in every whole second."""
    beeps = "aevalsrc=if(lt(mod(t\\,1)\\,0.02)\\,sin(6283*t)\\,0)"
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}"),
        *("-f", "lavfi", "-i", f"{beeps}:d={seconds}"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-crf", "4", "-c:a", "flac", path),
    )
    return path


def holed(path: Path) -> int:
    """Make a film with frames that cannot be decoded, and say the first; skip where none is."""
    pictures = "testsrc2=size=128x96:rate=15:d=4"
    lossless = ["-x265-params", "lossless=1:log-level=error", "-pix_fmt", "yuv444p10le"]
    ffmpeg("-f", "lavfi", "-i", pictures, "-c:v", "libx265", *lossless, path)
    content = bytearray(path.read_bytes())
    dice = random.Random(2)  # what makes a hole with the ffmpeg that this was written with
    begin = int(len(content) * dice.uniform(0.3, 0.7))
    for place in range(begin, begin + 200):
        content[place] ^= dice.randrange(1, 256)
    path.write_bytes(content)
    missing = undecodable(open_video(path).clip)
    if not missing:
        pytest.skip("this ffmpeg makes another file, and BestSource decodes something of it")
    return missing[0]


def beeps(path: Path) -> list[float]:
    """When the beeps begin, in seconds on the file's time axis."""
    import numpy as np

    form = ["-map", "0:a", "-ac", "1", "-ar", "44100", "-f", "s16le"]
    form += ["-af", "aresample=async=1:first_pts=0"]
    raw = subprocess.run(
        [find_ffmpeg(), "-v", "error", "-i", str(path), *form, "-"],
        capture_output=True,
        check=True,
    ).stdout
    loud = np.flatnonzero(np.abs(np.frombuffer(raw, np.int16).astype(int)) > 3000)
    begins = loud[np.diff(loud, prepend=-44100) > 4410] / 44100
    return [float(t) for t in begins]


def start(*words: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A command that goes on by itself, in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait until a file is there; its name may be a pattern."""
    end = time.monotonic() + seconds
    while not any(path.parent.glob(path.name)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.002)


def apart(*words: str) -> list[str]:
    """What is put before a command that is to have mounts of its own, made by these commands."""
    able = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if able.returncode:
        pytest.skip("needs the right to mount")
    return ["unshare", "-m", "sh", "-ec", " && ".join([*words, 'exec "$0" "$@"'])]


def children_of(process: subprocess.Popen[str], name: str) -> list[int]:
    """Processes of this name that a process has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text()
        except OSError:
            continue
        parent = int(text.rpartition(")")[2].split()[1])
        if parent == process.pid and name in text[: text.rindex(")")]:
            found.append(int(folder.name))
    return found


def kill(pid: int) -> None:
    """Kill -9."""
    os.kill(pid, signal.SIGKILL)
