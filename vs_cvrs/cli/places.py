"""Where a job is done: in this process, or by the workers of a cluster."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import vapoursynth as vs
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from vs_cvrs.checkpoints import zoo
from vs_cvrs.cli.clips import Video, interlaced, undecodable
from vs_cvrs.cli.cluster.where import FrameError, Where
from vs_cvrs.cli.folder import JobFolder
from vs_cvrs.cli.job import Job
from vs_cvrs.cli.local import Local
from vs_cvrs.cli.recipes import Recipe
from vs_cvrs.cli.running import CliError, console, counted, say, temporary_folder

__all__ = ["Place", "place_of"]


@dataclass(frozen=True)
class Place:
    """Where a job is done.

    Attributes:
        where: the workers; None: this process.
        index: the file for the source's index, as `open_video` takes it; None: the usual place.
    """

    where: Where | None
    index: Path | None

    def clip(self, recipe: Recipe, video: Video) -> Any:
        """The job's frames, to plan it by and, in this process, to encode."""
        if self.where is not None:
            # No frames are made of it but the first group, for which no GPU is woken up.
            recipe = replace(recipe, arguments=recipe.arguments | {"device": "cpu"})
        return recipe.clip(video)

    def begun(self, recipe: Recipe, video: Video, command: str) -> tuple[Recipe, Any, Any]:
        """The job's recipe, so that its first frame can be made; its frames; and that frame."""
        clip = self.clip(recipe, video)
        try:
            return recipe, clip, clip.get_frame(0)
        except vs.Error as error:
            _check_fields(error, recipe)
            recipe = _mended(recipe, video, command)
        clip = self.clip(recipe, video)
        return recipe, clip, clip.get_frame(0)

    def run(
        self,
        job: Job,
        clip: Any,
        video: Video,
        checksum: str,
        title: str,
        resume: bool,
        overwrite: bool,
    ) -> int:
        """Do a job, under a progress bar.

        Args:
            job: what is to be done.
            clip: its frames, from `clip`.
            video: what they are made of.
            checksum: of the weights of the job's model.
            title: what is said beside the bar.
            resume: as `Job.run` takes it.
            overwrite: likewise.

        Returns:
            How many frames are of groups that are not as they were sent.

        Raises:
            CliError: as `Job.run`; the workers cannot do it.
        """
        try:
            return self._run(job, clip, checksum, title, resume, overwrite)
        except (vs.Error, CliError) as error:
            _check_fields(error, job.recipe)
            # A worker's VapourSynth error comes as this one; others are not of frames.
            if isinstance(error, CliError) and not isinstance(error, FrameError):
                raise
            recipe = _mended(job.recipe, video, job.identity["command"])
        mended = replace(job, recipe=recipe)
        return self._run(mended, self.clip(recipe, video), checksum, title, True, overwrite)

    def _run(
        self, job: Job, clip: Any, checksum: str, title: str, resume: bool, overwrite: bool
    ) -> int:
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Speed(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(title, total=job.frames, note="")

            def done(frames: int) -> None:
                progress.update(bar, completed=frames)

            def note(text: str) -> None:
                progress.update(bar, note=text)

            if self.where is None:
                return job.run(Local(clip), resume, overwrite, done)
            return self._on_cluster(job, checksum, resume, overwrite, done, note)

    def _on_cluster(
        self,
        job: Job,
        checksum: str,
        resume: bool,
        overwrite: bool,
        done: Callable[[int], None],
        note: Callable[[str], None],
    ) -> int:
        from vs_cvrs.cli.cluster.runner import Cluster

        assert self.where is not None
        assert self.index is not None
        # Workers have other folders under them, and choose nothing by themselves.
        model = zoo.name_of(checksum) or str(Path(job.recipe.arguments["model"]).resolve())
        arguments = job.recipe.arguments | {"model": model}
        job = replace(job, recipe=replace(job.recipe, arguments=arguments))
        return job.run(Cluster(self.where, self.index, checksum, note), resume, overwrite, done)


def _check_fields(error: Exception, recipe: Recipe) -> None:
    """Raise CliError for what Downsample says of an interlaced frame, here or at a worker.

    Frames spread over the file were looked at before; to look at all would be to decode it twice.
    """
    found = re.search(r"frame (\d+) of the clip is interlaced", str(error))
    if found:
        begin = recipe.part[0] if recipe.part else 0
        raise interlaced(recipe.source, f"frame {begin + int(found[1])}") from error


def _mended(recipe: Recipe, video: Video, command: str) -> Recipe:
    """The recipe without the frames that cannot be decoded.

    To be called while the error is handled that they may have caused; raises it where there are no
    such frames, or where they are known.
    """
    missing = undecodable(video.clip)
    if not missing or missing == recipe.repeated:
        raise
    say(
        f"{command}: warning: {counted(len(missing))} of {recipe.source} cannot be decoded "
        f"(first: {missing[0]}); others are shown in their place"
    )
    return replace(recipe, repeated=missing)


@contextlib.contextmanager
def place_of(where: Where | None, device: str, output: Path) -> Iterator[Place]:
    """The place that is meant. Raises CliError for what cannot be."""
    if where is None:
        yield Place(None, None)
        return
    where.check(device)
    with temporary_folder() as folder:
        # An index reads the whole source: that of an interrupted run is as good as a new one.
        earlier = JobFolder(output)
        for file in earlier.index_files():
            shutil.copyfile(file, folder / file.name)
        yield Place(where, folder / earlier.index.name)


class _Speed(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} fps" if task.speed else "")
