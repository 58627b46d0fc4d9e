"""Sessions: a model on a device, shared by all filters that use it.

Data's way through a session: group buffer -> transfer in -> model -> transfer out -> group buffer.
A session works in one thread of its own, so that PyTorch keeps one pool of helper threads however
many threads ask. Where a device works by itself, the next group comes while one is computed.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model.base import CvrsModel, round_to_bits
from vs_cvrs.model.refine import refined
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.runtime.devices import (
    PRECISIONS,
    automatic_precision,
    device_context,
    resolve_device,
    takes_tf32,
)
from vs_cvrs.runtime.memory import MAX_MEMORY_RANGE, default_memory, is_out_of_memory
from vs_cvrs.runtime.transfer import Stored, open_transfer
from vs_cvrs.texts import shown

__all__ = [
    "FULL_SPAN",
    "Frames",
    "Session",
    "find_open",
    "open_session",
]

_GROUPS_AT_ONCE = 2
"""Groups that a device works on: one is computed while another comes or goes."""


FULL_SPAN = (0, 255)
"""Black and white as they are."""


_SANE = 1000.0
"""Samples of floating-point clips are 0 to 1; some go beyond it, but not as far as this."""


_DTYPES = {
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.uint16): torch.uint16,
    np.dtype(np.float16): torch.float16,
    np.dtype(np.float32): torch.float32,
}


Frames = npt.NDArray[Any]
"""(frames, 3, height, width), planar RGB, C-contiguous; uint8, uint16, float16 or float32."""


class Session:
    """A model on a device. Thread-safe; use `open_session` to get one.

    Attributes:
        name: the model's file or folder name, without the suffix.
        checksum: of the model's weights.
        model: on the session's device, in evaluation mode; not to be changed.
        max_memory: MiB that a group's computation takes, about. Of frames whose float32 values
            alone take more than half of it, networks take half of it on top.
    """

    def __init__(
        self, path: Path, device: torch.device, precision: str, max_memory: int | None
    ) -> None:
        loaded = checkpoint.load(path)
        self.path = path
        name = path.stem if path.is_file() else path.name
        # VapourSynth's texts are UTF-8, file names need not be.
        self.name = name.encode("utf-8", "backslashreplace").decode()
        self.checksum: str = loaded.checksum
        self.model: CvrsModel = loaded.model
        self.device = device
        self._transfer = open_transfer(device)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="cvrs-session")
        self._turns = threading.BoundedSemaphore(_GROUPS_AT_ONCE)
        self.model.convolution_dtype = (
            automatic_precision(self.model, device)
            if precision == "auto"
            else PRECISIONS[precision]
        )
        self.model.requires_grad_(False)
        self._guard(f"model {self.name}", lambda: self._run(self._to_device))
        self.max_memory = max_memory or default_memory(device)

    def allocate(self, size: int) -> npt.NDArray[np.uint8]:
        """A group buffer of ``size`` bytes, of memory that suits the device."""
        return self._guard(f"a group buffer of {size} bytes", lambda: self._transfer.allocate(size))

    def encode(
        self,
        high: Frames,
        low: Frames,
        bits: int = 16,
        low_bits: int = 8,
        span: tuple[int, int] = FULL_SPAN,
        crf: float | None = None,
        refine: int = 0,
    ) -> None:
        """Make the low-rate frames of a group.

        Args:
            high: the high-rate frames.
            low: written; uint8, or uint16 for ``low_bits`` of more than 8.
            bits: of the samples in ``high`` where that is uint16: 9 to 16.
            low_bits: of the samples in ``low``.
            span: levels of 8 bits that black and white become first, which leaves room to hide in
                beyond them.
            crf: see `CvrsModel`.
            refine: steps by which the low-rate frames are `vs_cvrs.model.refine.refined`.

        Raises:
            RuntimeError: out of memory, or numbers that are not finite in frames or by the model.
        """

        def work(frames: Tensor) -> Tensor:
            frames = _narrowed(frames, span)
            self.model.crf = crf  # one group at a time, in the session's own thread
            made = self.model.encode(frames, (low.shape[0], low.shape[2], low.shape[3]))
            if not refine:
                return made
            ends = span[0] / 255.0, span[1] / 255.0
            return refined(self.model, frames, made, refine, low_bits, ends)

        self._compute(work, high, low, bits, low_bits)

    def decode(
        self,
        low: Frames,
        high: Frames,
        bits: int = 16,
        low_bits: int = 8,
        span: tuple[int, int] = FULL_SPAN,
    ) -> None:
        """Restore the high-rate frames of a group.

        The low-rate frames may go on behind the group's, see `CvrsModel.looks_ahead`. Low-rate
        samples are levels of ``low_bits`` bits whatever type they come in, and are rounded to them.

        Args:
            low: the low-rate frames.
            high: written; of any of the types.
            bits: of the samples where an array is uint16: 9 to 16.
            low_bits: of the levels that low-rate samples stand for.
            span: what `encode` was given.

        Raises:
            RuntimeError: out of memory, or numbers that are not finite in frames or by the model.
        """
        given = 8 if low.dtype == np.uint8 else bits if low.dtype == np.uint16 else None

        def work(frames: Tensor) -> Tensor:
            if given != low_bits:
                frames = round_to_bits(frames, low_bits)
            made = self.model.decode(frames, (high.shape[0], high.shape[2], high.shape[3]))
            return _widened(made, span)

        self._compute(work, low, high, bits, bits)

    def interpolate(
        self,
        low: Frames,
        high: Frames,
        bits: int = 16,
        span: tuple[int, int] = FULL_SPAN,
        behind: int = 0,
    ) -> None:
        """Make high-rate frames of low-rate ones that hide nothing.

        Args:
            low: as in `decode`, but of any levels.
            high: written; of any of the types.
            bits: of the samples where an array is uint16: 9 to 16.
            span: what `encode` was given.
            behind: low-rate frames at the end that lie behind the group's.

        Raises:
            RuntimeError: as in `decode`.
        """
        size = (high.shape[0], high.shape[2], high.shape[3])

        def work(frames: Tensor) -> Tensor:
            return _widened(self.model.interpolate(frames, size, behind), span)

        self._compute(work, low, high, bits, bits)

    def _compute(
        self,
        work: Callable[[Tensor], Tensor],
        source: Frames,
        target: Frames,
        source_bits: int,
        target_bits: int,
    ) -> None:
        """Run ``work`` on frames as the model takes them, from ``source`` to ``target``."""
        count, _, height, width = source.shape
        # The frames before and after each stage take their part in any case. Where they take most,
        # strips would be so small that they mostly compute their surroundings.
        limit = self.max_memory * 2**20
        left = max(limit // 2, limit - 2 * 4 * (source.size + target.size))
        finite = self._transfer.allocate(1)

        # Out here, so that an error lets go of none before the device has settled.
        stored: list[Stored] = []

        def begin() -> Tensor:
            with bounded_memory(left):
                loaded = self._transfer.load(source)
                made = work(_to_model(loaded, source_bits))
            flag = torch.isfinite(made.sum()).to(torch.uint8).view(1)
            frames = _from_model(made, target.dtype, target_bits)
            stored.append(self._transfer.store(flag, finite))
            stored.append(self._transfer.store(frames, target))
            return loaded

        def run() -> None:
            # The worker goes on with another group while this thread waits for this one.
            with self._turns:
                try:
                    loaded = self._run(begin)
                    for copy in stored:
                        copy.wait()
                except BaseException:
                    self._transfer.settle()
                    raise
                del loaded  # not earlier: the device was reading it

        self._guard(f"a group of {count} frames of {width}x{height}", run)
        if not finite[0]:
            _complain_of_numbers(source)

    def _to_device(self) -> None:
        with torch.inference_mode(False):  # or `refined` could not use the parameters
            self.model.to(self.device)

    def _run[T](self, work: Callable[[], T]) -> T:
        def in_context() -> T:
            tf32 = takes_tf32(self.model)
            with torch.inference_mode(), device_context(self.device, tf32):
                return work()

        return self._worker.submit(in_context).result()

    def _guard[T](self, what: str, work: Callable[[], T]) -> T:
        """Run ``work``; say what to do when memory runs out."""
        try:
            return work()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Only here has the error's traceback let go of the group's tensors.
        self._transfer.release_memory()
        advice = "use a smaller gop or smaller frames, or less max_memory"
        if self.device.type == "cuda":
            advice += ', or precision="fp16", or device="cpu"'
        raise RuntimeError(f"out of memory on {self.device} for {what}: {advice}")


def _to_model(frames: Tensor, bits: int) -> Tensor:
    """(T, 3, H, W) as stored to (1, 3, T, H, W) float32 in 0..1."""
    top = {torch.uint8: 255.0, torch.uint16: 2.0**bits - 1.0}.get(frames.dtype, 1.0)
    x = frames.to(torch.float32)
    if top != 1.0:
        x.div_(top)
    return x.permute(1, 0, 2, 3).unsqueeze(0)


def _narrowed(frames: Tensor, span: tuple[int, int]) -> Tensor:
    """Frames of 0..1 with black and white at the levels of ``span``."""
    if span == FULL_SPAN:
        return frames
    black, white = span
    return frames.mul((white - black) / 255.0).add_(black / 255.0)


def _widened(frames: Tensor, span: tuple[int, int]) -> Tensor:
    """Undo `_narrowed`; what lies beyond black and white is noise."""
    if span == FULL_SPAN:
        return frames
    black, white = span
    return frames.sub(black / 255.0).mul_(255.0 / (white - black)).clamp_(0.0, 1.0)


def _complain_of_numbers(source: Frames) -> NoReturn:
    # A comparison with NaN is false.
    if source.dtype.kind == "f" and not bool((np.abs(source) <= _SANE).all()):
        raise RuntimeError("the clip's frames hold samples that are NaN, infinite, or huge")
    raise RuntimeError("the model gave numbers that are not finite; its weights are damaged")


def _from_model(x: Tensor, dtype: np.dtype[Any], bits: int) -> Tensor:
    """(1, 3, T, H, W) to (T, 3, H, W) as stored: integers rounded, floating point as it is."""
    x = x.squeeze(0).permute(1, 0, 2, 3)
    made = torch.empty(x.shape, dtype=_DTYPES[dtype], device=x.device)
    top = 255.0 if dtype.itemsize == 1 else 2.0**bits - 1.0
    for frame, target in zip(x, made, strict=True):
        if dtype.kind == "u":
            frame = frame.mul(top).round_().clamp_(0.0, top)
        target.copy_(frame)
    return made


_sessions: weakref.WeakValueDictionary[tuple[Any, ...], Session] = weakref.WeakValueDictionary()


_opening = threading.Lock()


def open_session(path: Path, device: str, precision: str, max_memory: int | None = None) -> Session:
    """The session for a model file and these settings; one for all who ask for the same.

    It lives as long as somebody holds it. A file that has changed gives a new session.

    Args:
        path: a model file of ours, or a checkpoint folder in the authors' layout.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "fp32", "fp16", "bf16" or "auto": fp16 on CUDA; on a CPU with bfloat16
            instructions bf16 for models that lose nothing by it; fp32 else.
        max_memory: MiB that a group's computation may take, about: its networks then work in
            strips. None: half of what is free, on a CPU at most 2048.

    Raises:
        ValueError: an unknown device or precision, max_memory out of range, or a checkpoint that
            does not load.
        OSError: the file is missing or cannot be read.
        RuntimeError: the device is absent, CuPy is absent for a CUDA device, or out of memory.
    """
    on = resolve_device(device)
    if precision not in ("auto", *PRECISIONS):
        names = ", ".join(["auto", *PRECISIONS])
        raise ValueError(f"precision must be one of {names}, got {shown(repr(precision))}")
    least, most = MAX_MEMORY_RANGE
    if max_memory is not None and not least <= max_memory <= most:
        raise ValueError(f"max_memory must be {least} to {most} MiB, got {max_memory}")
    if not path.exists():
        raise FileNotFoundError(f"model {path} does not exist")
    path = path.resolve()
    key = (path, _stamp(path), on, precision, max_memory)
    with _opening:
        session = _sessions.get(key)
        if session is None:
            session = _sessions[key] = Session(path, on, precision, max_memory)
    return session


def find_open(wanted: Callable[[str], bool]) -> Path | None:
    """The file of an open session whose weights' checksum is wanted."""
    with _opening:
        return next((s.path for s in _sessions.values() if wanted(s.checksum)), None)


def _stamp(path: Path) -> tuple[tuple[int, int], ...]:
    """Changes when a model file, or a file of a model folder, changes. Raises OSError."""
    files = sorted(path.glob("*/*.*")) if path.is_dir() else [path]
    return tuple((s.st_mtime_ns, s.st_size) for s in (file.stat() for file in files))
