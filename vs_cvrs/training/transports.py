"""What happens to low-rate frames between sender and receiver, while both are trained.

A transport takes low-rate frames, (batch, 3, frames, height, width), RGB in 0..1, and gives what
the receiver gets. Through encoders with loss, the values are those of a real encoder and decoder,
in 8-bit 4:2:0 (PyAV); the gradient is that of the colour conversion around it: a quantiser in an
orthonormal transform lets a gradient through on average. A proxy of the encoder, `quantise`, gives
values without one: block transforms of what changed since the frame before, and uniform
quantisation with a dead zone (Guleryuz et al., arXiv 2402.05887, section 3).

`bits` and `lossless_bits` estimate what frames cost an encoder, for the training loss.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vs_cvrs.model.base import round_to_bits
from vs_cvrs.training.config import TransportConfig

__all__ = [
    "Planes",
    "bits",
    "encode_and_decode",
    "from_planes",
    "lossless_bits",
    "quantise",
    "quantiser_step",
    "straight_through_round",
    "to_planes",
    "transport",
]

_BLOCK = 8
_DEAD_ZONE = 1.0 / 6.0
"""Rounding offset of encoders between frames: what is below 5/6 of a step becomes zero."""

_LUMA_QUANTISER = (0.84, 5.3)
_CHROMA_QUANTISER = (0.74, 6.2)
"""Quantiser of the proxy = first * CRF + second: fitted to what x264 and x265 (medium) lose of five
clips at CRF 12 to 28."""

# BT.709, limited range, as levels of 8 bits: Y, Cb, Cr of RGB in 0..1.
_LUMA = (0.2126, 0.7152, 0.0722)
_RANGE = (219.0, 224.0, 224.0)
_OFFSET = (16.0, 128.0, 128.0)

_DECODERS = {"libx264": "h264", "libx265": "hevc", "libsvtav1": "libdav1d", "libvpx-vp9": "vp9"}

Levels = npt.NDArray[np.uint8]


class Planes(NamedTuple):
    """Y (frames, height, width), and Cb and Cr at half its size, in levels of 8 bits."""

    luma: Tensor
    blue: Tensor
    red: Tensor


def straight_through_round(x: Tensor, bits: int = 8) -> Tensor:
    """`round_to_bits` whose gradient is that of the clamp alone."""
    clamped = x.clamp(0.0, 1.0)
    return clamped + (round_to_bits(clamped, bits) - clamped).detach()


def transport(low: Tensor, config: TransportConfig, crf: float, rng: np.random.Generator) -> Tensor:
    """Low-rate frames as they arrive: one way is drawn for the whole batch.

    Args:
        low: (batch, 3, frames, height, width), RGB; height and width multiples of 4.
        config: which ways there are, and how often.
        crf: of the encoder, or of the first of two.
        rng: draws the way and the encoder.
    """
    if not config.codecs or rng.random() < config.lossless:
        # Configurations without this share go on with the batches that they always had.
        deep = config.ten_bits > 0 and rng.random() < config.ten_bits
        return straight_through_round(low, 10 if deep else 8)
    sent = straight_through_round(low)
    tiled = _tile(sent)
    planes = Planes(*(_straight_through_levels(plane) for plane in to_planes(tiled)))
    for time in range(2 if rng.random() < config.again else 1):
        crf = float(rng.uniform(*config.crf)) if time else crf
        if rng.random() < config.proxy:
            planes = quantise(planes, crf)
        else:
            codec = str(rng.choice(config.codecs))
            preset = str(rng.choice(config.presets))
            planes = _with_values(planes, encode_and_decode(planes, codec, crf, preset))
    return _untile(from_planes(planes).clamp(0.0, 1.0), low.shape)


def _with_values(planes: Planes, values: Planes) -> Planes:
    """These values with those gradients."""
    return Planes(*(p + (v - p).detach() for p, v in zip(planes, values, strict=True)))


def _straight_through_levels(x: Tensor) -> Tensor:
    return x + (x.round().clamp(0.0, 255.0) - x).detach()


def _grid(batch: int) -> tuple[int, int]:
    """Rows and columns of the picture that a batch's clips are put together to."""
    rows = next(n for n in range(math.isqrt(batch), 0, -1) if batch % n == 0)
    return rows, batch // rows


