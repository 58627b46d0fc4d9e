"""How scenes are cut into groups, and how large their low-rate frames are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

from vs_cvrs import metrics
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.evaluation.scenes import Scene
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.timeline import Timeline, low_size

__all__ = ["Group", "Protocol"]


@dataclass(frozen=True)
class Group:
    """Frames of a scene that are coded together.

    Attributes:
        high: high-rate frames read and restored.
        padded: high-rate frames the model is given; the last one is repeated up to there.
        low: low-rate frames made, as indices into the low-rate clip.
        shown: for each low-rate frame the high-rate frame (index in the scene) that it shows.
    """

    high: range
    padded: int
    low: range
    shown: tuple[int, ...]


@dataclass(frozen=True)
class Protocol:
    """How a scene is cut into groups and how large its low-rate frames are.

    Attributes:
        ratio: high rate over low rate, at least 1.
        scale: high size over low size, at least 1.
        window: high-rate frames in a group, which the model is given as they are: 8 makes groups of
            8 <-> 4 at ratio 2, 7 the paper's 7 <-> 4. (Models whose `counts_frames` is set would
            take that for a ratio of 7/4, and are given 8.) None: the groups that the filters form.
        group_length: low-rate frames in such a group; unused with a window.
    """

    ratio: Fraction
    scale: Fraction
    window: int | None = 8
    group_length: int = 4

    @classmethod
    def of_filters(cls, model: CvrsModel, ratio: Fraction, scale: Fraction, scene: Scene) -> Self:
        """How the filters do it with such scenes where a script asks for no other groups."""
        low = low_size(scene.height, scale), low_size(scene.width, scale)
        length = model.suited_group_length(ratio, (scene.height, scene.width), low)
        return cls(ratio, scale, None, length)

    def groups(self, count: int, *, filled: bool = False) -> list[Group]:
        """The groups of a scene of ``count`` frames, at least 1; the last may be shorter.

        ``filled``: windows are padded to all frames that their low-rate frames stand for, as those
        of the filters always are: for models whose `CvrsModel.counts_frames` is set.
        """
        if self.window is None:
            return list(self._timeline_groups(count))
        return list(self._window_groups(count, self.window, filled))

    def low_size(self, scene: Scene) -> tuple[int, int]:
        """Height and width of the low-rate frames."""
        return low_size(scene.height, self.scale), low_size(scene.width, self.scale)

    def check(self, scenes: Sequence[Scene]) -> None:
        """Refuse what cannot be measured before any time is spent on it.

        Raises:
            EvaluationError: a scene has fewer frames than one low-rate frame stands for, or frames
                too small for an SSIM.
        """
        least = -(-self.ratio.numerator // self.ratio.denominator)
        for scene in scenes:
            if len(scene.frames) < least:
                raise EvaluationError(
                    f"scene {scene.name} is too short, time factor {self.ratio} needs at least "
                    f"{least} frames, got {len(scene.frames)}"
                )
            height, width = self.low_size(scene)
            if min(height, width, scene.height, scene.width) < metrics.SSIM_WINDOW:
                raise EvaluationError(
                    f"scene {scene.name} is too small, SSIM needs at least {metrics.SSIM_WINDOW}x"
                    f"{metrics.SSIM_WINDOW}, got {scene.width}x{scene.height} with low-rate frames "
                    f"of {width}x{height}"
                )

    def _window_groups(self, count: int, window: int, filled: bool) -> Iterator[Group]:
        timeline = Timeline(self.ratio, 1)
        low = 0
        for begin in range(0, count, window):
            length = min(window, count - begin)
            lows = timeline.low_count(length)
            shown = tuple(begin + timeline.shown(j, length) for j in range(lows))
            padded = timeline.high_begin(lows) if filled else length
            yield Group(range(begin, begin + length), padded, range(low, low + lows), shown)
            low += lows

    def _timeline_groups(self, count: int) -> Iterator[Group]:
        for group in Timeline(self.ratio, self.group_length).downsample_table(count).groups():
            length = len(group.source) + group.source_tail
            yield Group(group.source, length, group.output, group.nearest)
