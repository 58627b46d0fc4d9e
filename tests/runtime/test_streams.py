"""The order of streams, events and lifetimes in the CUDA path, on a stand-in that does all late."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
import torch
from asynchronous import FakeDevice

from vs_cvrs.runtime import session as session_module
from vs_cvrs.runtime import transfer as transfer_module
from vs_cvrs.runtime.session import Session
from vs_cvrs.runtime.transfer import CudaTransfer

HIGH = 4 * 3 * 24 * 32
LOW = HIGH // 2


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    fake = FakeDevice()
    cupyx = fake.cupyx()
    load = importlib.import_module
    monkeypatch.setattr(transfer_module, "_import_cupy", fake.cupy)
    monkeypatch.setattr(
        importlib,
        "import_module",
        lambda name: cupyx if name == "cupyx" else load(name),
    )
    monkeypatch.setattr(transfer_module, "from_dlpack", fake.to_torch)
    monkeypatch.setattr(
        session_module, "open_transfer", lambda device: CudaTransfer(torch.device("cuda", 0))
    )
    return fake


@pytest.fixture
def session(fake: FakeDevice, nearest_model: Path) -> Session:
    return Session(nearest_model, torch.device("cpu"), "fp32", None)


def encode(session: Session, seed: int = 0) -> tuple[clips.Array, clips.Array]:
    """A group through the session, in group buffers of its own."""
    high = session.allocate(HIGH).reshape(4, 3, 24, 32)
    low = session.allocate(LOW).reshape(2, 3, 24, 32)
    high[:] = clips.pictures(4, seed=seed)
    session.encode(high, low)
    return high, low


def test_what_waits_for_what_and_what_is_freed_when(fake: FakeDevice, session: Session) -> None:
    high, low = encode(session)
    np.testing.assert_array_equal(low, 255 - high[1::2])
    gc.collect()
    steps = [line for line in fake.log if line != "host memory freed"]
    assert steps[:4] == [
        f"copy to device of {HIGH} in stream 0",
        "PyTorch waits for stream 0",
        "stream 1 waits for PyTorch",
        "copy to host of 1 in stream 1",
    ]
    assert steps[4:8] == [
        "event in stream 1",
        "stream 1 waits for PyTorch",
        f"copy to host of {LOW} in stream 1",
        "event in stream 1",
    ]
    # What PyTorch made is freed copy by copy; the frames that were loaded, when all have come.
    freed = ["event synchronized", "PyTorch's memory freed"]
    assert steps[8:] == [*freed, *freed, "device memory freed"]
    assert fake.violations == []


def test_two_groups_are_under_way_and_no_third(fake: FakeDevice, session: Session) -> None:
    both, loads = threading.Barrier(2, timeout=30), "copy to device"
    seen: list[int] = []

    def waiting() -> None:
        # Both groups come here before the first of them is waited for.
        if len(seen) < 2:
            seen.append(sum(line.startswith(loads) for line in fake.log))
            both.wait()

    fake.waiting = waiting
    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(lambda seed: encode(session, seed), range(5)))
    for high, low in made:
        np.testing.assert_array_equal(low, 255 - high[1::2])
    assert max(seen) == 2
    assert fake.violations == []


@pytest.mark.parametrize(
    "where",
    [
        "copy to device",
        "PyTorch waits",
        "stream 1 waits",
        f"copy to host of {LOW}",
        "event in stream",
        "event synchronized",
    ],
)
def test_an_error_in_between_leaves_no_copy_under_way(
    where: str, fake: FakeDevice, session: Session
) -> None:
    """Copies that were begun go on: nobody may get their memory before they are done."""
    count = sum(line.startswith(where) for line in log_of_one(fake, session))
    for nth in range(1, count + 1):
        left = [nth]

        def fail(what: str, left: list[int] = left) -> bool:
            left[0] -= what.startswith(where)
            return left[0] == 0 and what.startswith(where)

        fake.fail = fail
        with pytest.raises(RuntimeError, match="out of memory on cpu for a group of 4 frames"):
            encode(session)
        assert not any(stream.waiting for stream in fake.streams)
        fake.fail = lambda what: False
        gc.collect()
        assert fake.violations == []
        high, low = encode(session, nth)
        np.testing.assert_array_equal(low, 255 - high[1::2])


def log_of_one(fake: FakeDevice, session: Session) -> list[str]:
    encode(session)
    log, fake.log = fake.log, []
    return log


def test_an_error_of_the_model_waits_for_what_was_begun(
    fake: FakeDevice, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(session.model, "encode", fail)
    with pytest.raises(RuntimeError, match="broken"):
        encode(session)
    assert "device synchronized" in fake.log
    assert "free_all_blocks" not in fake.log
    assert fake.violations == []


def test_a_session_leaves_nothing_in_the_memory_pool(fake: FakeDevice, nearest_model: Path) -> None:
    session = Session(nearest_model, torch.device("cpu"), "fp32", None)
    encode(session)
    assert not any(line.startswith("free_all_blocks") for line in fake.log)
    del session
    gc.collect()
    assert fake.log[-1] == "free_all_blocks of stream 0"
    assert fake.violations == []


def test_the_stand_in_sees_memory_that_is_freed_too_early(fake: FakeDevice) -> None:
    transfer = CudaTransfer(torch.device("cuda", 0))
    target = transfer.allocate(4)
    stored = transfer.store(torch.arange(4, dtype=torch.uint8), target)
    assert target.tolist() == [0xA5] * 4
    del stored
    assert fake.violations == ["PyTorch's memory freed while a copy was under way"]
    del target
    assert fake.violations[1:] == ["host memory freed while a copy was under way"]


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="no CuPy")
def test_the_real_package_has_every_name_that_is_used() -> None:
    """CuPy imports without a GPU; its compiled functions tell their parameters in their texts."""
    cupy: Any = importlib.import_module("cupy")
    cupyx: Any = importlib.import_module("cupyx")
    assert list(inspect.signature(cupyx.empty_pinned).parameters)[:2] == ["shape", "dtype"]
    said = {
        cupy.ndarray.set: "set(self, arr, stream=None)",
        cupy.ndarray.get: "get(self, stream=None, order='C', out=None, blocking=True)",
        cupy.cuda.Event.record: "record(self, stream=None)",
        cupy.cuda.Event.synchronize: "synchronize(self)",
        cupy.cuda.Device.synchronize: "synchronize(self)",
        cupy.cuda.MemoryPool.free_all_blocks: "free_all_blocks(self, stream=None)",
        cupy.ndarray.__dlpack__: "__dlpack__(self, *, stream=None",
        cupy.from_dlpack: "from_dlpack(array",
    }
    for function, signature in said.items():
        assert signature in (function.__doc__ or ""), function
    assert "non_blocking (bool)" in cupy.cuda.Stream.__doc__
    assert "block (bool)" in cupy.cuda.Event.__doc__
    assert "disable_timing (bool)" in cupy.cuda.Event.__doc__
    for kind in (cupy.cuda.Device, cupy.cuda.Stream):
        assert callable(kind.__enter__)
        assert callable(kind.__exit__)
    assert isinstance(cupy.get_default_memory_pool(), cupy.cuda.MemoryPool)
    assert list(inspect.signature(cupy.empty).parameters)[:2] == ["shape", "dtype"]