def _tile(x: Tensor) -> Tensor:
    """(B, 3, T, H, W) to one clip of pictures side by side, (T, 3, rows H, columns W)."""
    b, c, t, h, w = x.shape
    rows, columns = _grid(b)
    x = x.reshape(rows, columns, c, t, h, w).permute(3, 2, 0, 4, 1, 5)
    return x.reshape(t, c, rows * h, columns * w)


def _untile(x: Tensor, shape: torch.Size) -> Tensor:
    b, c, t, h, w = shape
    rows, columns = _grid(b)
    x = x.reshape(t, c, rows, h, columns, w).permute(2, 4, 1, 0, 3, 5)
    return x.reshape(b, c, t, h, w)


def to_planes(frames: Tensor) -> Planes:
    """RGB (frames, 3, height, width) in 0..1 to 4:2:0 planes, not rounded (ITU-R BT.709)."""
    red, green, blue = frames.unbind(1)
    luma = _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue
    made = [luma * _RANGE[0] + _OFFSET[0]]
    for colour, weight, span, offset in (
        (blue, _LUMA[2], _RANGE[1], _OFFSET[1]),
        (red, _LUMA[0], _RANGE[2], _OFFSET[2]),
    ):
        difference = (colour - luma) * (0.5 / (1.0 - weight))
        made.append(functional.avg_pool2d(difference[:, None], 2)[:, 0] * span + offset)
    return Planes(*made)


def from_planes(planes: Planes) -> Tensor:
    """4:2:0 planes to RGB (frames, 3, height, width) in 0..1, not clamped; bilinear chroma."""
    luma = (planes.luma - _OFFSET[0]) / _RANGE[0]
    chroma = torch.stack(
        ((planes.blue - _OFFSET[1]) / _RANGE[1], (planes.red - _OFFSET[2]) / _RANGE[2]), dim=1
    )
    chroma = functional.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    blue = luma + chroma[:, 0] * (2.0 * (1.0 - _LUMA[2]))
    red = luma + chroma[:, 1] * (2.0 * (1.0 - _LUMA[0]))
    green = (luma - _LUMA[0] * red - _LUMA[2] * blue) / _LUMA[1]
    return torch.stack((red, green, blue), dim=1)


def quantiser_step(quantiser: float) -> float:
    """Step of H.264's quantiser, in levels, for an orthonormal transform (ITU-T H.264, 8.5)."""
    return math.pow(2.0, (quantiser - 4.0) / 6.0)


def quantise(planes: Planes, crf: float) -> Planes:
    """What x264 or x265 at this CRF leave of planes, about, without an encoder.

    Blocks of 8x8 are transformed (DCT-II, orthonormal) of the difference to what was left of the
    frame before, rounded to steps with a dead zone, and added up again. The gradient passes
    through as if nothing were rounded.
    """
    made = []
    for plane, (slope, offset) in zip(
        planes, (_LUMA_QUANTISER, _CHROMA_QUANTISER, _CHROMA_QUANTISER), strict=True
    ):
        step = quantiser_step(slope * crf + offset)
        made.append(plane + (_quantise_plane(plane.detach(), step) - plane).detach())
    return Planes(*made)


def _quantise_plane(plane: Tensor, step: float) -> Tensor:
    left: list[Tensor] = []
    for frame in plane:
        h, w = frame.shape
        before = left[-1] if left else torch.full_like(frame, 128.0)
        offset = _DEAD_ZONE if left else 2.0 * _DEAD_ZONE
        coefficients = _dct(frame - before) / step
        kept = torch.sign(coefficients) * torch.floor(coefficients.abs() + offset)
        change = _inverse_dct(kept * step)[:h, :w]
        left.append((before + change).clamp(0.0, 255.0))
    return torch.stack(left).round()


