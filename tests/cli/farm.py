"""Clusters of real processes, started as a user starts them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import commands

PRELOADED = {"DASK_DISTRIBUTED__WORKER__PRELOAD": str(Path(__file__).with_name("preloaded.py"))}


class Farm:
    """A scheduler and workers; all end with `end`."""

    def __init__(self, folder: Path, before: Sequence[str] = (), words: Sequence[str] = ()) -> None:
        self._folder = folder
        self._count = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self.scheduler, log = self._start(before, "start", "--port", "0", *words)
        self.address = self.said(log, r"listens at (\S+);", self.scheduler)

    def _start(
        self, before: Sequence[str], *words: str, env: dict[str, str] | None = None
    ) -> tuple[subprocess.Popen[bytes], Path]:
        self._count += 1
        log = self._folder / f"process-{self._count}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*before, *commands.COMMAND, "cluster", *words],
                env=os.environ | (env or {}),
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.processes.append(process)
        return process, log

    @staticmethod
    def said(log: Path, pattern: str, process: subprocess.Popen[bytes]) -> str:
        """What a process says, once it says it."""
        end = time.monotonic() + 120
        while (found := re.search(pattern, log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        return found[1]

    def join(
        self,
        *words: str,
        before: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """A machine joins; its process."""
        process, log = self._start(before, "join", self.address, *words, env=env)
        self.said(log, "(this machine's workers)", process)
        return process

    def end(self) -> None:
        """Kill all processes that are still there."""
        for process in self.processes:
            kill_tree(process.pid)
            process.wait(60)


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, theirs too."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(text.rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found[1:]


def workers_of(pid: int) -> list[int]:
    """Dask's worker processes below a process."""
    found = []
    for one in descendants(pid):
        try:
            line = Path(f"/proc/{one}/cmdline").read_bytes()
        except OSError:
            continue
        if b"spawn_main" in line:
            found.append(one)
    return found


def busy_worker(pid: int, seconds: float = 60) -> int:
    """A worker process below a process that has an ffmpeg at work, as soon as there is one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for worker in workers_of(pid):
            for child in descendants(worker):
                try:
                    if b"rawvideo" in Path(f"/proc/{child}/cmdline").read_bytes():
                        return worker
                except OSError:
                    continue
        time.sleep(0.005)
    raise AssertionError("no worker has begun")


def kill_tree(pid: int) -> None:
    """Kill -9 a process and all below it."""
    for one in [pid, *descendants(pid)]:
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue


def listening(pid: int) -> set[str]:
    """Addresses at which a process and those below it listen, as the kernel writes them."""
    sockets = set()
    for one in [pid, *descendants(pid)]:
        for link in Path(f"/proc/{one}/fd").iterdir():
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                sockets.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in sockets:
                found.add(words[1].partition(":")[0])
    return found
