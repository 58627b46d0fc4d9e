"""Take scenes through a model and score what comes back.

A scene goes through as it would through the filters: closed groups of frames down to low-rate
frames, rounded to 8 bits (or 10), and from those back up, rounded to 8. One group is in memory at a
time, however long the scene is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vs_cvrs import metrics
from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, Scene, read_frames, write_png
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.model.refine import refined
from vs_cvrs.timeline import Timeline

__all__ = [
    "Scores",
    "average",
    "blend_floor",
    "decode_group",
    "encode_group",
    "evaluate",
    "interpolate_group",
    "load_model",
    "low_rate_reference",
    "now",
    "open_device",
]


def open_device(name: str) -> torch.device:
    """The device of a ``--device`` option; "auto" is CUDA where there is one.

    Raises:
        EvaluationError: there is no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cpu" or (device.type == "cuda" and (device.index or 0) < count):
        return device
    raise EvaluationError(
        f"--device must be auto, cpu or a CUDA device of this machine, got {name}"
    )


def load_model(weight: str, ratio: Fraction, scale: Fraction, device: torch.device) -> CvrsModel:
    """The model of a ``--weight`` option on ``device``: a bundled name, a file or a folder.

    Raises:
        EvaluationError: there is no such model, it is broken, or it is made for another time or
            space factor.
    """
    try:
        model = checkpoint.load(zoo.resolve(weight, ratio, scale)).model
    except (ValueError, OSError) as error:
        raise EvaluationError(f"--weight {weight}: {error}") from error
    for what, made_for, wanted in (
        ("time", model.time_factor, ratio),
        ("space", model.space_factor, scale),
    ):
        if made_for is not None and made_for != wanted:
            raise EvaluationError(
                f"the model {weight} is made for {what} factor {made_for}, got {wanted}"
            )
    return model.to(device).eval()


def encode_group(
    model: CvrsModel,
    high: Frames,
    low: tuple[int, int, int],
    padded: int | None = None,
    bits: int = 8,
    refine: int = 0,
) -> Tensor:
    """Take a group down to low-rate frames.

    Args:
        model: on any device, in eval mode.
        high: the group's frames, uint8 (frames, 3, height, width).
        low: (frames, height, width) of the low-rate frames.
        padded: frames the model is given, by repeating the last one; None: as they are.
        bits: of the low-rate samples.
        refine: steps by which they are `vs_cvrs.model.refine.refined`.

    Returns:
        (frames, 3, height, width), on the model's device; uint8, or int16 for more than 8 bits.

    Raises:
        EvaluationError: the model cannot make frames of this size, its frames are not refined, or
            memory runs out.
    """
    if refine and not model.refines:
        raise EvaluationError(f"--refine is not for models of the kind {model.architecture}")
    frames = torch.from_numpy(high).to(_device(model))
    missing = 0 if padded is None else padded - len(high)
    if missing:
        frames = torch.cat((frames, frames[-1:].expand(missing, -1, -1, -1)))

    def encode(x: Tensor, size: tuple[int, int, int]) -> Tensor:
        made = model.encode(x, size)
        return refined(model, x, made, refine, bits) if refine else made

    return _run(encode, frames, low, 8, bits)


def decode_group(
    model: CvrsModel, low: Tensor, high: tuple[int, int, int], bits: int = 8
) -> Tensor:
    """Restore a group of (frames, height, width), in 8 bits, from its low-rate frames.

    Tensors and errors are those of `encode_group`.
    """
    return _run(model.decode, low, high, bits, 8)


def interpolate_group(
    model: CvrsModel, low: Tensor, high: tuple[int, int, int], bits: int = 8
) -> Tensor:
    """`decode_group` of low-rate frames that hide nothing, by a model that `interpolates`."""
    return _run(model.interpolate, low, high, bits, 8)


def low_rate_reference(frames: Frames, size: tuple[int, int], *, padded: bool = False) -> Tensor:
    """What low-rate frames should look like: the frames they show, at the low size.

    Antialiased bicubic (a = -0.5), rounded to 8 bits. Inside the picture it is what MATLAB's
    ``imresize`` computes; at the edges ``imresize`` mirrors the picture while PyTorch leaves out
    the taps that fall outside, which moved no PSNR of a whole clip by more than 0.02 dB.

    Args:
        frames: uint8 (frames, 3, height, width).
        size: height and width to make.
        padded: repeat edge pixels at the right and bottom and do not resize.
    """
    tensor = torch.from_numpy(frames)
    height, width = frames.shape[-2:]
    if size == (height, width):
        return tensor
    values = tensor.to(torch.float32)
    if padded:
        values = functional.pad(values, (0, size[1] - width, 0, size[0] - height), mode="replicate")
    else:
        values = functional.interpolate(values, size=size, mode="bicubic", antialias=True)
    return values.clamp(0.0, 255.0).round().to(torch.uint8)


