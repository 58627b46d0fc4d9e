"""A file in the making, in segments that survive an interruption.

Beside OUT there is a folder OUT.part while the job is unfinished:

    job.json       what the job is; a run that goes on must be the same job
    00000.nut ...  finished segments; one that is under way has another name
    joined.mkv     the whole file until it is renamed to OUT

Nothing has the name OUT before it is whole. The folder is removed after that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from vs_cvrs.cli.joining import Audio, join
from vs_cvrs.cli.recipes import Recipe
from vs_cvrs.cli.running import CliError, at_interrupt
from vs_cvrs.cli.segments import Encoding, Segment, plan_segments, sync

__all__ = ["Job", "Runner", "check_output"]


class Runner(Protocol):
    """Makes a job's segments, here or elsewhere."""

    def __call__(
        self, job: Job, missing: Sequence[Segment], frame_done: Callable[[], None]
    ) -> None:
        """Make the files of these segments, in any order.

        Args:
            job: whose folder is locked by this process.
            missing: the segments that are not there.
            frame_done: to be called for each frame.
        """


@dataclass(frozen=True)
class Job:
    """One output file.

    Attributes:
        recipe: of its frames.
        frames, rate: how many, and how many in a second.
        output: where the file goes.
        encoding: of the frames.
        audio: what is copied beside them.
        tags: global tags.
        identity: what makes this job another one than its neighbour; JSON values.
        segment: frames in a segment.
    """

    recipe: Recipe
    frames: int
    rate: Fraction
    output: Path
    encoding: Encoding
    audio: Audio
    tags: dict[str, str]
    identity: dict[str, Any]
    segment: int

    @property
    def folder(self) -> Path:
        """Where the job's temporary files are."""
        return _folder(self.output)

    @property
    def segments(self) -> list[Segment]:
        """All of them."""
        return plan_segments(self.frames, self.segment)

    def segment_file(self, segment: Segment) -> Path:
        """A finished segment's file."""
        return self.folder / f"{segment.number:05d}.{self.encoding.container}"

    def run(
        self, runner: Runner, resume: bool, overwrite: bool, progress: Callable[[int], None]
    ) -> None:
        """Write the file.

        Args:
            runner: makes the segments.
            resume: use the segments of an earlier run of this job.
            overwrite: replace the output, and an earlier run's segments, where there are some.
            progress: called with the number of frames that are done.

        Raises:
            CliError: there is something in the way, a disk is full, or ffmpeg fails.
        """
        check_output(self.output, resume, overwrite)
        with self._locked(overwrite and not resume):
            at_interrupt(self._left_behind)
            missing = self._missing()
            done = self.frames - sum(segment.frames for segment in missing)
            progress(done)

            def frame_done() -> None:
                nonlocal done
                done += 1
                progress(done)

            with _saying_why(self.folder):
                runner(self, missing, frame_done)
                joined = self.folder / f"joined{self.output.suffix}"
                files = [(self.segment_file(segment), segment.frames) for segment in self.segments]
                join(files, self.rate, self.audio, self.tags, joined)
                sync(joined)
                joined.replace(self.output)
                sync(self.output.parent)
            shutil.rmtree(self.folder)

    def _left_behind(self) -> str:
        if not self.folder.exists():
            return ""
        return f"Temporary files are in {self.folder}: --resume goes on from them."

    @contextlib.contextmanager
    def _locked(self, fresh: bool) -> Iterator[None]:
        """Hold the job's folder; nobody else writes to it until this process ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # Not inside the folder, whose files come and go with the job.
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise CliError(f"another process is writing {self.output}") from error
            file = self.folder / "job.json"
            wanted = json.loads(json.dumps(self.identity | {"segment": self.segment}))
            if file.exists() and not fresh:
                _check_same(json.loads(file.read_text()), wanted, self.folder)
            else:
                for old in self.folder.iterdir():
                    old.unlink()
                with _saying_why(self.folder):
                    _write_whole(file, json.dumps(wanted, indent=2) + "\n")
            yield
        finally:
            os.close(descriptor)

    def _missing(self) -> list[Segment]:
        """The segments that are not there; what is left of unfinished ones is removed."""
        files = {self.segment_file(segment): segment for segment in self.segments}
        for file in self.folder.iterdir():
            if file.name != "job.json" and files.pop(file, None) is None:
                file.unlink()
        return list(files.values())


def check_output(output: Path, resume: bool, overwrite: bool) -> None:
    """Raise CliError where a job may not write; worth calling before the long part begins."""
    folder = _folder(output)
    if output.exists() and not overwrite:
        raise CliError(f"{output} exists; --overwrite replaces it")
    if not output.parent.is_dir():
        raise CliError(f"there is no folder {output.parent}")
    if folder.exists() and not (resume or overwrite):
        raise CliError(
            f"{folder} is what an interrupted run has left: --resume goes on from it, "
            "--overwrite begins again"
        )


def _folder(output: Path) -> Path:
    return output.with_name(output.name + ".part")


@contextlib.contextmanager
def _saying_why(folder: Path) -> Iterator[None]:
    """Turn what a full disk raises into a sentence."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(folder).free / 2**20
        raise CliError(
            f"cannot write to {folder}: {error.strerror or error} ({free:.0f} MiB free); "
            "make room, then --resume goes on"
        ) from error


def _check_same(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    differing = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
    if differing:
        raise CliError(
            f"{folder} belongs to another job (not the same: {', '.join(differing)}); "
            "--overwrite without --resume begins again"
        )


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_suffix(".part")
    partial.write_text(text)
    partial.replace(path)
