"""Errors for users, child processes, and an end within moments when the user wants one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from rich.console import Console

__all__ = ["CliError", "at_interrupt", "children", "console", "interruptible", "say"]

console = Console(stderr=True, highlight=False)
"""For progress and remarks; results go to standard output."""


def say(text: str) -> None:
    """Print a remark on one line, however long."""
    console.print(text, soft_wrap=True, markup=False)


class CliError(Exception):
    """Something the user can do something about; the message is one sentence."""


children: set[subprocess.Popen[bytes]] = set()
"""Running processes that must not outlive this one."""

_last_words: list[Callable[[], str]] = []


def at_interrupt(last_words: Callable[[], str]) -> None:
    """Register a function that says what an interrupted run leaves behind."""
    _last_words.append(last_words)


def interruptible[T](work: Callable[[], T]) -> T:
    """Run ``work``, and end the process at once on SIGINT and SIGTERM.

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

    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
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


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    for child in list(children):
        child.kill()
    console.show_cursor(True)
    words = [text for text in (last_words() for last_words in _last_words) if text]
    sys.stderr.write("\n" + " ".join(["vs-cvrs: interrupted.", *words]) + "\n")
    sys.stderr.flush()
    os._exit(128 + number)
