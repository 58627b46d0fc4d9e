"""Where a job may write: the file OUT, and the folder OUT.part beside it while it is unfinished.

    job.json       what the job is; a run that goes on must be the same job
    kind.json      on a cluster: what its workers compute on
    00000.nut ...  finished segments; one that is under way has another name
    00000.damaged  how many frames of a segment are of damaged groups, where there are some
    source...      on a cluster: the source's index, and the name by which workers know a run
    joined.mkv     the whole file until it is renamed to OUT; segments.txt and others go into it

Nothing has the name OUT before it is whole. Only files with these names are ever removed, and only
from a folder that a job made: a user's own files stay where they are, whatever is asked for.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vs_cvrs.cli.running import CliError, say
from vs_cvrs.programs.system import DISK_FULL, hold

__all__ = ["JobFolder", "check_not_source", "check_output", "saying_why"]

_DESCRIPTION = "job.json"
_REMOVALS = 5
_MARK = {"made by": "vs-cvrs"}
_FINISHED = re.compile(r"\d{5,}\.(nut|mkv)")
_OURS = re.compile(
    r"(job|kind)\.json(\.part)?|(segments|retiming|cvrs-timestamps)\.txt|joined\.\w+|cover\d+"
    r"|\d{5,}\.(nut|mkv|damaged|[\w.-]+\.part)|source(\.\d+\.bsindex|\.[0-9a-f]{32})"
)


class JobFolder:
    """The folder OUT.part.

    Args:
        output: the file that is being made.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self.path = output.with_name(output.name + ".part")
        self.kind = self.path / "kind.json"
        self.index = self.path / "source"  # BestSource adds the track and its ending
        self.joined = self.path / f"joined{output.suffix}"

    def has_segments(self) -> bool:
        """Whether an earlier run has left anything that would be a loss."""
        return self.path.is_dir() and any(_FINISHED.fullmatch(f.name) for f in self.path.iterdir())

    def is_held(self) -> bool:
        """Whether another process writes here at this moment."""
        if not self.path.is_dir():
            return False
        try:
            with hold(self.path):
                return False
        except BlockingIOError:
            return True

    @contextlib.contextmanager
    def locked(self, identity: dict[str, Any], fresh: bool) -> Iterator[None]:
        """Hold the folder; nobody else writes to it until this process ends.

        Args:
            identity: what makes the job another one than its neighbour; JSON values.
            fresh: begin again, whatever an earlier run has left.

        Raises:
            CliError: the folder cannot be made, is not ours, or is of another job.
        """
        try:
            self.path.mkdir(exist_ok=True)
        except OSError as error:
            raise CliError(f"cannot make the folder {self.path}: {error.strerror}") from error
        # Not a file inside the folder: those come and go with the job.
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(hold(self.path))
            except BlockingIOError as error:
                raise CliError(_held(self._output)) from error
            self.check_ours()
            file = self.path / _DESCRIPTION
            wanted = json.loads(json.dumps(identity | _MARK))
            if fresh or not self.has_segments():
                self.clear()
                with saying_why(self.path):
                    _write_whole(file, json.dumps(wanted, indent=2) + "\n")
            else:
                self._check_same(wanted)
            try:
                yield
            except Exception:
                # Nothing was finished that a corrected run could be kept from.
                if self.path.is_dir() and not self.has_segments():
                    self.remove()
                raise

    def check_ours(self) -> None:
        """Raise CliError for a folder that no job has made."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise CliError(f"{self.path} is a file; it is in the way of a folder of that name")
        names = {file.name for file in self.path.iterdir()}
        if names <= {f"{_DESCRIPTION}.part"}:
            return
        if _DESCRIPTION not in names:
            raise CliError(
                f"{self.path} is a folder that vs-cvrs did not make; "
                "move it away, or give OUT another name"
            )
        self._description()

    def clear(self, keep: set[Path] | None = None) -> None:
        """Remove the job's files, but for those to keep."""
        for file in self.path.iterdir():
            if _OURS.fullmatch(file.name) and file.is_file() and file not in (keep or set()):
                file.unlink()

    def clear_unfinished(self, finished: set[Path]) -> None:
        """Remove what is left of segments that were under way."""
        notes = {_note(file) for file in finished if file.exists()}
        kept = {self.path / _DESCRIPTION, self.kind, *self.index_files()}
        self.clear(kept | finished | notes)

    def note_damage(self, segment: Path, frames: int) -> None:
        """Keep in mind how many of a segment's frames are damaged; before the segment is whole."""
        _note(segment).write_text(f"{frames}\n")

    def damaged(self, segments: Iterable[Path]) -> int:
        """How many frames of these segments are damaged."""
        return sum(int(_note(s).read_text()) for s in segments if _note(s).exists())

    def index_files(self) -> list[Path]:
        """The source's index, where there is one."""
        return list(self.path.glob(f"{self.index.name}.*.bsindex"))

    def run_file(self, ticket: str) -> Path:
        """A file by which others know that they see this folder."""
        return self.path / f"{self.index.name}.{ticket}"

    def remove(self) -> None:
        """Remove the job's files and, unless somebody else has put files there, the folder."""
        # A worker that was given up may still write to it.
        for _ in range(_REMOVALS):
            self.clear()
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
        try:
            self.path.rmdir()
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            say(f"{self.path} stays: there are files in it that vs-cvrs did not write")

    def _description(self) -> dict[str, Any]:
        """What job.json says. Raises CliError where it is not ours."""
        file = self.path / _DESCRIPTION
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or any(found.get(k) != v for k, v in _MARK.items()):
            raise CliError(
                f"{file} is damaged or not of vs-cvrs, so nothing tells what {self.path} is; "
                "move that folder away, or give OUT another name"
            )
        return found

    def _check_same(self, wanted: dict[str, Any]) -> None:
        found = self._description()
        differing = sorted(k for k in found.keys() | wanted if found.get(k) != wanted.get(k))
        if differing:
            raise CliError(
                f"{self.path} belongs to another job (not the same: {', '.join(differing)}); "
                "--overwrite without --resume begins again"
            )


