"""The models that come with the package, by name."""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Callable
from fractions import Fraction
from importlib import resources
from pathlib import Path

from vs_cvrs.checkpoints import checkpoint

__all__ = ["checksum", "name_of", "name_where", "names", "resolve"]

_SUFFIX = ".safetensors"

_EXACT = ("lite", Fraction(2), Fraction(1))
"""The model that "auto" takes for one time ratio and one scale."""

_ANY = "lite-any"
"""The model that "auto" takes for all others."""


@functools.cache
def _folder() -> Path:
    """The package's weights; of a package in an archive, copies that end with the process."""
    kept = contextlib.ExitStack()
    atexit.register(kept.close)
    return kept.enter_context(resources.as_file(resources.files("vs_cvrs") / "weights"))


def names() -> list[str]:
    """Names of the bundled models, sorted."""
    return sorted(path.stem for path in _folder().glob(f"*{_SUFFIX}"))


@functools.cache
def checksum(name: str) -> str:
    """That of a bundled model's weights, as in `checkpoint.LoadedModel`."""
    return checkpoint.load(_folder() / (name + _SUFFIX)).checksum


def name_of(weights: str) -> str | None:
    """The bundled model whose weights have this checksum; None where no one has."""
    return name_where(lambda its: its == weights)


def name_where(wanted: Callable[[str], bool]) -> str | None:
    """The bundled model whose weights' checksum is wanted; None where no one's is."""
    return next((name for name in names() if wanted(checksum(name))), None)


def resolve(model: str, ratio: Fraction, scale: Fraction) -> Path:
    """The file or folder of a model.

    Args:
        model: "auto", the name of a bundled model, or a path to a file or folder.
        ratio: high rate / low rate; "auto" chooses by it.
        scale: high size / low size; "auto" chooses by it.

    Raises:
        ValueError: no bundled model is made for this, or ``model`` is neither a name nor a path
            to something that exists.
    """
    bundled = names()
    listing = ", ".join(bundled) if bundled else "none"
    if model == "auto":
        exact, exact_ratio, exact_scale = _EXACT
        if (ratio, scale) == (exact_ratio, exact_scale) and exact in bundled:
            return _folder() / (exact + _SUFFIX)
        if _ANY in bundled:
            return _folder() / (_ANY + _SUFFIX)
        raise ValueError(
            f"no bundled model is made for time {ratio}x and space {scale}x (bundled: {listing}; "
            f"{exact} is for time {exact_ratio}x and space {exact_scale}x); give a model's path"
        )
    if model in bundled:
        return _folder() / (model + _SUFFIX)
    path = Path(model)
    try:
        exists = path.exists()
    except (OSError, ValueError):  # a name that no file can have
        exists = False
    if not model or not exists:
        raise ValueError(
            f"unknown model {model[:200]!r}: neither a bundled one ({listing}) nor a file or folder"
        )
    return path
