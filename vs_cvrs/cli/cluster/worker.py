"""What a worker does: it says what it is, and makes segments.

A worker process holds one clip of a job, and one session for each model and device that it was
asked for, until others take their places.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import torch
import vapoursynth as vs
from distributed import get_worker

from vs_cvrs import __version__
from vs_cvrs.carrier.stamp import STAMP_VERSION
from vs_cvrs.checkpoints import zoo
from vs_cvrs.cli.clips import core
from vs_cvrs.cli.folder import JobFolder
from vs_cvrs.cli.recipes import Recipe
from vs_cvrs.cli.running import CliError
from vs_cvrs.cli.segments import Encoding, Segment, make_segments
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.runtime.devices import PRECISIONS
from vs_cvrs.runtime.session import Session, open_session

__all__ = [
    "Made",
    "Report",
    "Work",
    "describe_source",
    "make",
    "report",
    "software",
    "take_index",
]

_KEPT = 2
_KEPT_INDEXES = 16  # jobs that have a worker in turn; each may be one that has yet to open its clip
_TICK = 0.25  # seconds between two looks at whether the job goes on, and between two reports


@dataclass(frozen=True)
class Work:
    """What a worker must know of a job.

    Attributes:
        ticket: this run's own name; no other run of the same job has it.
        recipe, encoding: of the frames.
        source: what `describe_source` says of the source.
        checksum: of the model's weights.
        output: the job's file, whose folder a worker may see or not.
        limit: seconds without a new frame after which a worker ends itself.
    """

    ticket: str
    recipe: Recipe
    encoding: Encoding
    source: tuple[int, str]
    checksum: str
    output: Path
    limit: float

    def partial_name(self, segment: Segment, attempt: str) -> str:
        """Name of an attempt's file until it is whole; no other attempt has it."""
        return f"{segment.number:05d}.{self.ticket}-{attempt}.part"


@dataclass(frozen=True)
class Report:
    """What a worker says of itself.

    Attributes:
        host, process: which it is.
        software: names and versions.
        device: kind of what it computes on.
        precision: what it would compute in if nobody said.
        sees_folder: whether it sees the job's folder.
        problem: why it cannot work on the job, a sentence; empty where it can.
    """

    host: str
    process: int
    software: dict[str, str]
    device: str = ""
    precision: str = ""
    sees_folder: bool = False
    problem: str = ""


@dataclass(frozen=True)
class Made:
    """A segment that is made, or why it is not.

    Attributes:
        name: of the file in the job's folder; empty where ``content`` is given.
        content: of the file, from a worker that does not see the folder.
        size: in bytes.
        damaged: frames of groups that are not as they were sent.
        resident: MiB of the worker's memory.
        problem: why there is no segment, a sentence.
        no_frame: whether it is that VapourSynth cannot make a frame.
        left: the job goes on without this worker's segment: nobody waits for it.
    """

    name: str = ""
    content: bytes = b""
    size: int = 0
    damaged: int = 0
    resident: float = 0.0
    problem: str = ""
    no_frame: bool = False
    left: bool = False


class _LeftError(Exception):
    """Nobody waits for this segment any more."""


def software() -> dict[str, str]:
    """What a file's bytes depend on, by name."""
    said = subprocess.run(
        [find_ffmpeg(), "-version"], capture_output=True, text=True, check=False
    ).stdout
    found = {
        "vs-cvrs": __version__,
        "carrier version": str(STAMP_VERSION),
        "PyTorch": torch.__version__,
        "VapourSynth": str(core.core_version),
        "ffmpeg": " ".join(said.split()[:3]),
    }
    for plugin in core.plugins():
        if plugin.namespace == "bs":
            found["BestSource"] = str(plugin.version)
    return found


def describe_source(path: Path) -> tuple[int, str]:
    """A file's size, and a digest of its ends. Raises OSError."""
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        digest.update(file.read(2**16))
        file.seek(max(0, size - 2**16))
        digest.update(file.read())
    return size, digest.hexdigest()


def report(work: Work) -> Report:
    """What this worker is, and whether it can work on a job."""
    _set_threads()
    host, process = socket.gethostname(), os.getpid()
    try:
        installed = software()
        _check_source(work)
        session = _session(work)
    except Exception as error:
        return Report(host, process, {}, problem=_sentence(error))
    problem = ""
    if session.checksum != work.checksum:
        problem = (
            f"has another model {session.name}: {session.checksum}, and the job's is "
            f"{work.checksum}"
        )
    dtype = session.model.convolution_dtype
    return Report(
        host,
        process,
        installed,
        device=_kind(session.device),
        precision=next(name for name, found in PRECISIONS.items() if found == dtype),
        sees_folder=_sees_folder(work),
        problem=problem,
    )


def _check_source(work: Work) -> None:
    path = work.recipe.source
    try:
        found = describe_source(path)
    except OSError as error:
        raise CliError(
            f"does not see {path} ({error.strerror or error}); put it into a folder that all "
            "machines share under the same name"
        ) from error
    if found != work.source:
        raise CliError(f"sees another file as {path} than this machine")


def _kind(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})"


def _set_threads() -> None:
    """Compute with the threads that Dask says this worker has, and not with one."""
    threads = max(get_worker().state.nthreads, 1)
    torch.set_num_threads(threads)
    core.num_threads = threads