def check_output(source: Path, output: Path, resume: bool, overwrite: bool) -> None:
    """Raise CliError where a job may not write; worth calling before the long part begins."""
    folder = JobFolder(output)
    if not output.parent.is_dir():
        raise CliError(f"there is no folder {output.parent}")
    check_not_source(source, output, "OUT")
    if (
        folder.path.is_dir()
        and source.exists()
        and source.resolve().is_relative_to(folder.path.resolve())
    ):
        raise CliError(f"IN is inside {folder.path}, which is removed when OUT is whole")
    if output.is_dir():
        raise CliError(f"{output} is a folder")
    if output.exists() and not output.is_file():
        raise CliError(f"{output} is not an ordinary file, and cannot be replaced by one")
    if output.exists() and not overwrite:
        raise CliError(f"{output} exists; --overwrite replaces it")
    folder.check_ours()
    if folder.is_held():
        raise CliError(_held(output))
    if folder.has_segments() and not (resume or overwrite):
        raise CliError(
            f"{folder.path} is what an interrupted run has left: --resume goes on from it, "
            "--overwrite begins again"
        )


def check_not_source(source: Path, output: Path, what: str) -> None:
    """Raise CliError where writing ``output`` would replace ``source``, by whatever name."""
    if source.exists() and output.exists() and output.samefile(source):
        raise CliError(f"{what} is the file that is read ({source}); write to another one")


@contextlib.contextmanager
def saying_why(folder: Path) -> Iterator[None]:
    """Turn what a full or broken disk raises into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a lost connection, for one: the disk has nothing to do with it
            raise
        if not folder.is_dir():
            gone = f"{folder} has gone; where it comes back, --resume goes on from it"
            raise CliError(gone) from error
        why = f"cannot write to {folder}: {error.strerror or error}"
        if error.errno not in DISK_FULL:
            raise CliError(why) from error
        free = shutil.disk_usage(folder).free / 2**20
        raise CliError(f"{why} ({free:.0f} MiB free); make room, then --resume goes on") from error


def _held(output: Path) -> str:
    return f"another process is writing {output} at this moment; wait for it, or end it"


def _note(segment: Path) -> Path:
    return segment.with_suffix(".damaged")


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