@functools.cache
def _basis() -> Tensor:
    """DCT-II, orthonormal, (frequency, place)."""
    k, n = torch.meshgrid(torch.arange(_BLOCK), torch.arange(_BLOCK), indexing="ij")
    basis = torch.cos(math.pi * (n + 0.5) * k / _BLOCK) * math.sqrt(2.0 / _BLOCK)
    basis[0] /= math.sqrt(2.0)
    return basis


def _dct(plane: Tensor) -> Tensor:
    """(..., H, W) to (..., H/8, W/8, 8, 8); edges repeated to whole blocks."""
    h, w = plane.shape[-2:]
    padded = functional.pad(
        plane.reshape(1, -1, h, w), (0, -w % _BLOCK, 0, -h % _BLOCK), mode="replicate"
    )[0]
    blocks = padded.unfold(1, _BLOCK, _BLOCK).unfold(2, _BLOCK, _BLOCK)
    basis = _basis().to(plane)
    made = basis @ blocks @ basis.T
    return made.reshape(*plane.shape[:-2], *made.shape[1:])


def _inverse_dct(coefficients: Tensor) -> Tensor:
    """Inverse of `_dct` for one plane of whole blocks, (H/8, W/8, 8, 8) to (H, W)."""
    basis = _basis().to(coefficients)
    blocks = basis.T @ coefficients @ basis
    rows, columns = blocks.shape[:2]
    return blocks.permute(0, 2, 1, 3).reshape(rows * _BLOCK, columns * _BLOCK)


def bits(frames: Tensor, quantiser: float) -> Tensor:
    """An estimate of the bits that low-rate frames take, per pixel; shape (batch,).

    ``log2(1 + |c| / step)`` over the block transforms of each frame's luma and its difference to
    the one before (the smaller of both sums), after Guleryuz et al., equation 4. Without temporal
    differences an estimate is blind to what hidden motion costs.

    Args:
        frames: (batch, 3, frames, height, width), RGB in 0..1.
        quantiser: H.264's, 0 to 51.
    """
    red, green, blue = frames.unbind(1)
    luma = (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue) * _RANGE[0]
    step = quantiser_step(quantiser)

    def cost(x: Tensor) -> Tensor:
        return torch.log2(1.0 + _dct(x).abs() / step).sum(dim=(-1, -2))

    return _a_pixel(cost(luma), cost, luma)


def lossless_bits(frames: Tensor) -> Tensor:
    """An estimate of the bits that low-rate frames take without loss, per pixel; shape (batch,).

    ``log2(1 + |e|)`` in levels of 8 bits, e being what is left of each colour after prediction:
    from the pixels to the left and above as FFV1 and lossless JPEG (LOCO-I) predict, or from the
    frame before; whichever takes less in each block of 8x8.

    Args:
        frames: (batch, 3, frames, height, width), RGB in 0..1; whole blocks are counted.
    """
    levels = 255.0 * frames

    def cost(error: Tensor) -> Tensor:
        each = torch.log2(1.0 + error.abs()).flatten(0, 2)[None]
        sums = functional.avg_pool2d(each, _BLOCK) * _BLOCK**2
        return sums.reshape(*error.shape[:3], *sums.shape[-2:])

    left, above = levels[..., 1:, :-1], levels[..., :-1, 1:]
    slope = left + above - levels[..., :-1, :-1]
    # The median of the three.
    least, most = torch.minimum(left, above), torch.maximum(left, above)
    predicted = torch.maximum(torch.minimum(slope, most), least)
    whole = cost(functional.pad(levels[..., 1:, 1:] - predicted, (1, 0, 1, 0)))
    return _a_pixel(whole, cost, levels)


