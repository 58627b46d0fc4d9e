"""Frames between host memory and a device: one interface, a CPU and a CUDA implementation.

A transfer hands out host memory for group buffers, and moves groups of frames as they are stored:
8-bit frames cross the bus as 8 bits and are converted on the device.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import weakref
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

__all__ = [
    "CpuTransfer",
    "CudaTransfer",
    "Stored",
    "Transfer",
    "cupy_advice",
    "cupy_version",
    "open_transfer",
]


class Stored(Protocol):
    """A copy to host memory that was begun."""

    def wait(self) -> None:
        """Return when it is done. May be called from any thread, once."""


class Transfer(Protocol):
    """The way of a session's frames to its device and back. Not thread-safe."""

    device: torch.device

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        """Host memory of ``size`` bytes that `load` and `store` are fast with."""

    def load(self, frames: npt.NDArray[Any]) -> Tensor:
        """The frames as a tensor of the same shape and type on the device.

        The tensor may share the array's memory: it is valid until the array changes. It is to be
        kept until something that was computed of it has been stored.
        """

    def store(self, frames: Tensor, target: npt.NDArray[Any]) -> Stored:
        """Begin to copy a tensor on the device into an array of its shape and type."""

    def settle(self) -> None:
        """After an error: return when nothing that was begun is under way any more.

        Copies go on by themselves; host memory that one of them still writes to must not be given
        to another group.
        """

    def release_memory(self) -> None:
        """Give memory that is held for reuse back to the device, after it ran out."""


class _Done:
    def wait(self) -> None:
        pass


class CpuTransfer:
    """Nothing to transfer: tensors share the group buffers' memory."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        return np.empty(size, np.uint8)

    def load(self, frames: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(frames)

    def store(self, frames: Tensor, target: npt.NDArray[Any]) -> Stored:
        torch.from_numpy(target).copy_(frames)
        return _Done()

    def settle(self) -> None:
        pass  # every copy is done when it was begun

    def release_memory(self) -> None:
        pass  # the CPU allocator holds nothing back


class _CudaStored:
    """Holds what the device still reads until it has been read."""

    def __init__(self, event: Any, source: object) -> None:
        self._event = event
        self._source = source

    def wait(self) -> None:
        self._event.synchronize()
        self._source = None


class CudaTransfer:
    """Pinned host memory and asynchronous copies by CuPy, on a stream for each direction.

    CuPy arrays become torch tensors, and the other way round, by DLPack without a copy. PyTorch
    computes on its own current stream. The DLPack exchange makes the consumer's stream wait for the
    producer's, so that copies and computation are ordered on the device and not by the host: one
    group can come and another go while a third is computed. Why this order is right: docs/gpu.md.

    Raises:
        RuntimeError: CuPy is absent.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cupy = _import_cupy()
        self._cupyx = importlib.import_module("cupyx")
        self._cupy_device = self._cupy.cuda.Device(device.index)
        with self._cupy_device:
            self._to_device = self._cupy.cuda.Stream(non_blocking=True)
            self._to_host = self._cupy.cuda.Stream(non_blocking=True)
        # CuPy's pool keeps for a stream what that has freed, also when there is no such stream.
        pool = self._cupy.get_default_memory_pool()
        end = weakref.finalize(self, _leave_pool, self._cupy_device, pool, self._to_device)
        end.atexit = False

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        with self._cupy_device:
            pinned: npt.NDArray[np.uint8] = self._cupyx.empty_pinned(size, np.uint8)
        return pinned

    def load(self, frames: npt.NDArray[Any]) -> Tensor:
        with self._cupy_device, self._to_device:
            on_device = self._cupy.empty(frames.shape, frames.dtype)
            on_device.set(frames, stream=self._to_device)
            return from_dlpack(on_device)

    def store(self, frames: Tensor, target: npt.NDArray[Any]) -> Stored:
        with self._cupy_device, self._to_host:
            on_device = self._cupy.from_dlpack(frames.contiguous())
            on_device.get(stream=self._to_host, out=target, blocking=False)
            event = self._cupy.cuda.Event(block=True, disable_timing=True)
            event.record(self._to_host)
        return _CudaStored(event, on_device)

    def settle(self) -> None:
        # All streams, PyTorch's among them. A device that is broken says so here too, and the
        # error before this one says more.
        with contextlib.suppress(Exception):
            self._cupy_device.synchronize()

    def release_memory(self) -> None:
        with self._cupy_device:
            self._cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()


def _leave_pool(device: Any, pool: Any, stream: Any) -> None:
    with device:
        pool.free_all_blocks(stream=stream)


def open_transfer(device: torch.device) -> Transfer:
    """The transfer for a device. Raises RuntimeError when CUDA is asked for without CuPy."""
    return CudaTransfer(device) if device.type == "cuda" else CpuTransfer()


def cupy_version() -> str | None:
    """CuPy's version; None when it is not installed or cannot be loaded."""
    try:
        return str(_import_cupy().__version__)
    except RuntimeError:
        return None


def cupy_advice() -> str:
    """How to get the CuPy that fits this PyTorch."""
    cuda = (torch.version.cuda or "13").partition(".")[0]
    return f"that needs CuPy, pip install cupy-cuda{cuda}x"


def _import_cupy() -> ModuleType:
    if importlib.util.find_spec("cupy") is None:
        raise RuntimeError(f"a CUDA device is asked for, but CuPy is absent: {cupy_advice()}")
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise RuntimeError(f"CuPy does not load ({reason}): {cupy_advice()}") from error