def _sees_folder(work: Work) -> bool:
    return JobFolder(work.output).run_file(work.ticket).exists()


_sessions: OrderedDict[tuple[str, str, str], Session] = OrderedDict()
_clips: OrderedDict[str, Any] = OrderedDict()
_indexes: OrderedDict[str, tempfile.TemporaryDirectory[str]] = OrderedDict()
_turn = threading.Lock()


def _session(work: Work) -> Session:
    """The job's session, which is the filter's too; kept for the next job."""
    arguments = work.recipe.arguments
    key = (arguments["model"], arguments["device"], arguments.get("precision", "auto"))
    found = open_session(zoo.resolve(key[0], Fraction(2), Fraction(1)), key[1], key[2])
    _keep(_sessions, key, found)
    return found


def _keep[K](kept: OrderedDict[K, Any], key: K, value: Any) -> None:
    kept[key] = value
    kept.move_to_end(key)
    while len(kept) > _KEPT:
        kept.popitem(last=False)


def take_index(ticket: str, files: dict[str, bytes]) -> None:
    """Keep the source's index here, where the job's folder is not seen."""
    folder = _temporary_folder()
    for name, content in files.items():
        (Path(folder.name) / name).write_bytes(content)
    _indexes[ticket] = folder
    # A clip that others pushed out is opened once more, so an index outlives its job's clip.
    while len(_indexes) > _KEPT_INDEXES:
        _indexes.popitem(last=False)[1].cleanup()


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that Dask, or who started it, removes even where this process is killed."""
    return tempfile.TemporaryDirectory(prefix="vs-cvrs-", dir=get_worker().local_directory)


def _clip(work: Work) -> Any:
    # The recipe may have changed since the worker was asked: the precision is pinned later.
    if work.ticket not in _clips:
        _session(work)
        kept = _indexes.get(work.ticket)
        index = JobFolder(work.output).index
        if kept is not None:
            _indexes.move_to_end(work.ticket)
            index = Path(kept.name) / index.name
        if not any(index.parent.glob(f"{index.name}.*.bsindex")):
            raise CliError(f"the source's index is not in {index.parent}")
        _keep(_clips, work.ticket, work.recipe.clip(index=index))
    return _clips[work.ticket]


def make(work: Work, segment: Segment, attempt: str) -> Made:
    """Make a segment.

    Args:
        work: the job.
        segment: which.
        attempt: a name that no other attempt at a segment of this job has.
    """
    try:
        with _my_turn(), _Watch(work, attempt) as watch:
            return _make(work, segment, attempt, watch)
    except _LeftError:
        return Made(left=True)
    except Exception as error:
        return Made(problem=_sentence(error), no_frame=isinstance(error, vs.Error))


def _make(work: Work, segment: Segment, attempt: str, watch: _Watch) -> Made:
    with contextlib.ExitStack() as stack:
        shared = JobFolder(work.output).path
        folder = shared if _sees_folder(work) else Path(stack.enter_context(_temporary_folder()))
        path = folder / work.partial_name(segment, attempt)
        clip = _clip(work)
        try:
            made = make_segments(clip, work.encoding, [segment], lambda _: path, watch.frame_done)
            ((_, damaged),) = list(made)
            size = path.stat().st_size
            content = b"" if folder == shared else path.read_bytes()
        except OSError as error:
            path.unlink(missing_ok=True)
            free = ""
            with contextlib.suppress(OSError):
                free = f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
            why = error.strerror or error
            raise CliError(f"cannot write to {folder}: {why}{free}") from error
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
    name = "" if content else path.name
    return Made(name, content, size, damaged, _resident())


@contextlib.contextmanager
def _my_turn() -> Iterator[None]:
    """One segment at a time, even where two jobs have the same worker."""
    while not _turn.acquire(timeout=_TICK):
        _check_wanted(str(get_worker().get_current_task()))
    try:
        yield
    finally:
        _turn.release()


def _check_wanted(key: str) -> None:
    """Raise where Dask has taken a task back, or its client has gone."""
    task = get_worker().state.tasks.get(key)
    if task is None or task.state in ("cancelled", "released", "forgotten"):
        raise _LeftError


class _Watch:
    """Tells the job of new frames, and ends the process when there are none for too long."""

    def __init__(self, work: Work, attempt: str) -> None:
        self._work = work
        self._attempt = attempt
        self._worker = get_worker()
        self._key = str(self._worker.get_current_task())
        self._over = threading.Event()
        self._done = 0
        self._moved = self._told = time.monotonic()

    def __enter__(self) -> _Watch:
        self._tell()
        threading.Thread(target=self._watch, name="vs-cvrs-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def frame_done(self) -> None:
        """After each frame."""
        self._done += 1
        self._moved = time.monotonic()
        if self._moved - self._told > _TICK:
            self._told = self._moved
            _check_wanted(self._key)
            self._tell()

    def _tell(self) -> None:
        self._worker.log_event(self._work.ticket, {"attempt": self._attempt, "done": self._done})

    def _watch(self) -> None:
        while not self._over.wait(_TICK):
            if time.monotonic() - self._moved > self._work.limit:
                # Nothing ends a thread that is stuck in a driver or on a dead disk. Dask's nanny
                # starts a new process, and the client gives the segment to another worker.
                os._exit(1)


def _resident() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


def _sentence(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
