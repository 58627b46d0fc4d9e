"""A clip on its way into a file, in segments that survive an interruption.

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
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

from vs_cvrs.cli.running import CliError, at_interrupt, children
from vs_cvrs.programs.ffmpeg import find_ffmpeg

__all__ = ["Audio", "Encoding", "Job"]

_BITEXACT = ["-fflags", "+bitexact"]
_COMMON = ["-v", "error", "-nostdin", "-y"]


@dataclass(frozen=True)
class Encoding:
    """How frames are encoded.

    Attributes:
        options: ffmpeg's video options, the pixel format among them.
        container: of the segments. NUT keeps exact times; Matroska keeps the colour description of
            codecs that do not carry it themselves.
    """

    options: list[str]
    container: str = "nut"


@dataclass(frozen=True)
class Audio:
    """Audio and chapters to copy: from where to where on the file's time axis, in seconds.

    ``begin`` is where the first frame of the video is; ``end`` None is the end of the file.
    """

    path: Path
    begin: float
    end: float | None


@dataclass(frozen=True)
class Job:
    """One output file.

    Attributes:
        clip: YUV frames of constant format and rate.
        output: where the file goes.
        encoding: of the frames.
        audio: what is copied beside them.
        tags: global tags.
        identity: what makes this job another one than its neighbour; JSON values.
        segment: frames in a segment.
        seen: called with every frame that is encoded.
    """

    clip: Any
    output: Path
    encoding: Encoding
    audio: Audio
    tags: dict[str, str]
    identity: dict[str, Any]
    segment: int
    seen: Callable[[Any], None] = lambda frame: None

    @property
    def folder(self) -> Path:
        """Where the job's temporary files are."""
        return _folder(self.output)

    def run(self, resume: bool, overwrite: bool, progress: Callable[[int], None]) -> None:
        """Write the file.

        Args:
            resume: use the segments of an earlier run of this job.
            overwrite: replace the output, and an earlier run's segments, where there are some.
            progress: called with the number of frames that are done.

        Raises:
            CliError: there is something in the way, a disk is full, or ffmpeg fails.
        """
        check_output(self.output, resume, overwrite)
        with self._locked(overwrite and not resume):
            at_interrupt(self._left_behind)
            first = self._finished()
            progress(min(first * self.segment, self.clip.num_frames))
            with _saying_why(self.folder):
                self._encode(first, progress)
                joined = self._join()
                _sync(joined)
                joined.replace(self.output)
                _sync(self.output.parent)
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

    def _finished(self) -> int:
        """How many segments are there; what is left of unfinished ones is removed."""
        count = 0
        while self._segment(count).exists():
            count += 1
        for file in self.folder.iterdir():
            if file.name != "job.json" and file not in map(self._segment, range(count)):
                file.unlink()
        return count

    def _segment(self, number: int) -> Path:
        return self.folder / f"{number:05d}.{self.encoding.container}"

    def _count(self) -> int:
        return -(-int(self.clip.num_frames) // self.segment)

    def _encode(self, first: int, progress: Callable[[int], None]) -> None:
        total = int(self.clip.num_frames)
        done = first * self.segment
        if done >= total:
            return
        with contextlib.closing(self.clip[done:].frames(close=True)) as frames:
            for number in range(first, self._count()):
                # The process number keeps an ffmpeg that outlived a killed run out of our way.
                partial = self.folder / f"{number:05d}.{os.getpid()}.part"
                with _Ffmpeg(self._segment_command(partial)) as ffmpeg:
                    for _ in range(min(self.segment, total - number * self.segment)):
                        frame = next(frames)
                        ffmpeg.send(frame)
                        self.seen(frame)
                        done += 1
                        progress(done)
                _sync(partial)
                partial.replace(self._segment(number))

    def _segment_command(self, path: Path) -> list[str]:
        clip = self.clip
        pixels = f"yuv{_SUBSAMPLING[clip.format.subsampling_w, clip.format.subsampling_h]}p"
        if clip.format.bits_per_sample > 8:
            pixels += f"{clip.format.bits_per_sample}le"
        # Stated here too: ffmpeg converts what it thinks is of another matrix than the output's.
        source = ["-colorspace", "bt709", "-color_range", "tv", "-f", "rawvideo"]
        source += ["-pix_fmt", pixels, "-s", f"{clip.width}x{clip.height}"]
        source += ["-r", str(Fraction(clip.fps)), "-i", "-"]
        exact = ["-flags:v", "+bitexact", *_BITEXACT, "-f", _MUXERS[self.encoding.container]]
        # ffmpeg reads the frames from its standard input, so -nostdin would be wrong here.
        return ["-v", "error", "-y", *source, *self.encoding.options, *exact, str(path)]

    def _join(self) -> Path:
        """Put the segments, the audio and the tags together, without another encode."""
        rate = Fraction(self.clip.fps)
        lines = ["ffconcat version 1.0"]
        for number in range(self._count()):
            frames = min(self.segment, self.clip.num_frames - number * self.segment)
            lines += [f"file {self._segment(number).name}", f"duration {float(frames / rate):.6f}"]
        listing = self.folder / "segments.txt"
        listing.write_text("\n".join(lines) + "\n")
        joined = self.folder / f"joined{self.output.suffix}"
        audio = self.audio
        where = []
        early = []
        if audio.begin > 0:
            where += ["-seek_timestamp", "1", "-ss", f"{audio.begin:.6f}"]
            # Audio from before the first frame would move the video to a later time.
            early = ["-copypriorss:a", "0"]
        if audio.end is not None:
            where += ["-t", f"{audio.end - audio.begin:.6f}"]
        tags = [
            word for key, value in self.tags.items() for word in ("-metadata", f"{key}={value}")
        ]
        with _Ffmpeg(
            [
                *_COMMON,
                *("-f", "concat", "-safe", "0", "-i", str(listing)),
                *where,
                *("-i", str(audio.path.resolve()), "-map", "0:v:0", "-map", "1:a?"),
                *("-map_metadata", "-1", "-map_chapters", "1"),
                *("-c", "copy", "-r:v", str(rate), *early),
                *tags,
                *_BITEXACT,
                str(joined),
            ]
        ):
            pass
        return joined


_SUBSAMPLING = {(0, 0): "444", (1, 0): "422", (1, 1): "420"}
_MUXERS = {"nut": "nut", "mkv": "matroska"}


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


class _Ffmpeg:
    """An ffmpeg that reads frames; leaving the context waits for its good end."""

    def __init__(self, command: list[str]) -> None:
        self._command = [find_ffmpeg(), *command]
        self._log: IO[bytes]
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> _Ffmpeg:
        self._log = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C at the terminal is for us, who then end it.
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stderr=self._log, start_new_session=True
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
        if kind is None:
            self._finish()
        else:
            self._process.kill()
            self._process.wait()
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
        if any("No space left" in line or "File too large" in line for line in said):
            raise OSError(said[-1])
        if code == -signal.SIGXFSZ:
            raise OSError("File too large")
        if code < 0:
            raise CliError(f"ffmpeg was ended by {signal.Signals(-code).name}; try --resume")
        raise CliError(f"ffmpeg failed: {said[0] if said else f'exit code {code}'}")


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


def _sync(path: Path) -> None:
    """Wait until the disk has it: a rename must not come to the disk before the data."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
