"""The light model whose hidden motion outlives encoders with loss: time 2x at full size.

Sender and receiver both interpolate: each frame that is removed is first made up from the two that
are shown around it (`vs_cvrs.model.motion`). The sender hides what that lacks, as `LiteModel`
hides whole frames, as strongly as it is told that the way will need. The receiver moves its own
interpolation, decodes what is hidden, and weighs the two for each pixel: where nothing is hidden,
or it did not arrive, the interpolation remains.

Frames that hide nothing, as of another's file, are interpolated alone (`RobustModel.between`).

A group's last frame lies behind its last low-rate frame, and is interpolated with the first one of
the next group where the receiver is given that too.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vs_cvrs.model.base import Size
from vs_cvrs.model.light.base import HalfRateModel
from vs_cvrs.model.light.blocks import Trunk
from vs_cvrs.model.light.folding import as_clip, as_frames, fold, unfold
from vs_cvrs.model.light.imsm import LiteImsm
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.motion import FINEST, dense_motion, moved, of_two_scenes
from vs_cvrs.model.strips import in_strips
from vs_cvrs.timeline import SIZE_MULTIPLE

__all__ = ["RobustModel"]

_FOLDED = 12  # channels of 2x2 pixels
_PIXELS = 4
_MIDDLE_CRF = 20.0
_CRF_SPAN = 8.0
_DECODED = 2.0
"""Where the weighing of what is decoded against what is interpolated begins (sigmoid)."""


class RobustModel(HalfRateModel):
    """Time 2x, space 1x, for encoders with loss; see the module's docstring.

    Args:
        width, down_blocks, up_blocks, cells, hidden: as in `LiteModel`.
        motion_width, motion_blocks: of the network that refines motion.

    Attributes:
        blind: the receiver does without interpolation; in training only.
    """

    architecture: ClassVar[str] = "robust"
    takes_bfloat16: ClassVar[bool] = True
    looks_ahead: ClassVar[int] = 1
    interpolates: ClassVar[bool] = True
    refines = False  # an encoder's loss leaves nothing of what steps below a level bring
    outlives_loss: ClassVar[bool] = True
    blind: bool = False

    def __init__(
        self,
        width: int = 48,
        down_blocks: str = "hq",
        up_blocks: str = "qhqhq",
        cells: int = 2,
        hidden: int = 32,
        motion_width: int = 32,
        motion_blocks: str = "hqh",
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "down_blocks": down_blocks,
            "up_blocks": up_blocks,
            "cells": cells,
            "hidden": hidden,
            "motion_width": motion_width,
            "motion_blocks": motion_blocks,
        }
        self._check_options()
        # Both frames of a pair, what interpolation makes of the second, and the CRF.
        self.down = Trunk(3 * _FOLDED + 1, _FOLDED, width, down_blocks, exact=False)
        self.imsm = LiteImsm(cells, hidden)
        # The frames on both sides as they are and as moved, and the motion.
        self.motion = Trunk(4 * _FOLDED + 2, 4 + _PIXELS, motion_width, motion_blocks, exact=False)
        # What the IMSM gives back, the low-rate frame, the interpolation; out: both frames and how
        # far each is to be believed.
        self.up = Trunk(3 * _FOLDED, 2 * _FOLDED + 2 * _PIXELS, width, up_blocks, exact=False)
        with torch.no_grad():
            self.motion.skip.weight.zero_()
            self.down.skip.weight.zero_()
            self.down.skip.weight[:, :_FOLDED, 0, 0] = torch.eye(_FOLDED)
            self.up.skip.weight.zero_()
            for frame in range(2):
                rows = slice(frame * _FOLDED, (frame + 1) * _FOLDED)
                self.up.skip.weight[rows, :_FOLDED, 0, 0] = torch.eye(_FOLDED)
        self._store_channels_last()

    @torch.no_grad()
    def start_from(self, lite: LiteModel) -> None:
        """Take over what a `LiteModel` has learned: its way to hide and to decode.

        Raises:
            ValueError: its layers are not those of this model.
        """
        self._check_layers(lite)
        self.imsm.load_state_dict(lite.imsm.state_dict())
        for mine, its in ((self.down, lite.down), (self.up, lite.up)):
            mine.blocks.load_state_dict(its.blocks.state_dict())
            for name in ("first", "last", "skip"):
                target, source = getattr(mine, name), getattr(its, name)
                target.weight.zero_()
                outputs, inputs = source.weight.shape[:2]
                target.weight[:outputs, :inputs] = source.weight
                if source.bias is not None:
                    target.bias[:outputs] = source.bias

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.imsm.parameters())

    def receiver_parameters(self) -> list[nn.Parameter]:
        return [*self.motion.parameters(), *self.up.parameters()]

    def uses_imsm(self, high: Size, low: Size) -> bool:
        return False  # what comes back is not what was sent, and the receiver wants both

    def embed(self, latent: Tensor) -> Tensor:
        return latent

    def extract(self, low: Tensor) -> Tensor:
        return low

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to (B, 3, ceil(T/2), H and W rounded up to multiples of 4)."""
        b = high.shape[0]
        high = self._padded(high, size)
        shown = high[:, :, 0::2]
        before, after, motion = self._sides(shown, shown.shape[2])
        made = 0.5 * (moved(before, -motion) + moved(after, motion))
        crf = 0.0 if self.crf is None else (self.crf - _MIDDLE_CRF) / _CRF_SPAN
        pair = fold(high, 2, 2)
        told = torch.full_like(pair[:, :1], crf, memory_format=torch.channels_last)
        parts = torch.cat((pair, fold(as_clip(made, b), 1, 2), told), dim=1)

        def chain(x: Tensor) -> Tensor:
            return as_clip(self.down(_frames_of(x), b), b)

        reach = self.down.radius // 2
        folded = in_strips(chain, as_clip(parts, b), reach, 2 * self.down.held, 2)
        latent = unfold(_frames_of(folded), b, 1, 2)
        with torch.autocast(high.device.type, enabled=False):
            return in_strips(
                self.imsm, latent.float(), self.imsm.radius, self.imsm.held, SIZE_MULTIPLE
            )

    def upsample(self, low: Tensor, size: Size) -> Tensor:
        """Low-rate frames (B, 3, t, h, w) to (B, 3, T, H, W), T up to 2t, H and W up to h and w."""
        b = low.shape[0]
        self._check_restored(low, size)
        count = -(-size[0] // 2)
        made = None if self.blind else self._interpolated(low, count)
        # The sender hid this group's frames in these alone: the next group's are not to be mixed
        # with them, nor restored in vain.
        low = low[:, :, :count]
        made = low if made is None else made
        with torch.autocast(low.device.type, enabled=False):
            latent = in_strips(
                self.imsm.inverse, low, self.imsm.radius, self.imsm.held, SIZE_MULTIPLE
            )

        def chain(*clips: Tensor) -> Tensor:
            latent, shown, between = (fold(x, 1, 2) for x in clips)
            out = self.up(torch.cat((latent, shown, between), dim=1), b)
            decoded, trust = out[:, : 2 * _FOLDED], out[:, 2 * _FOLDED :]
            if self.blind:
                return unfold(decoded, b, 2, 2)
            trust = torch.sigmoid(trust + _DECODED).repeat_interleave(3, dim=1)
            other = torch.cat((shown, between), dim=1)
            return unfold(torch.lerp(other, decoded, trust), b, 2, 2)

        clips = (latent, low, made)
        high = in_strips(chain, clips, self.up.radius, 3 * self.up.held, SIZE_MULTIPLE)
        return high[:, :, : size[0], : size[1], : size[2]]

    def between(self, low: Tensor, size: Size, behind: int = 0) -> Tensor:
        """The low-rate frames, and between them what motion makes of them; see `upsample`.

        Where a frame and the next one are of two scenes, the earlier one is repeated.
        """
        self._check_restored(low, size)
        count = -(-size[0] // 2)
        made = self._interpolated(low, count, across_cuts=False).to(low.dtype)
        high = torch.stack((low[:, :, :count], made), dim=3).flatten(2, 3)
        return high[:, :, : size[0], : size[1], : size[2]]

    def _sides(self, shown: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is before and after the first frames between, and motion, (B * count, ...)."""
        after = torch.cat((shown[:, :, 1:], shown[:, :, -1:]), dim=2)
        before, after = (as_frames(side[:, :, :count]) for side in (shown, after))
        return before, after, dense_motion(before, after)

    def _interpolated(self, low: Tensor, count: int, across_cuts: bool = True) -> Tensor:
        """The first frames half-way to the next, (B, 3, count, h, w); behind the last, itself."""
        b = low.shape[0]
        before, after, motion = self._sides(low, count)
        sides = [before, after, moved(before, -motion), moved(after, motion)]
        # Channels last as all that it is joined with: or all of it would be copied once more.
        coarse = (F.avg_pool2d(motion, 2) / FINEST).contiguous(memory_format=torch.channels_last)
        folded = [fold(as_clip(side, b), 1, 2) for side in sides]
        told = as_clip(torch.cat((*folded, coarse), dim=1), b)

        def chain(x: Tensor) -> Tensor:
            return as_clip(self.motion(_frames_of(x), b), b)

        reach = self.motion.radius // 2
        refined = _frames_of(in_strips(chain, told, reach, 2 * self.motion.held, 2)).float()
        size = before.shape[-2:]
        change = F.interpolate(refined[:, :4], size, mode="bilinear", align_corners=False)
        share = torch.sigmoid(unfold(refined[:, 4:], 1, 1, 2)[0].transpose(0, 1))
        earlier = moved(before, change[:, :2] - motion)
        later = moved(after, change[:, 2:] + motion)
        made = torch.lerp(later, earlier, share)
        if not across_cuts:
            cut = of_two_scenes(*sides)
            if count == low.shape[2]:
                cut.view(b, -1)[:, -1] = True  # nothing is known of what comes behind the last one
            made = torch.where(cut[:, None, None, None], before, made)
        return as_clip(made, b)


def _frames_of(x: Tensor) -> Tensor:
    return as_frames(x).contiguous(memory_format=torch.channels_last)
