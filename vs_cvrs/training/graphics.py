"""Drawn training pictures: text, shapes and fine patterns.

Photographs hardly ever reach the ends of the 8-bit range over an area; titles, test patterns and
screen recordings do, and there a low-rate frame can only be moved one way to hide something. Nor do
photographs hold checkerboards, dither or stipple, which look like what a model hides.
"""

from __future__ import annotations

import string

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["dither", "draw", "pattern", "patterned", "scroll", "stretch"]

Frames = npt.NDArray[np.uint8]

_LETTERS = string.ascii_letters + string.digits + "   .,:!?-()&%"
_MAX_STEP = 8  # pixels per high-rate frame
_MAX_CHECKER = 16  # levels by which a pattern is laid over footage

# Thresholds of ordered dither (Bayer, 1973), in 64ths.
_BAYER = np.array([[0, 2], [3, 1]])
for _ in range(2):
    _BAYER = np.block([[4 * _BAYER, 4 * _BAYER + 2], [4 * _BAYER + 3, 4 * _BAYER + 1]])


def draw(rng: np.random.Generator, size: int) -> Frames:
    """A picture (size, size, 3) of text lines, boxes, ellipses or lines on a plain background."""
    scale = int(rng.integers(1, 3))  # smooth edges, or hard ones
    side = size * scale
    image = Image.fromarray(_background(rng, side))
    canvas = ImageDraw.Draw(image)
    if rng.random() < 0.6:
        _write(rng, canvas, side, scale)
    else:
        _place_shapes(rng, canvas, side)
    return np.asarray(image.resize((size, size), Image.Resampling.BOX))


def scroll(rng: np.random.Generator, frames: int, crop: int) -> Frames:
    """A drawn picture that moves by whole pixels, (frames, crop, crop, 3)."""
    steps = rng.integers(-_MAX_STEP, _MAX_STEP + 1, 2)
    steps[rng.integers(3) : 2] = 0  # often along one axis only
    size = crop + _MAX_STEP * (frames - 1)
    picture = draw(rng, size)
    begin = np.where(steps < 0, size - crop, 0)
    corners = begin + np.arange(frames)[:, None] * steps
    return np.stack([picture[y : y + crop, x : x + crop] for y, x in corners])


def pattern(rng: np.random.Generator, size: int) -> npt.NDArray[np.int8]:
    """A fine pattern (size, size, 1) of -1 and 1: checkers, stripes, or a stipple of dots."""
    y, x = np.mgrid[:size, :size]
    cell = int(rng.choice([1, 1, 1, 2, 4]))
    kind = rng.integers(4)
    if kind == 0:
        on = (y // cell + x // cell) % 2
    elif kind == 1:
        on = (y if rng.random() < 0.5 else x) // cell % 2
    elif kind == 2:
        on = (y % 2) * (x % 2) if rng.random() < 0.5 else (y % 4 == 0) & ((x + y // 2) % 4 == 0)
    else:
        on = rng.random((size, size)) < rng.uniform(0.05, 0.5)
    return np.where(on, 1, -1).astype(np.int8)[..., None]


def patterned(rng: np.random.Generator, clip: Frames) -> Frames:
    """The same clip under a fine pattern that stands still; at times all of it plain grey."""
    _, height, width, _ = clip.shape
    laid = pattern(rng, max(height, width))[:height, :width].astype(np.int16)
    strength = int(rng.integers(2, _MAX_CHECKER + 1))
    if rng.random() < 0.3:
        base = np.full_like(clip, int(rng.integers(0, 256)))
        strength = int(rng.choice([strength, 64, 127]))
    else:
        base = clip
    made: Frames = np.clip(base + strength * laid, 0, 255).astype(np.uint8)
    return made


def dither(rng: np.random.Generator, clip: Frames) -> Frames:
    """The same clip in few levels a colour, by ordered dither."""
    _, height, width, _ = clip.shape
    steps = int(rng.choice([1, 3, 5, 15]))
    tiled = np.tile(_BAYER, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    levels = np.floor(clip / 255.0 * steps + (tiled + 0.5) / 64.0)
    made: Frames = np.round(np.clip(levels, 0, steps) * (255.0 / steps)).astype(np.uint8)
    return made


def stretch(rng: np.random.Generator, clip: Frames) -> Frames:
    """The same clip with so much contrast that parts of it are clipped."""
    gain, pivot = rng.uniform(1.2, 2.5), rng.uniform(0.0, 255.0)
    levels = np.clip(np.round((np.arange(256) - pivot) * gain + pivot), 0, 255).astype(np.uint8)
    return levels[clip]


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    if rng.random() < 0.4:
        level = int(rng.choice([0, 255]))
        return level, level, level
    ends = rng.integers(0, 2, 3) * 255
    inside = rng.integers(0, 256, 3)
    red, green, blue = np.where(rng.random(3) < 0.7, ends, inside)
    return int(red), int(green), int(blue)


def _background(rng: np.random.Generator, side: int) -> Frames:
    kind = rng.random()
    picture = np.empty((side, side, 3), np.uint8)
    picture[:] = _colour(rng)
    if kind < 0.2:  # bars
        edges = np.sort(rng.integers(0, side, int(rng.integers(2, 12))))
        for begin in edges:
            picture[:, begin:] = _colour(rng)
    elif kind < 0.35:  # a ramp
        ramp = np.linspace(np.array(_colour(rng), float), np.array(_colour(rng), float), side)
        picture[:] = np.round(ramp).astype(np.uint8)
    return np.ascontiguousarray(picture.transpose(1, 0, 2) if rng.random() < 0.5 else picture)


def _write(rng: np.random.Generator, canvas: ImageDraw.ImageDraw, side: int, scale: int) -> None:
    font = ImageFont.load_default(size=int(rng.integers(8, 41)) * scale)
    line = int(font.getbbox("Hg")[3] * rng.uniform(1.0, 1.8)) + 1  # type: ignore[union-attr]
    colour = _colour(rng)
    for y in range(int(rng.integers(0, line)), side, line):
        if rng.random() < 0.2:
            colour = _colour(rng)
        text = "".join(rng.choice(list(_LETTERS), int(rng.integers(4, 80))))
        canvas.text((int(rng.integers(-line, side // 3)), y), text, fill=colour, font=font)


def _place_shapes(rng: np.random.Generator, canvas: ImageDraw.ImageDraw, side: int) -> None:
    for _ in range(int(rng.integers(3, 25))):
        x, y = (int(v) for v in rng.integers(-side // 8, side, 2))
        width, height = (int(v) for v in rng.integers(2, side // 3, 2))
        box = (x, y, x + width, y + height)
        kind, colour = rng.integers(3), _colour(rng)
        if kind == 0:
            canvas.rectangle(box, fill=colour)
        elif kind == 1:
            canvas.ellipse(box, fill=colour)
        else:
            canvas.line(box, fill=colour, width=int(rng.integers(1, 9)))
