"""Clips of what people have besides footage: drawn graphics, patterns, noise, dithered pictures.

All are 8-bit, (frames, 3, height, width), and the same every time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from clips import Array, panned, pictures

from vs_cvrs.training import graphics

FRAMES, HEIGHT, WIDTH = 11, 48, 64

_BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16.0


def material() -> dict[str, Array]:
    """All of it, by name."""
    return {name: make() for name, make in _MATERIAL.items()}


def _checkers(amplitude: int, picture: Array | None = None) -> Array:
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    grey = np.full((FRAMES, 3, HEIGHT, WIDTH), 128)
    made = (grey if picture is None else picture.astype(int)) + amplitude * ((x + y) % 2 * 2 - 1)
    levels: Array = np.clip(made, 0, 255)
    return levels.astype(np.uint8)


def _footage() -> Array:
    return panned(FRAMES, WIDTH, HEIGHT)


def _scroll(seed: int) -> Array:
    size = max(HEIGHT, WIDTH)
    clip = graphics.scroll(np.random.default_rng(seed), FRAMES, size)[:, :HEIGHT, :WIDTH]
    return np.ascontiguousarray(clip.transpose(0, 3, 1, 2))


def _screen() -> Array:
    """A drawn page on which something new appears every few frames."""
    rng = np.random.default_rng(4)
    page = graphics.draw(rng, WIDTH)[:HEIGHT].transpose(2, 0, 1).copy()
    made = []
    for n in range(FRAMES):
        if n % 5 == 3:
            y, x = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 16)
            page[:, y : y + 8, x : x + 16] = rng.integers(0, 2, (3, 8, 16)) * 255
        made.append(page.copy())
    return np.stack(made)


def _titles() -> Array:
    """White letters that fade in on black."""
    page = graphics.draw(np.random.default_rng(7), WIDTH)[:HEIGHT].transpose(2, 0, 1)
    share = np.clip((np.arange(FRAMES) - 2) / 6, 0, 1).reshape(-1, 1, 1, 1)
    return np.round((page > 127) * 255 * share).astype(np.uint8)


def _gif() -> Array:
    """Flat saturated colours that move by leaps."""
    made = np.zeros((FRAMES, 3, HEIGHT, WIDTH), np.uint8)
    made[:, 0], made[:, 2] = 255, 255
    for n in range(FRAMES):
        x = 7 * n % (WIDTH - 16)
        made[n, :, 8:32, x : x + 16] = np.array([0, 255, 0]).reshape(3, 1, 1)
        made[n, :, 36:44, WIDTH - 16 - x : WIDTH - x] = np.array([255, 255, 0]).reshape(3, 1, 1)
    return made


def _noise() -> Array:
    return np.random.default_rng(1).integers(0, 256, (FRAMES, 3, HEIGHT, WIDTH), np.uint8)


def _cuts() -> Array:
    """Stills, one after another."""
    stills = pictures(5, WIDTH, HEIGHT)
    return stills[np.arange(FRAMES) // 3 % 5]


def _black() -> Array:
    made = _footage()
    made[:5] = 0
    made[9:] = 0
    return made


def _dithered() -> Array:
    """Footage in 8 levels."""
    threshold = np.tile(_BAYER, (HEIGHT // 4, WIDTH // 4))
    return (np.floor(_footage() / 255.0 * 7 + threshold) * (255 / 7)).round().astype(np.uint8)


def _stipple() -> Array:
    """A desktop of black dots under a window that moves."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    made = np.where((x % 2 == 0) & (y % 2 == 0), 0, 255).astype(np.uint8)
    made = np.broadcast_to(made, (FRAMES, 3, HEIGHT, WIDTH)).copy()
    window = _scroll(9)[0][:, :20, :24]
    for n in range(FRAMES):
        made[n, :, 10:30, 2 * n : 2 * n + 24] = window
    return made


_MATERIAL: dict[str, Callable[[], Array]] = {
    "footage": _footage,
    **{f"graphics {seed}": functools.partial(_scroll, seed) for seed in range(4)},
    "titles": _titles,
    "screen": _screen,
    "gif": _gif,
    "noise": _noise,
    "cuts": _cuts,
    "black": _black,
    **{f"checkers {a}": functools.partial(_checkers, a) for a in (4, 16, 127)},
    "footage with checkers": lambda: _checkers(16, _footage()),
    "dithered": _dithered,
    "stipple": _stipple,
}
