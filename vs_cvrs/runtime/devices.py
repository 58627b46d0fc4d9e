"""What the names of devices and precisions mean."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from vs_cvrs.model.base import CvrsModel
from vs_cvrs.runtime.transfer import cupy_version
from vs_cvrs.texts import shown

__all__ = [
    "PRECISIONS",
    "automatic_precision",
    "cuda_settings",
    "device_context",
    "fast_bfloat16",
    "resolve_device",
    "takes_tf32",
]

PRECISIONS: dict[str, torch.dtype | None] = {
    "fp32": None,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}
"""What the down and up networks compute in; the IMSM is in float32 (on CUDA see `takes_tf32`)."""


def resolve_device(device: str) -> torch.device:
    """The device that a name stands for; "auto" is the first CUDA device where CuPy is there too.

    Raises:
        ValueError: the name is none of "auto", "cpu", "cuda", "cuda:N".
        RuntimeError: there is no such CUDA device.
    """
    if device == "auto":
        usable = torch.cuda.is_available() and cupy_version() is not None
        return torch.device("cuda", 0) if usable else torch.device("cpu")
    kind, colon, index = device.partition(":")
    if kind == "cpu" and not colon:
        return torch.device("cpu")
    if kind != "cuda" or (colon and not (index.isascii() and index.isdigit())):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {shown(repr(device))}")
    if not torch.cuda.is_available():
        raise RuntimeError(f"device {device} is asked for, but PyTorch finds no CUDA device here")
    count = torch.cuda.device_count()
    if colon and int(index) >= count:
        raise RuntimeError(
            f"device {device} is asked for, but there are only cuda:0 to {count - 1}"
        )
    return torch.device("cuda", int(index) if colon else 0)


def automatic_precision(model: CvrsModel, device: torch.device) -> torch.dtype | None:
    """What ``precision="auto"`` stands for."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if model.takes_bfloat16 and fast_bfloat16(device) else None


def fast_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for bfloat16; without, it is slower than float32.

    PyTorch before 2.12 cannot tell of a CPU: no.
    """
    if device.type == "cuda":
        return True
    tell: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = tell()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


_settings = threading.Lock()
"""PyTorch's settings for CUDA are the process's: they are one session's at a time."""


@contextlib.contextmanager
def device_context(device: torch.device, tf32: bool = False) -> Iterator[None]:
    """The settings that a session computes under; on CUDA, for one session at a time.

    ``tf32``: CUDA may compute in TF32 what is float32.
    """
    if device.type != "cuda":
        yield
        return
    with torch.cuda.device(device), _settings, cuda_settings(tf32):
        yield


@contextlib.contextmanager
def cuda_settings(tf32: bool) -> Iterator[None]:
    """The process's settings for computing on CUDA, and at the end those that were there before."""
    matrices = torch.backends.cuda.matmul
    before = matrices.allow_tf32
    # The same numbers every time: no search for the fastest algorithm.
    convolutions = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=tf32
    )
    with convolutions:
        matrices.allow_tf32 = tf32
        try:
            yield
        finally:
            matrices.allow_tf32 = before


def takes_tf32(model: CvrsModel) -> bool:
    """Whether what stays float32 on CUDA is computed in TF32: not for precision="fp32"."""
    return model.convolution_dtype is not None and model.takes_tf32