def _a_pixel(whole: Tensor, cost: Callable[[Tensor], Tensor], frames: Tensor) -> Tensor:
    """Bits per pixel of frames each of whose blocks is coded by itself or from the frame before.

    Args:
        whole: what blocks take by themselves, (batch, ..., frames, rows, columns).
        cost: gives that of what frames (batch, ..., frames, height, width) differ by.
        frames: they.
    """
    if frames.shape[-3] > 1:
        change = torch.minimum(whole[..., 1:, :, :], cost(frames.diff(dim=-3)))
        whole = torch.cat((whole[..., :1, :, :], change), dim=-3)
    return whole.flatten(1).sum(dim=1) / frames.shape[-3:].numel()


@contextmanager
def _own_scheduling() -> Iterator[None]:
    """Let an encoder change nothing of how this thread is scheduled.

    SVT-AV1, where it may (as root), makes the thread that calls it a real-time one (SCHED_FIFO 99)
    and leaves it so: with every process that it starts from then on, it would keep all others
    from the CPU.
    """
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@torch.no_grad()
@_own_scheduling()
def encode_and_decode(planes: Planes, codec: str, crf: float, preset: str) -> Planes:
    """4:2:0 planes through a real encoder and decoder (PyAV, FFmpeg's libraries).

    Args:
        planes: levels of 8 bits, of any float type; rounded here.
        codec: FFmpeg's name of an encoder: libx264, libx265, libsvtav1 or libvpx-vp9.
        crf: the encoder's constant rate factor.
        preset: the encoder's; for libvpx-vp9 its ``cpu-used``.
    """
    import av

    device, dtype = planes.luma.device, planes.luma.dtype
    count, height, width = planes.luma.shape
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.framerate, encoder.time_base = Fraction(25), Fraction(1, 25)
    encoder.thread_count = 1
    encoder.options = _options(codec, crf, preset)
    decoder = av.CodecContext.create(_DECODERS[codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    arrays = [_levels(plane) for plane in planes]

    def packets() -> Iterator[Any]:
        for number, frame_planes in enumerate(zip(*arrays, strict=True)):
            frame = av.VideoFrame(width, height, "yuv420p")
            for target, source in zip(frame.planes, frame_planes, strict=True):
                rows = np.frombuffer(cast(Any, target), np.uint8).reshape(-1, target.line_size)
                rows[: source.shape[0], : source.shape[1]] = source
            frame.pts = number
            yield from encoder.encode(frame)
        yield from encoder.encode(None)

    frames = [frame for packet in packets() for frame in decoder.decode(packet)]
    frames += decoder.decode(None)
    if len(frames) != count:
        raise RuntimeError(f"transport: {codec} gave {len(frames)} frames back of {count}")
    frames.sort(key=lambda frame: cast(int, frame.pts))
    made = []
    for index, plane in enumerate(planes):
        rows = [
            np.frombuffer(cast(Any, frame.planes[index]), np.uint8).reshape(
                -1, frame.planes[index].line_size
            )[: plane.shape[1], : plane.shape[2]]
            for frame in frames
        ]
        made.append(torch.from_numpy(np.stack(rows)).to(device, dtype))
    return Planes(*made)


def _levels(plane: Tensor) -> Levels:
    array: Levels = plane.detach().round().clamp(0.0, 255.0).to(torch.uint8).cpu().numpy()
    return array


def _options(codec: str, crf: float, preset: str) -> dict[str, str]:
    if codec == "libx265":
        return {"preset": preset, "x265-params": f"crf={crf:.2f}:log-level=none:pools=none"}
    if codec == "libvpx-vp9":
        return {"crf": f"{round(crf)}", "b": "0", "deadline": "good", "cpu-used": preset}
    if codec == "libsvtav1":
        return {"crf": f"{round(crf)}", "preset": preset, "svtav1-params": "lp=1"}
    return {"preset": preset, "crf": f"{crf:.2f}"}