@torch.inference_mode()
def _run(
    stage: Callable[[Tensor, tuple[int, int, int]], Tensor],
    frames: Tensor,
    size: tuple[int, int, int],
    bits_in: int,
    bits_out: int,
) -> Tensor:
    """One way through a model, from and to integers (T, 3, H, W)."""
    clip = frames.transpose(0, 1)[None].to(torch.float32) / (2.0**bits_in - 1.0)
    try:
        made = stage(clip, size)
    except torch.OutOfMemoryError as error:
        raise EvaluationError(
            f"out of memory with groups of {len(frames)} frames, a smaller --window needs less"
        ) from error
    except ValueError as error:
        raise EvaluationError(f"the model cannot do this: {error}") from error
    levels = (made[0].transpose(0, 1).clamp(0.0, 1.0) * (2.0**bits_out - 1.0)).round()
    return levels.to(torch.uint8 if bits_out == 8 else torch.int16)


def _device(model: CvrsModel) -> torch.device:
    return next(model.parameters()).device


@dataclass(frozen=True)
class Scores:
    """Results of a scene, or means over scenes. PSNR in dB, see `vs_cvrs.metrics`.

    Attributes:
        psnr_rgb, ssim_rgb, psnr_y, ssim_y: restored frames, means of per-frame values.
        clip_psnr_rgb: from the mean squared error of all restored frames of a scene.
        even_psnr_rgb: the frames that a low-rate frame shows; at time factor 2 the even ones of
            each group.
        odd_psnr_rgb, odd_psnr_y: the other ones; None where every frame is shown.
        lr_psnr_rgb, lr_ssim_rgb: low-rate frames against the frames that they show, at their size.
        frames: restored frames.
        seconds: spent in the model, both ways.
    """

    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float
    clip_psnr_rgb: float
    even_psnr_rgb: float
    odd_psnr_rgb: float | None
    odd_psnr_y: float | None
    lr_psnr_rgb: float
    lr_ssim_rgb: float
    frames: int
    seconds: float


_SUMMED = ("frames", "seconds")


def average(scores: Iterable[Scores]) -> Scores:
    """Means over scenes, each with the same weight; frames and seconds are sums."""
    rows = list(scores)
    values: dict[str, Any] = {}
    for name in (f.name for f in fields(Scores)):
        known = [value for row in rows if (value := getattr(row, name)) is not None]
        values[name] = sum(known) if name in _SUMMED else _mean(known)
    return Scores(**values)


def evaluate(
    model: CvrsModel,
    scenes: Iterable[Scene],
    protocol: Protocol,
    output: Path | None = None,
    advance: Callable[[int], None] = lambda frames: None,
    bits: int = 8,
    refine: int = 0,
) -> dict[str, Scores]:
    """Restore scenes and score them.

    Args:
        model: on any device, in eval mode.
        scenes: what to restore.
        protocol: groups and low-rate size.
        output: folder for the PNG files SCENE/low/INDEX.png and SCENE/restored/NAME; None: none.
        advance: called with a number of frames that are done.
        bits: of low-rate samples. They are scored, and written into files, in 8 bits.
        refine: see `encode_group`.

    Returns:
        Scores by scene name, in the order of ``scenes``.

    Raises:
        EvaluationError: as `read_frames` and `encode_group`.
    """
    return {
        scene.name: _evaluate_scene(model, scene, protocol, output, advance, bits, refine)
        for scene in scenes
    }


def _evaluate_scene(
    model: CvrsModel,
    scene: Scene,
    protocol: Protocol,
    output: Path | None,
    advance: Callable[[int], None],
    bits: int,
    refine: int,
) -> Scores:
    height, width = protocol.low_size(scene)
    padded = model.pads((scene.height, scene.width), (height, width))
    device = _device(model)
    tally = _Tally()
    for group in protocol.groups(len(scene.frames), filled=model.counts_frames):
        high = read_frames(scene.frames[group.high.start : group.high.stop])
        begin = now(device)
        low_size = (len(group.low), height, width)
        low = encode_group(model, high, low_size, group.padded, bits, refine)
        size = (group.padded, scene.height, scene.width)
        restored = decode_group(model, low, size, bits)[: len(high)]
        tally.seconds += now(device) - begin
        if bits > 8:
            low = (low * (255.0 / (2.0**bits - 1.0))).round().to(torch.uint8)
        shown = [index - group.high.start for index in group.shown]
        reference = low_rate_reference(high[shown], (height, width), padded=padded)
        tally.add(high, restored, [i in shown for i in range(len(high))], low, reference)
        if output is not None:
            folder = output / scene.name
            for index, frame in zip(group.low, low.cpu().numpy(), strict=True):
                write_png(folder / "low" / f"{index:05d}.png", frame)
            for index, frame in zip(group.high, restored.cpu().numpy(), strict=True):
                write_png(folder / "restored" / scene.frames[index].name, frame)
        advance(len(high))
    return tally.scores()


