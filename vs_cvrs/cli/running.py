"""Errors for users, child processes, and an end within moments when the user wants one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console

from vs_cvrs.programs.system import DISK_FULL

__all__ = [
    "NO_TEMPORARY_FILES",
    "CliError",
    "at_interrupt",
    "children",
    "console",
    "counted",
    "interruptible",
    "say",
    "size_text",
    "temporary_folder",
    "trial_folder",
]

# Names of files may hold what stands for an emoji, like ":x:".
console = Console(stderr=True, highlight=False, emoji=False)
"""For progress and remarks; results go to standard output."""


def say(text: str) -> None:
    """Print a remark on one line, however long."""
    console.print(text, soft_wrap=True, markup=False)


def size_text(size: float) -> str:
    """A number of bytes as people write it, in decimal units: 3.4 MB."""
    thousands = 1 + (size >= 999_500) + (size >= 999_500_000)
    unit = ("kB", "MB", "GB")[thousands - 1]
    size /= 1000**thousands
    return f"{size:.1f} {unit}" if size < 99.95 else f"{size:.0f} {unit}"


def counted(frames: int) -> str:
    """A number of frames in words."""
    return "1 frame" if frames == 1 else f"{frames} frames"


class CliError(Exception):
    """Something the user can do something about; the message is one sentence."""


children: set[subprocess.Popen[bytes]] = set()
"""Running processes that must not outlive this one."""

NO_TEMPORARY_FILES = (
    "cannot write temporary files: make room, or set TMPDIR to a folder on another disk"
)

_folders: set[Path] = set()

_REMOVALS = 10
"""Attempts at removing a folder that is still written to."""

_last_words: dict[Path, Callable[[], str]] = {}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is gone after this, and after an interrupted run too.

    Raises:
        CliError: there is no room for one.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"vs-cvrs-{secrets.token_hex(8)}"
        # Known before it is there, so that no interruption can come between.
        _folders.add(folder)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise CliError(NO_TEMPORARY_FILES) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _folders.discard(folder)


@contextlib.contextmanager
def trial_folder() -> Iterator[Path]:
    """A temporary folder that so little goes into that a full disk is the folder's fault.

    Raises:
        CliError: there is no room for it.
    """
    try:
        with temporary_folder() as folder:
            yield folder
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise CliError(NO_TEMPORARY_FILES) from error


def at_interrupt(folder: Path, last_words: Callable[[], str]) -> None:
    """Register what says what an interrupted run leaves in a folder; the last one counts."""
    _last_words[folder] = last_words


def interruptible[T](work: Callable[[], T]) -> T:
    """Run ``work``, and end the process at once on SIGINT, SIGTERM and SIGHUP.

    The work has a thread of its own, because Python handles signals in the main thread and only
    between two of its instructions: a plugin that indexes a film, or a model at work on a group,
    would keep the user waiting. Nothing needs a tidy end: files get their names when whole.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:
            failure.append(error)

    before = {number: signal.signal(number, _end) for number in _endings()}
    try:
        thread = threading.Thread(target=run, name="vs-cvrs", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failure:
        raise failure[0]
    return outcome[0]


def _endings() -> list[signal.Signals]:
    """The signals that end a run."""
    endings = [signal.SIGINT, signal.SIGTERM]
    # Windows has none; and nohup ignores it, so that the run outlives its terminal.
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        endings.append(signal.SIGHUP)
    return endings


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    for child in list(children):
        child.kill()
    for folder in list(_folders):
        # The work goes on meanwhile, and may put one more file there.
        for _ in range(_REMOVALS):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
    # Of a terminal that was closed nothing is left to write to.
    with contextlib.suppress(OSError):
        console.show_cursor(True)
        words = [text for text in (last_words() for last_words in _last_words.values()) if text]
        sys.stderr.write("\n" + " ".join(["vs-cvrs: interrupted.", *words]) + "\n")
        sys.stderr.flush()
    os._exit(128 + number)
