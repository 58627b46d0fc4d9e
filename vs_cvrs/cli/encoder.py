"""An ffmpeg that is fed with frames, and ends with us."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any

from vs_cvrs.cli.running import CliError, children
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.programs.system import OWN_GROUP, ended_by

__all__ = ["BITEXACT", "Ffmpeg"]

BITEXACT = ["-fflags", "+bitexact"]
"""ffmpeg writes no versions and dates: the same frames give the same file."""


_FULL = 256 - errno.ENOSPC  # how ffmpeg ends on a full disk: the error's number, as one byte


class Ffmpeg:
    """An ffmpeg that reads frames; leaving the context waits for its good end.

    Args:
        command: its arguments.
        folder: where it works; relative names in its arguments and lists are from there.
    """

    def __init__(self, command: list[str], folder: Path | None = None) -> None:
        self._command = [find_ffmpeg(), *command]
        self._folder = folder
        self._log: IO[bytes]
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Ffmpeg:
        self._log = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C at the terminal is for us, who then end it.
        self._process = subprocess.Popen(
            self._command,
            cwd=self._folder,
            stdin=subprocess.PIPE,
            stderr=self._log,
            **OWN_GROUP,
        )
        children.add(self._process)
        return self

    def send(self, frame: Any) -> None:
        """Write a frame's planes. Raises CliError when ffmpeg has gone."""
        assert self._process.stdin is not None
        try:
            for chunk in frame.readchunks():
                self._process.stdin.write(chunk)
        except OSError:
            self._finish()
            raise CliError("ffmpeg ended before it had read all frames") from None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
            else:
                self._process.kill()
                self._process.wait()
        finally:
            children.discard(self._process)
            self._log.close()

    def _finish(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        code = self._process.wait()
        if code == 0:
            return
        self._log.seek(0)
        said = self._log.read().decode(errors="replace").strip().splitlines()
        for number, words in ((errno.ENOSPC, "No space left"), (errno.EFBIG, "File too large")):
            if any(words in line for line in said):
                # Its own words have addresses in memory and the names of its parts around these.
                raise OSError(number, os.strerror(number))
        if code == _FULL:
            # Nothing is said where what it says goes to the same disk.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        by = ended_by(code)
        if by == "SIGXFSZ":
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if by:
            raise CliError(f"ffmpeg was ended by {by}; try --resume")
        raise CliError(f"ffmpeg failed: {said[0] if said else f'exit code {code}'}")
