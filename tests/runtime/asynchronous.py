"""A stand-in for CuPy whose copies are done as late as a device may do them, and which keeps a log.

Every copy waits in its stream until something that CUDA promises makes it happen: an event or a
stream that is synchronized, or another stream that waits for this one (the DLPack exchange). Memory
is watched: what a waiting copy reads or writes must not be freed before it was done. PyTorch
computes at once, on the CPU.
"""

from __future__ import annotations

import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

POISON = 0xA5


class FakeDevice:
    """All that the stand-in knows of a device.

    Attributes:
        log: what happened, in order.
        violations: memory that was freed while a copy was under way.
        fail: raise where this returns True; called with what is about to be done.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.violations: list[str] = []
        self.fail: Callable[[str], bool] = lambda what: False
        self.waiting: Callable[[], None] = lambda: None
        self.streams: list[Stream] = []
        self.current: list[Stream] = []
        self.lock = threading.RLock()

    def cupy(self) -> types.SimpleNamespace:
        cuda = types.SimpleNamespace(
            Device=lambda index: Device(self, index),
            Stream=lambda non_blocking: Stream(self, non_blocking),
            Event=lambda block, disable_timing: Event(self),
        )
        pool = types.SimpleNamespace(free_all_blocks=self.free_all_blocks)
        return types.SimpleNamespace(
            cuda=cuda,
            empty=self.empty,
            from_dlpack=self.from_torch,
            get_default_memory_pool=lambda: pool,
        )

    def cupyx(self) -> types.SimpleNamespace:
        return types.SimpleNamespace(empty_pinned=self.empty_pinned)

    def say(self, what: str) -> None:
        with self.lock:
            if self.fail(what):
                raise MemoryError(f"failed: {what}")
            self.log.append(what)

    def free_all_blocks(self, stream: Stream | None = None) -> None:
        self.say("free_all_blocks" + ("" if stream is None else f" of stream {stream.number}"))

    def empty_pinned(self, size: int, dtype: Any) -> np.ndarray[Any, Any]:
        memory = np.full(size, POISON, dtype)
        self.watch(memory, "host memory")
        return memory

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        memory = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, POISON, np.uint8)
        self.watch(memory, "device memory")
        return Array(self, memory.view(dtype).reshape(shape))

    def from_torch(self, tensor: torch.Tensor) -> Array:
        """cupy.from_dlpack: CuPy's current stream waits for PyTorch's, which is done at once."""
        self.say(f"stream {self.current[-1].number} waits for PyTorch")
        memory = tensor.numpy()
        self.watch(memory, "PyTorch's memory")
        return Array(self, memory)

    def to_torch(self, array: Array) -> torch.Tensor:
        """torch's from_dlpack: PyTorch's stream waits for CuPy's current one."""
        stream = self.current[-1]
        self.say(f"PyTorch waits for stream {stream.number}")
        stream.catch_up()
        return torch.from_numpy(array.memory)

    def watch(self, memory: np.ndarray[Any, Any], what: str) -> None:
        key = id(memory)

        def freed() -> None:
            with self.lock:
                self.log.append(f"{what} freed")
                for stream in self.streams:
                    if any(key in op.touched for op in stream.waiting):
                        self.violations.append(f"{what} freed while a copy was under way")

        weakref.finalize(memory, freed).atexit = False


def root(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array that owns the memory of a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Copy:
    """Holds no memory, as a device does not."""

    def __init__(self, source: np.ndarray[Any, Any], target: np.ndarray[Any, Any]) -> None:
        self.touched = {id(root(source)), id(root(target)), id(source), id(target)}
        self._places = [
            (weakref.ref(root(a)), a.ctypes.data - root(a).ctypes.data, a.nbytes)
            for a in (source, target)
        ]

    def run(self) -> None:
        views = []
        for reference, offset, size in self._places:
            owner = reference()
            if owner is None:
                return  # reported when it was freed
            views.append(owner.reshape(-1).view(np.uint8)[offset : offset + size])
        views[1][:] = views[0]


class Device:
    def __init__(self, fake: FakeDevice, index: int) -> None:
        self._fake = fake

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        self._fake.say("device synchronized")
        for stream in self._fake.streams:
            stream.catch_up()


class Stream:
    def __init__(self, fake: FakeDevice, non_blocking: bool) -> None:
        assert non_blocking  # or the legacy default stream, PyTorch's, would wait for every copy
        self._fake = fake
        self.waiting: list[Copy] = []
        self.number = len(fake.streams)
        fake.streams.append(self)

    def __enter__(self) -> Stream:
        self._fake.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._fake.current.pop()

    def catch_up(self, count: int | None = None) -> None:
        with self._fake.lock:
            for _ in range(len(self.waiting) if count is None else count):
                self.waiting.pop(0).run()


class Event:
    def __init__(self, fake: FakeDevice) -> None:
        self._fake = fake
        self._last: Copy | None = None
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> None:
        self._fake.say(f"event in stream {stream.number}")
        self._stream = stream
        self._last = stream.waiting[-1] if stream.waiting else None

    def synchronize(self) -> None:
        self._fake.waiting()
        with self._fake.lock:
            self._fake.say("event synchronized")
            stream = self._stream
            assert stream is not None
            if self._last in stream.waiting:
                stream.catch_up(stream.waiting.index(self._last) + 1)


class Array:
    def __init__(self, fake: FakeDevice, memory: np.ndarray[Any, Any]) -> None:
        self._fake = fake
        self.memory = memory

    def set(self, arr: np.ndarray[Any, Any], stream: Stream) -> None:
        assert arr.flags.c_contiguous
        assert (arr.shape, arr.dtype) == (self.memory.shape, self.memory.dtype)
        self._fake.say(f"copy to device of {arr.size} in stream {stream.number}")
        stream.waiting.append(Copy(arr, self.memory))

    def get(self, stream: Stream, out: np.ndarray[Any, Any], blocking: bool) -> None:
        assert not blocking
        assert out.flags.c_contiguous
        assert (out.shape, out.dtype) == (self.memory.shape, self.memory.dtype)
        self._fake.say(f"copy to host of {out.size} in stream {stream.number}")
        stream.waiting.append(Copy(self.memory, out))
