"""Programs under a watchdog: one that hangs is a failed test, not a test run that never ends."""

from __future__ import annotations

import subprocess
from pathlib import Path

from vs_cvrs.programs.ffmpeg import find_ffmpeg

SECONDS = 300
"""How long a program may take where a test does not say: ten times what any needs undisturbed."""


def run(
    command: list[str] | str, env: dict[str, str] | None = None, seconds: float = SECONDS
) -> tuple[int, bytes, str]:
    """A program's or a shell line's exit code, output and errors."""
    try:
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            timeout=seconds,
            check=False,
            shell=isinstance(command, str),
            executable="/bin/bash" if isinstance(command, str) else None,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace")
        raise AssertionError(f"not ended after {seconds} seconds; it said: {said}") from None
    return done.returncode, done.stdout, done.stderr.decode()


def encode(script: Path, options: list[str], file: Path, env: dict[str, str]) -> None:
    """A script's frames through vspipe and ffmpeg into a file."""
    ffmpeg = [find_ffmpeg(), "-v", "error", "-i", "-", *options, str(file)]
    with subprocess.Popen(
        ["vspipe", "-c", "y4m", str(script), "-"], env=env, stdout=subprocess.PIPE
    ) as vspipe:
        subprocess.run(ffmpeg, stdin=vspipe.stdout, check=True, timeout=SECONDS)
        assert vspipe.wait(60) == 0