@dataclass
class _Tally:
    """Per-frame results of a scene as they come in."""

    mse_rgb: list[float] = field(default_factory=list)
    mse_y: list[float] = field(default_factory=list)
    ssim_rgb: list[float] = field(default_factory=list)
    ssim_y: list[float] = field(default_factory=list)
    even: list[bool] = field(default_factory=list)
    low_mse: list[float] = field(default_factory=list)
    low_ssim: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(
        self, high: Frames, restored: Tensor, even: list[bool], low: Tensor, reference: Tensor
    ) -> None:
        original = torch.from_numpy(high).to(restored.device)
        reference = reference.to(low.device)
        self.mse_rgb += metrics.mean_squared_error(restored, original).tolist()
        self.mse_y += metrics.mean_squared_error(restored, original, luma=True).tolist()
        self.ssim_rgb += metrics.ssim(restored, original).tolist()
        self.ssim_y += metrics.ssim(restored, original, luma=True).tolist()
        self.even += even
        self.low_mse += metrics.mean_squared_error(low, reference).tolist()
        self.low_ssim += metrics.ssim(low, reference).tolist()

    def scores(self) -> Scores:
        rgb, y = metrics.psnr_from_mse(self.mse_rgb), metrics.psnr_from_mse(self.mse_y)
        even = np.array(self.even)
        odd = bool((~even).any())
        return Scores(
            psnr_rgb=float(rgb.mean()),
            ssim_rgb=_mean(self.ssim_rgb),
            psnr_y=float(y.mean()),
            ssim_y=_mean(self.ssim_y),
            clip_psnr_rgb=float(metrics.psnr_from_mse(_mean(self.mse_rgb))),
            even_psnr_rgb=float(rgb[even].mean()),
            odd_psnr_rgb=float(rgb[~even].mean()) if odd else None,
            odd_psnr_y=float(y[~even].mean()) if odd else None,
            lr_psnr_rgb=float(metrics.psnr_from_mse(self.low_mse).mean()),
            lr_ssim_rgb=_mean(self.low_ssim),
            frames=len(self.mse_rgb),
            seconds=self.seconds,
        )


def blend_floor(scene: Scene, protocol: Protocol) -> float:
    """Clip PSNR in dB of what needs no model: frames dropped, blended linearly in time.

    The shown frames, at the low size (`low_rate_reference`) and back by bicubic (a = -0.75), stand
    at the display times j / F_l of the low-rate frames and are blended at those of the high-rate
    frames; after the last one it repeats.
    """
    count = len(scene.frames)
    timeline = Timeline(protocol.ratio, 1)
    lows = timeline.low_count(count)
    size = protocol.low_size(scene)
    kept: dict[int, Tensor] = {}

    def low_frame(j: int) -> Tensor:
        if j not in kept:
            for old in [key for key in kept if key < j - 1]:
                del kept[old]
            frame = low_rate_reference(read_frames([scene.frames[timeline.shown(j, count)]]), size)
            values = frame.to(torch.float32)
            if size != (scene.height, scene.width):
                values = functional.interpolate(
                    values, size=(scene.height, scene.width), mode="bicubic"
                )
            kept[j] = values
        return kept[j]

    errors = []
    for n in range(count):
        position = min(Fraction(n) / protocol.ratio, Fraction(lows - 1))
        before = position.numerator // position.denominator
        after = min(before + 1, lows - 1)
        blend = torch.lerp(low_frame(before), low_frame(after), float(position - before))
        frame = blend.clamp(0.0, 255.0).round().to(torch.uint8)
        errors += metrics.mean_squared_error(frame, read_frames([scene.frames[n]])).tolist()
    return float(metrics.psnr_from_mse(_mean(errors)))


def _mean(values: Sequence[float]) -> Any:
    """Mean, or None of nothing."""
    return sum(values) / len(values) if values else None


def now(device: torch.device) -> float:
    """Seconds on a steady clock, once ``device`` has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
