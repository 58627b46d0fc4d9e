"""What each operating system does in its own way: locks, disks, processes, pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["DISK_FULL", "OWN_GROUP", "ended_by", "hold", "reader_left", "sync"]

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Numbers of the errors that say that there is no room for a file."""

OWN_GROUP: dict[str, Any] = {"start_new_session": True}
"""Arguments of `subprocess.Popen` for a child that Ctrl-C at the terminal does not reach."""

if sys.platform == "win32":
    OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; given back when the process ends, however it ends.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":
        # Windows locks no folders. The file is beside the folder, so that the folder can go.
        path = folder.with_name(folder.name + ".lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            except OSError as error:
                raise BlockingIOError(f"{path} is locked") from error
            yield
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # another process has opened it meanwhile
                path.unlink()
    else:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)


def sync(path: Path) -> None:
    """Wait until the disk has it: a rename must not come to the disk before the data."""
    windows = sys.platform == "win32"
    if windows and path.is_dir():
        return  # NTFS keeps a journal of its folders, and gives no way to wait for it
    # Windows takes handles that may write only.
    descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ended_by(code: int) -> str:
    """The name of the signal that ended a process with this code; empty where none did."""
    if code >= 0:
        return ""
    try:
        return signal.Signals(-code).name
    except ValueError:  # most real-time signals have no names
        return f"signal {-code}"


def reader_left() -> bool:
    """Whether nobody reads standard output any more, as behind ``| head``."""
    if not hasattr(select, "poll"):
        return True  # on Windows: whoever asks has just been told so by a broken pipe
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in watched.poll(0))
