"""Training footage: videos and stills in, random high-rate clips out.

Every sample is drawn from a generator seeded with (seed, step, index), so that a run that was
stopped goes on with exactly the clips it would have seen.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from vs_cvrs.model.light.resampling import resampled
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.timeline import SIZE_MULTIPLE, Timeline, choose_group_length, low_size
from vs_cvrs.training import graphics
from vs_cvrs.training.config import ConfigError, DataConfig, Stage

__all__ = ["Batch", "ClipDataset", "Footage", "load_footage"]

Frames = npt.NDArray[np.uint8]

_VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".y4m"}
_STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
_CANDIDATES = 3
_MAX_RATIO = 4
_MAX_DENOMINATOR = 5
_MOST_REDUCED = 2.0
_MAX_SPEED = 8.0  # pixels per high-rate frame; about what 448-wide footage shows


@dataclass(frozen=True)
class Footage:
    """Decoded material: videos as (frames, height, width, 3), stills as (height, width, 3)."""

    videos: list[Frames]
    stills: list[Frames]


@dataclass(frozen=True)
class Batch:
    """High-rate clips (batch, 3, T, H, W), float in 0..1, and what their low-rate frames are.

    Attributes:
        high: the clips.
        low_size: (t, h, w) of their low-rate frames.
        shown: indices of the high-rate frames that the low-rate frames show.
    """

    high: Tensor
    low_size: tuple[int, int, int]
    shown: list[int]


def _decode(path: Path, halve_from_width: int, cache: Path) -> Frames:
    """Decode a video to RGB once; later calls map the cached array into memory."""
    stat = path.stat()
    key = json.dumps([str(path), stat.st_size, stat.st_mtime_ns, halve_from_width])
    cached = cache / f"{path.stem}-{hashlib.sha256(key.encode()).hexdigest()[:12]}.npy"
    if not cached.exists():
        halved = f"if(gte(iw,{halve_from_width}),trunc({{0}}/2),{{0}})"
        size = f"w='{halved.format('iw')}':h='{halved.format('ih')}'"
        command = [find_ffmpeg(), "-v", "error", "-i", str(path), "-an", "-fps_mode", "passthrough"]
        # PPM says the size in front of every frame; raw video would need a second tool to ask.
        command += ["-vf", f"scale={size}:flags=area", "-c:v", "ppm", "-f", "image2pipe", "-"]
        decoded = subprocess.run(command, capture_output=True, check=False)
        header = re.match(rb"P6\s(\d+) (\d+)\s255\s", decoded.stdout)
        if decoded.returncode or header is None:
            reason = decoded.stderr.decode(errors="replace").strip().splitlines()
            raise ConfigError(f"{path} cannot be decoded: {reason[-1] if reason else 'no frames'}")
        width, height = int(header[1]), int(header[2])
        frames = np.frombuffer(decoded.stdout, dtype=np.uint8)
        frames = frames.reshape(-1, header.end() + height * width * 3)[:, header.end() :]
        cache.mkdir(parents=True, exist_ok=True)
        # Of this process's alone: runs that begin together share the cache.
        partial = cached.with_suffix(f".{os.getpid()}.part")
        with partial.open("wb") as file:
            np.save(file, frames.reshape(-1, height, width, 3))
        partial.replace(cached)
    array: Frames = np.load(cached, mmap_mode="r")
    return array


def load_footage(config: DataConfig, cache: Path) -> Footage:
    """Decode everything below the folders of ``config``.

    Raises:
        ConfigError: a folder is missing, a file cannot be decoded, or there is nothing to train on.
    """
    for folder in [*config.videos, *config.stills]:
        if not folder.is_dir():
            raise ConfigError(f"data folder {folder} does not exist")
    videos = [
        _decode(path, config.halve_from_width, cache)
        for folder in config.videos
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _VIDEO_SUFFIXES and path.name not in config.exclude
    ]
    stills = [
        np.asarray(Image.open(path).convert("RGB"))
        for folder in config.stills
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _STILL_SUFFIXES and path.name not in config.exclude
    ]
    if not videos and not stills:
        raise ConfigError("the data folders hold neither videos nor stills")
    return Footage(videos, stills)


class ClipDataset(Dataset[Batch]):
    """One item per optimiser step: a batch of random clips.

    Args:
        footage: decoded material.
        config: how it is varied.
        stages: the run's stages in order; item i belongs to the stage that step i falls into.
        seed: the run's seed.
    """

    def __init__(
        self, footage: Footage, config: DataConfig, stages: list[Stage], seed: int
    ) -> None:
        self._footage = footage
        self._config = config
        self._stages = [stage for stage in stages for _ in range(stage.steps)]
        self._seed = seed
        lengths = np.array([len(video) for video in footage.videos], dtype=float)
        # A long video must not outweigh a short one by its whole length: neighbours are alike.
        self._weights = np.sqrt(lengths) / max(1.0, np.sqrt(lengths).sum())
        self._pyramids = [
            [still, _halve(still)] if min(still.shape[:2]) >= 256 else [still]
            for still in footage.stills
        ]

    def __len__(self) -> int:
        return len(self._stages)

    def __getitem__(self, step: int) -> Batch:
        stage = self._stages[step]
        rng = np.random.default_rng((self._seed, step))
        ratio, scale = _factors(rng, stage)
        group = _group_length(rng, stage, ratio)
        timeline = Timeline(ratio, group)
        frames = timeline.high_begin(group)
        size = low_size(stage.crop, scale)
        if frames == group and size == stage.crop and stage.scales[1] > 1:
            size -= SIZE_MULTIPLE  # or nothing would be left to do
        clips = [self._clip(rng, frames, stage.crop) for _ in range(stage.batch)]
        high = torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3).float() / 255.0
        shown = [timeline.shown(low, frames) for low in range(group)]
        return Batch(high.contiguous(), (group, size, size), shown)

    def _clip(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        clip = self._shot(rng, frames, crop)
        if rng.random() < self._config.cut_share and frames > 1:
            cut = int(rng.integers(1, frames))
            clip = np.concatenate((clip[:cut], self._shot(rng, frames, crop)[cut:]))
        if rng.random() < self._config.still_share:
            clip = np.repeat(clip[:1], frames, axis=0)
        # Configurations without these shares go on with the clips that they always drew.
        if self._config.stretch_share and rng.random() < self._config.stretch_share:
            clip = graphics.stretch(rng, clip)
        if self._config.pattern_share and rng.random() < self._config.pattern_share:
            clip = (graphics.dither if rng.random() < 0.4 else graphics.patterned)(rng, clip)
        return _augment(rng, clip)

    def _shot(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        # Configurations without this share go on with the clips that they always drew.
        if self._config.reduced_share and rng.random() < self._config.reduced_share:
            larger = math.ceil(crop * rng.uniform(1.0, _MOST_REDUCED))
            return _reduced(self._as_it_is(rng, frames, larger), crop)
        return self._as_it_is(rng, frames, crop)

    def _as_it_is(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        stills = self._footage.stills
        if self._config.graphics_share and rng.random() < self._config.graphics_share:
            return self._graphics(rng, frames, crop)
        if stills and (not self._footage.videos or rng.random() < self._config.stills_share):
            return self._moving_stills(rng, frames, crop)
        candidates = _CANDIDATES if rng.random() < self._config.motion_share else 1
        measure = _liveliness
        # Configurations without this share go on with the clips that they always drew.
        if self._config.detail_share and rng.random() < self._config.detail_share:
            candidates, measure = _CANDIDATES, _detail
        shots = [self._video_crop(rng, frames, crop) for _ in range(candidates)]
        return max(shots, key=measure) if candidates > 1 else shots[0]

    def _graphics(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        """Drawn pictures that scroll, alone or before footage."""
        clip = graphics.scroll(rng, frames, crop)
        if self._weights.size and rng.random() < 0.3:
            # One of the picture's colours is see-through, as around titles.
            behind = self._video_crop(rng, frames, crop)
            key = clip[0, int(rng.integers(crop)), int(rng.integers(crop))]
            clip = np.where((clip == key).all(axis=-1, keepdims=True), behind, clip)
        return clip

    def _video_crop(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        video = self._footage.videos[rng.choice(len(self._weights), p=self._weights)]
        count, height, width, _ = video.shape
        step = 2 if rng.random() < 0.25 and count > 2 * frames else 1
        start = int(rng.integers(0, max(1, count - step * (frames - 1))))
        stop = start + step * (frames - 1) + 1
        y = int(rng.integers(0, max(1, height - crop + 1)))
        x = int(rng.integers(0, max(1, width - crop + 1)))
        shot = video[start:stop:step, y : y + crop, x : x + crop]
        short = [(0, n - have) for n, have in zip((frames, crop, crop), shot.shape, strict=False)]
        return np.pad(shot, [*short, (0, 0)], mode="edge") if any(n for _, n in short) else shot

    def _moving_stills(self, rng: np.random.Generator, frames: int, crop: int) -> Frames:
        """A crop that pans, zooms and turns over a still, half the time with a moving object."""
        clip = self._pan(rng, frames, crop)
        if rng.random() < 0.5:
            front = self._pan(rng, frames, crop)
            clip = torch.lerp(clip, front, _moving_ellipse(rng, frames, crop))
        return clip.clamp(0, 255).round().byte().permute(0, 2, 3, 1).numpy()

    def _pan(self, rng: np.random.Generator, frames: int, crop: int) -> Tensor:
        """(frames, 3, crop, crop), 0..255."""
        pyramid = self._pyramids[rng.integers(len(self._pyramids))]
        still = pyramid[rng.integers(len(pyramid))]
        height, width, _ = still.shape
        time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
        angle = rng.normal(0, 0.2) + time * rng.normal(0, 0.01)
        zoom = torch.exp(rng.normal(0, 0.1) + time * rng.normal(0, 0.01))
        path = _path(rng, time)
        reach = 0.75 * crop + float(path.abs().max())
        centre = torch.tensor(
            [
                rng.uniform(min(reach, side / 2), max(side - reach, side / 2))
                for side in (width, height)
            ],
            dtype=torch.float32,
        )
        axis = torch.arange(crop, dtype=torch.float32) - (crop - 1) / 2
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        grid = torch.stack(
            (
                cos[:, None, None] * x - sin[:, None, None] * y,
                sin[:, None, None] * x + cos[:, None, None] * y,
            ),
            dim=-1,
        )
        grid = grid + (centre + path)[:, None, None, :]
        # Only the part of the still that the camera sees is handed to the sampler.
        low = grid.amin(dim=(0, 1, 2)).floor().long() - 3
        high = grid.amax(dim=(0, 1, 2)).ceil().long() + 4
        x0, y0 = (int(v) for v in low.clamp_min(0))
        x1, y1 = min(int(high[0]), width), min(int(high[1]), height)
        x0, y0 = min(x0, width - 2), min(y0, height - 2)
        x1, y1 = max(x1, x0 + 2), max(y1, y0 + 2)
        window = torch.from_numpy(np.ascontiguousarray(still[y0:y1, x0:x1])).permute(2, 0, 1)
        size = torch.tensor([x1 - x0, y1 - y0], dtype=torch.float32)
        grid = (grid - torch.tensor([x0, y0], dtype=torch.float32) + 0.5) * 2 / size - 1
        source = window.float().expand(frames, -1, -1, -1)
        return F.grid_sample(
            source, grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )


def _factors(rng: np.random.Generator, stage: Stage) -> tuple[Fraction, Fraction]:
    """Time ratio and space factor of a batch; never 1 and 1, where nothing is to be learned."""
    ratio = Fraction(stage.ratios[rng.integers(len(stage.ratios))])
    if rng.random() < stage.other_ratios:
        denominator = int(rng.integers(1, _MAX_DENOMINATOR + 1))
        most = int(_MAX_RATIO * denominator)
        ratio = Fraction(int(rng.integers(denominator + 1, most + 1)), denominator)
    lowest, highest = stage.scales
    kind = rng.random()
    if kind < stage.unscaled and (ratio > 1 or highest == 1):
        return ratio, lowest
    if kind < stage.unscaled + stage.whole:
        return ratio, Fraction(int(rng.integers(max(2, math.ceil(lowest)), int(highest) + 1)))
    scale = rng.uniform(float(lowest), float(highest))
    return ratio, Fraction(scale).limit_denominator(100)


def _group_length(rng: np.random.Generator, stage: Stage, ratio: Fraction) -> int:
    """Low-rate frames in a group: as the filters choose them, but no longer than wanted.

    At full size so many that a frame is lost: 6/5 loses none of a single frame.
    """
    wanted = int(rng.integers(1, stage.group + 1)) if stage.vary_group else stage.group
    wanted = max(1, min(wanted, math.floor(stage.max_frames / ratio)))
    group = choose_group_length(ratio, wanted)
    if stage.scales[1] == 1:
        while Timeline(ratio, group).high_begin(group) == group:
            group += 1
    return group


def _halve(still: Frames) -> Frames:
    height, width, _ = still.shape
    image = Image.fromarray(still).resize((width // 2, height // 2), Image.Resampling.BOX)
    return np.asarray(image)


def _reduced(shot: Frames, crop: int) -> Frames:
    x = torch.from_numpy(np.ascontiguousarray(shot)).permute(3, 0, 1, 2).float()[None]
    made = resampled(x, crop, crop)[0].clamp(0, 255).round().byte()
    return made.permute(1, 2, 3, 0).numpy()


def _path(rng: np.random.Generator, time: Tensor) -> Tensor:
    """A smooth random path, (frames, 2) in pixels."""
    speed = _MAX_SPEED * rng.random() ** 2
    direction = rng.uniform(0, 2 * math.pi)
    velocity = torch.tensor(
        [speed * math.cos(direction), speed * math.sin(direction)], dtype=torch.float32
    )
    acceleration = torch.tensor(rng.normal(0, 0.05, 2), dtype=torch.float32)
    return time[:, None] * velocity + time[:, None].square() * acceleration


def _moving_ellipse(rng: np.random.Generator, frames: int, crop: int) -> Tensor:
    """A soft-edged mask of a moving ellipse, (frames, 1, crop, crop) in 0..1."""
    time = torch.arange(frames, dtype=torch.float32) - (frames - 1) / 2
    centre = torch.tensor(rng.uniform(0.2, 0.8, 2) * crop, dtype=torch.float32) + _path(rng, time)
    radius = torch.tensor(rng.uniform(0.1, 0.4, 2) * crop, dtype=torch.float32)
    softness = float(rng.uniform(0.5, 2.0))
    axis = torch.arange(crop, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx = (x - centre[:, 0, None, None]) / radius[0]
    dy = (y - centre[:, 1, None, None]) / radius[1]
    inside = (1 - torch.sqrt(dx.square() + dy.square())) * float(radius.min())
    return torch.sigmoid(inside / softness * 4)[:, None]


def _liveliness(shot: Frames) -> float:
    a, b = shot[0, ::2, ::2].astype(np.int16), shot[len(shot) // 2, ::2, ::2]
    return float(np.abs(a - b).mean())


def _detail(shot: Frames) -> float:
    """How much a frame differs from itself a pixel aside, along both axes."""
    frame = shot[0].astype(np.int16)
    mixed = frame[1:, 1:] - frame[1:, :-1] - frame[:-1, 1:] + frame[:-1, :-1]
    return float(np.abs(mixed).mean())


def _augment(rng: np.random.Generator, clip: Frames) -> Frames:
    if rng.random() < 0.5:
        clip = clip[::-1]
    if rng.random() < 0.5:
        clip = clip[:, ::-1]
    if rng.random() < 0.5:
        clip = clip[:, :, ::-1]
    if rng.random() < 0.5:
        clip = clip.transpose(0, 2, 1, 3)
    if rng.random() < 0.5:
        clip = clip[..., rng.permutation(3)]
    return np.ascontiguousarray(clip)
