"""A job's segments one after the other, in this process."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vs_cvrs.cli.folder import JobFolder
from vs_cvrs.cli.job import Job
from vs_cvrs.cli.segments import Segment, make_segments

__all__ = ["Local"]


class Local:
    """Makes segments of a clip that is open here. A `Runner`."""

    def __init__(self, clip: Any) -> None:
        self._clip = clip

    def __call__(
        self, job: Job, missing: Sequence[Segment], advance: Callable[[int], None]
    ) -> None:
        def partial(segment: Segment) -> Path:
            # The process number keeps an ffmpeg that outlived a killed run out of our way.
            return job.folder / f"{segment.number:05d}.{os.getpid()}.part"

        for stretch in _stretches(missing):
            for segment, damaged in make_segments(
                self._clip, job.encoding, stretch, partial, lambda: advance(1)
            ):
                file = job.segment_file(segment)
                if damaged:
                    JobFolder(job.output).note_damage(file, damaged)
                partial(segment).replace(file)


def _stretches(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Segments that follow each other, together."""
    numbered = enumerate(segments)
    for _, stretch in itertools.groupby(numbered, lambda place: place[1].number - place[0]):
        yield [segment for _, segment in stretch]
