"""Which model a filter works with, and whether it is made for what is asked."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import torch

from vs_cvrs.checkpoints import zoo
from vs_cvrs.plugin.arguments import Arguments
from vs_cvrs.plugin.statements import Stated
from vs_cvrs.runtime.memory import MAX_MEMORY_RANGE
from vs_cvrs.runtime.session import Session, find_open, open_session
from vs_cvrs.runtime.transfer import cupy_advice
from vs_cvrs.texts import shown
from vs_cvrs.timeline import (
    low_size,
)

__all__ = [
    "STRENGTHS",
    "check_model",
    "crf_of",
    "open_model",
    "warnings_of",
]


STRENGTHS = {"light": 15.0, "web": 21.0, "heavy": 27.0}
"""What is done to low-rate frames, as the constant rate factor of x264 that does as much."""

_MAX_CRF = 51.0


def open_model(
    given: Arguments, ratio: Fraction, scale: Fraction, stated: Stated | None = None
) -> Session:
    """The session of the wanted model. With frame properties, the model that they state."""
    model = given.text("model")
    path: Path | None = None
    if model == "auto" and stated is not None:
        path = find_open(stated.is_of)
        if path is None:
            known = stated.model if stated.model in zoo.names() else model
            model = zoo.name_where(stated.is_of) or known
    if path is None:
        path = zoo.resolve(model, ratio, scale)
    session = open_session(
        path,
        given.text("device"),
        given.text("precision"),
        given.number("max_memory", *MAX_MEMORY_RANGE),
    )
    if stated is not None and not stated.is_of(session.checksum):
        its = f"{stated.model} ({stated.checksum})".lstrip()
        if stated.model_id is not None:
            its = f"whose checksum begins otherwise (its first bits are {stated.model_id:#x})"
        raise ValueError(
            f"the clip was made with model {its}, "
            f"but the model here is {session.name} ({session.checksum})"
        )
    return session


def check_model(
    session: Session, ratio: Fraction, low: tuple[int, int], high: tuple[int, int]
) -> None:
    """Raise ValueError where a model is made for one ratio or scale and this is another."""
    time, space = session.model.time_factor, session.model.space_factor
    if time is not None and time != ratio:
        raise ValueError(
            f"model {session.name} is made for a time factor of {time}, got {ratio}; "
            f"factor_num={time.numerator}, factor_den={time.denominator} asks for it exactly"
        )
    if space is not None and tuple(low_size(n, space) for n in high) != low:
        raise ValueError(
            f"model {session.name} is made for a scale of {space}, "
            f"got {high[0]}x{high[1]} to {low[0]}x{low[1]}"
        )


def crf_of(given: Arguments, session: Session) -> float | None:
    """What will be done to the low-rate frames; None for models that want them without loss.

    Raises:
        ValueError: ``strength`` is none of `STRENGTHS` and no constant rate factor, or is given for
            such a model.
    """
    text = given.text("strength")
    if not session.model.outlives_loss:
        if text != "auto":
            raise ValueError(
                f"strength is for models that outlive encoders with loss, and {session.name} does "
                'not; model="robust" does'
            )
        return None
    if text == "auto":
        return STRENGTHS["web"]
    if text in STRENGTHS:
        return STRENGTHS[text]
    try:
        crf = float(text)
    except ValueError:
        crf = -1.0
    if not 0.0 <= crf <= _MAX_CRF:
        names = ", ".join(STRENGTHS)
        raise ValueError(
            f"strength must be {names}, or a constant rate factor of x264 from 0 to {_MAX_CRF:g}, "
            f"got {shown(repr(text))}"
        )
    return crf


def warnings_of(given: Arguments, session: Session) -> list[str]:
    """What the user should know of the device that the model works on."""
    unused_gpu = session.device.type == "cpu" and torch.cuda.is_available()
    if given.text("device") != "auto" or not unused_gpu:
        return []
    return [f"works on the CPU, although there is a CUDA device: {cupy_advice()}"]
