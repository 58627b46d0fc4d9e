"""Scenes as folders of PNG frames."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from vs_cvrs.evaluation import EvaluationError

__all__ = ["Frames", "Scene", "find_scenes", "natural_key", "read_frames", "write_png"]

Frames = npt.NDArray[np.uint8]
"""(frames, 3, height, width), RGB."""


@dataclass(frozen=True)
class Scene:
    """A folder of PNG frames of one size, in their natural order."""

    name: str
    frames: tuple[Path, ...]
    height: int
    width: int


def natural_key(name: str) -> list[str | int]:
    """Sort key that counts: hr2.png before hr10.png."""
    # Split at runs of digits: text and numbers alternate, so that only like is compared with like.
    parts = re.split(r"([0-9]+)", name.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def find_scenes(root: Path, output: Path | None = None) -> list[Scene]:
    """Every folder at or under ``root`` that holds PNG files, one scene each.

    Args:
        root: a folder of scenes, at any depth, or one scene's folder.
        output: a folder whose pictures are results and not scenes, in case it lies under ``root``.

    Raises:
        EvaluationError: ``root`` is no folder, holds no PNG file, or a scene's frames are
            unreadable or differ in size.
    """
    if not root.is_dir():
        raise EvaluationError(f"--datapath must be a folder of PNG frames, got {root}")
    skipped = None if output is None else output.resolve()
    found: dict[Path, list[Path]] = {}
    for path in root.rglob("*"):
        if path.suffix.lower() != ".png" or path.name.startswith(".") or not path.is_file():
            continue
        if skipped is None or skipped not in path.resolve().parents:
            found.setdefault(path.parent, []).append(path)
    if not found:
        raise EvaluationError(f"no PNG files in or under {root}")
    scenes = []
    for folder in sorted(found, key=lambda path: natural_key(path.as_posix())):
        name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
        frames = tuple(sorted(found[folder], key=lambda path: natural_key(path.name)))
        width, height = _picture_size(frames[0])
        for path in frames[1:]:
            size = _picture_size(path)
            if size != (width, height):
                raise EvaluationError(
                    f"the frames of a scene must have one size, {path} is {size[0]}x{size[1]} "
                    f"and {frames[0].name} is {width}x{height}"
                )
        scenes.append(Scene(name, frames, height, width))
    return scenes


def read_frames(paths: Iterable[Path]) -> Frames:
    """Pictures of one size as uint8 RGB (frames, 3, height, width); alpha is dropped.

    Raises:
        EvaluationError: a file is unreadable, or has 16 bits per sample.
    """
    return np.stack([_read_picture(path) for path in paths])


def write_png(path: Path, frame: Frames) -> None:
    """Write one frame, uint8 RGB (3, height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lightest compression: results are looked at and thrown away.
    Image.fromarray(np.ascontiguousarray(frame.transpose(1, 2, 0))).save(path, compress_level=1)


_BROKEN_PICTURE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def _picture_size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except _BROKEN_PICTURE as error:
        raise EvaluationError(f"cannot read {path} as a picture") from error


def _read_picture(path: Path) -> Frames:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise EvaluationError(f"{path} must have 8 bits per sample, got more")
            rgb = np.asarray(image.convert("RGB"), dtype=np.uint8)
    except EvaluationError:
        raise
    except _BROKEN_PICTURE as error:
        raise EvaluationError(f"cannot read {path} as a picture") from error
    return rgb.transpose(2, 0, 1)
