from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import clips
import doubles
import numpy as np
import pytest
import torch
import watched
from conftest import TINY_CONV

from vs_cvrs.checkpoints import zoo
from vs_cvrs.runtime import devices, memory
from vs_cvrs.runtime import session as session_module
from vs_cvrs.runtime.devices import resolve_device
from vs_cvrs.runtime.session import Session, find_open, open_session
from vs_cvrs.runtime.transfer import CpuTransfer, open_transfer

SetHook = Callable[[Callable[[str], None]], None]


@pytest.fixture
def session(nearest_model: Path) -> Session:
    return open_session(nearest_model, "cpu", "auto")


def shown(high: clips.Array) -> clips.Array:
    """The low-rate frames that the nearest model makes of pairs of 8-bit frames."""
    return 255 - high[1::2]


def test_encode_and_decode_8_bit(session: Session) -> None:
    high = clips.pictures(8)
    low = np.empty((4, *high.shape[1:]), np.uint8)
    session.encode(high, low)
    np.testing.assert_array_equal(low, shown(high))
    restored = np.empty_like(high)
    session.decode(low, restored)
    np.testing.assert_array_equal(restored, np.repeat(high[1::2], 2, axis=0))


@pytest.mark.parametrize(
    ("dtype", "bits", "top"),
    [(np.uint16, 10, 1023), (np.uint16, 16, 65535), (np.float16, 16, 1), (np.float32, 32, 1)],
)
def test_other_sample_types(session: Session, dtype: Any, bits: int, top: int) -> None:
    eight = clips.pictures(4)
    exact = eight / 255 * top
    high = (np.round(exact) if top > 1 else exact).astype(dtype)
    low8 = np.empty((2, *high.shape[1:]), np.uint8)
    session.encode(high, low8, bits)
    np.testing.assert_array_equal(low8, shown(eight))
    # The same low-rate frames in this type: rounded to 8-bit levels, they restore the same.
    low = (np.round(low8 / 255 * top) if top > 1 else low8 / 255 * top).astype(dtype)
    restored = np.empty_like(high)
    session.decode(low, restored, bits)
    wanted = np.repeat(high[1::2], 2, axis=0)
    if top > 1:
        np.testing.assert_array_equal(restored, wanted)
    else:
        np.testing.assert_allclose(restored, wanted, atol=1e-3 if bits == 16 else 1e-6)


def test_black_and_white_can_be_moved_inwards(session: Session) -> None:
    high = np.array([0, 255, 51, 0], np.uint8).reshape(1, 1, 2, 2).repeat(3, 1).repeat(4, 0)
    low = np.empty((2, 3, 2, 2), np.uint8)
    session.encode(high, low, span=(55, 205))
    np.testing.assert_array_equal(255 - low[0, 0], [[55, 205], [85, 55]])
    restored = np.empty_like(high)
    session.decode(low, restored, span=(55, 205))
    np.testing.assert_array_equal(restored, high)
    beyond = np.full((2, 3, 2, 2), 255, np.uint8)  # the negative of black
    deep = np.empty((4, 3, 2, 2), np.float32)
    session.decode(beyond, deep, span=(55, 205))
    assert deep.max() == deep.min() == 0.0


def test_integers_are_rounded_and_clamped() -> None:
    x = torch.tensor([-0.2, 0.4980, 0.4981, 1.3]).reshape(1, 1, 1, 1, 4).expand(1, 3, 1, 1, 4)
    made = session_module._from_model(x, np.dtype(np.uint8), 8)
    assert made[0, 0, 0].tolist() == [0, 127, 127, 255]


def test_cpu_transfer_shares_memory() -> None:
    transfer = open_transfer(torch.device("cpu"))
    assert isinstance(transfer, CpuTransfer)
    frames = transfer.allocate(24).reshape(2, 3, 2, 2)
    tensor = transfer.load(frames)
    frames[1, 2, 1, 0] = 77
    assert tensor[1, 2, 1, 0] == 77


def test_sessions_are_shared_and_released(save_model: Callable[..., Path]) -> None:
    path = save_model("conv", TINY_CONV, seed=77)  # no other test's filters hold its sessions
    before = set(threading.enumerate())
    first = open_session(path, "cpu", "fp32")
    if not torch.cuda.is_available():
        assert open_session(path, "auto", "fp32") is first
    assert open_session(path, "cpu", "fp32", 512) is not first
    assert open_session(path, "cpu", "bf16") is not first
    assert find_open(first.checksum.__eq__) == path
    threads = set(threading.enumerate()) - before
    assert {t.name.rsplit("_")[0] for t in threads} == {"cvrs-session"}
    del first
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert not [s for s in session_module._sessions.values() if s.path == path]


def test_a_changed_file_is_a_new_session(save_model: Callable[..., Path]) -> None:
    path = save_model("nearest", {})
    first = open_session(path, "cpu", "auto")
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert open_session(path, "cpu", "auto") is not first


def test_reduced_precision_spares_the_imsm(nearest_model: Path, before_stage: SetHook) -> None:
    seen: dict[str, bool] = {}
    before_stage(lambda stage: seen.update({stage: torch.is_autocast_enabled("cpu")}))
    session = open_session(nearest_model, "cpu", "bf16")
    high = clips.pictures(4)
    low = np.empty((2, *high.shape[1:]), np.uint8)
    session.encode(high, low)
    session.decode(low, high)
    assert seen == {"downsample": True, "embed": False, "extract": False, "upsample": True}


def test_one_group_at_a_time_from_many_threads(session: Session) -> None:
    def work(seed: int) -> bool:
        high = clips.pictures(8, seed=seed)
        low = np.empty((4, *high.shape[1:]), np.uint8)
        session.encode(high, low)
        return bool((low == shown(high)).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried"),
            "out of memory on cpu for a group of",
        ),
        (MemoryError(), "out of memory on cpu for a group of 8 frames of 32x24: use a smaller gop"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "use a smaller gop or smaller",
        ),
        (RuntimeError("something else"), "something else"),
    ],
)
def test_a_failure_is_told_and_forgotten(
    session: Session, before_stage: SetHook, error: Exception, message: str
) -> None:
    def fail(stage: str) -> None:
        raise error

    high = clips.pictures(8)
    low = np.empty((4, *high.shape[1:]), np.uint8)
    before_stage(fail)
    with pytest.raises(RuntimeError, match=message):
        session.encode(high, low)
    before_stage(lambda stage: None)
    session.encode(high, low)
    np.testing.assert_array_equal(low, shown(high))


def test_numbers_that_are_not_finite_are_an_error(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    high = clips.pictures(2)
    low = np.empty((1, *high.shape[1:]), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(session.model, "embed", lambda latent: latent * float("nan"))
        with pytest.raises(RuntimeError, match="numbers that are not finite"):
            session.encode(high, low)
    session.encode(high, low)
    np.testing.assert_array_equal(low, shown(high))


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cpu:0", "", "cuda:-1"])
def test_unknown_devices(device: str) -> None:
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or cuda:N, got"):
        resolve_device(device)


def test_cuda_asked_for_and_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="device cuda:1 is asked for, but PyTorch finds no CUDA"):
        resolve_device("cuda:1")
    assert resolve_device("auto") == torch.device("cpu")


def test_cuda_without_cupy(monkeypatch: pytest.MonkeyPatch, nearest_model: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"but CuPy is absent: .*pip install cupy-cuda1\dx"):
        open_session(nearest_model, "cuda", "auto")
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(RuntimeError, match="there are only cuda:0 to 0"):
        resolve_device("cuda:1")


def test_bad_precision_and_missing_file(nearest_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="precision must be one of auto, fp32, fp16, bf16, got"):
        open_session(nearest_model, "cpu", "fp8")
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors does not exist"):
        open_session(tmp_path / "gone.safetensors", "cpu", "auto")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float16, np.float32])
def test_cuda_transfer_moves_frames_unchanged(dtype: Any) -> None:
    transfer = open_transfer(torch.device("cuda", 0))
    size = 4 * 3 * 24 * 32 * np.dtype(dtype).itemsize
    source, target = (transfer.allocate(size).view(dtype).reshape(4, 3, 24, 32) for _ in range(2))
    source[:] = clips.pictures(4)
    for _ in range(3):
        on_device = transfer.load(source)
        assert on_device.is_cuda
        assert on_device.element_size() == np.dtype(dtype).itemsize
        transfer.store(on_device, target).wait()
        np.testing.assert_array_equal(target, source)
        source[:] = source[::-1].copy()


class SlowStored:
    """A copy that takes a while, as on a device that works by itself."""

    def __init__(self, frames: torch.Tensor, target: clips.Array, seconds: float) -> None:
        self.arrived = threading.Event()

        def copy() -> None:
            time.sleep(seconds)
            torch.from_numpy(target).copy_(frames)
            self.arrived.set()

        threading.Thread(target=copy).start()

    def wait(self) -> None:
        assert self.arrived.wait(30)


class SlowTransfer(CpuTransfer):
    """Counts the groups that are under way, and how many of them began before another arrived."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.loaded = self.stored = self.most = 0

    def load(self, frames: Any) -> torch.Tensor:
        with self.lock:
            self.loaded += 1
            self.most = max(self.most, self.loaded - self.stored)
        return super().load(frames).clone()

    def store(self, frames: torch.Tensor, target: Any) -> SlowStored:
        stored = SlowStored(frames, target, 0.05)
        wait = stored.wait

        def counted() -> None:
            wait()
            if target.size > 1:
                with self.lock:
                    self.stored += 1

        stored.wait = counted  # type: ignore[method-assign]
        return stored


def test_the_next_group_comes_while_one_goes(
    nearest_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowTransfer()
    monkeypatch.setattr(session_module, "open_transfer", lambda device: slow)
    session = Session(nearest_model, torch.device("cpu"), "fp32", None)
    groups = [clips.pictures(8, seed=seed) for seed in range(12)]

    def encode(high: clips.Array) -> clips.Array:
        low = np.zeros((4, *high.shape[1:]), np.uint8)
        session.encode(high, low)
        return low

    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(encode, groups))
    for high, low in zip(groups, made, strict=True):
        np.testing.assert_array_equal(low, shown(high))
    assert slow.most == 2
    assert slow.stored == slow.loaded == 12


@pytest.mark.gpu
def test_cuda_group_buffers_are_pinned() -> None:
    transfer = open_transfer(torch.device("cuda", 0))
    assert torch.from_numpy(transfer.allocate(4096)).is_pinned()


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0), ("fp16", 2), ("bf16", 8)])
def test_cuda_gives_what_the_cpu_gives(conv_model: Path, precision: str, tolerance: int) -> None:
    cpu = open_session(conv_model, "cpu", "fp32")
    cuda = open_session(conv_model, "cuda", precision)
    high = clips.pictures(8)
    low_cpu, low_cuda = (np.empty((4, *high.shape[1:]), np.uint8) for _ in range(2))
    cpu.encode(high, low_cpu)
    cuda.encode(high, low_cuda)
    difference = np.abs(low_cpu.astype(int) - low_cuda)
    assert difference.max() <= tolerance + 1
    assert (difference > tolerance).mean() < 1e-3  # a rounding may fall to the other side
    again = np.empty_like(low_cuda)
    cuda.encode(high, again)
    np.testing.assert_array_equal(again, low_cuda)


@pytest.mark.parametrize("max_memory", [0, 63, 2**20 + 1])
def test_max_memory_out_of_range(nearest_model: Path, max_memory: int) -> None:
    message = f"max_memory must be 64 to 1048576 MiB, got {max_memory}"
    with pytest.raises(ValueError, match=message):
        open_session(nearest_model, "cpu", "fp32", max_memory)


def test_max_memory_changes_nothing_but_memory() -> None:
    model = zoo.resolve("lite", Fraction(2), Fraction(1))
    high = clips.pictures(8, width=352, height=288)
    made = []
    held = []
    for max_memory in (64, None):
        session = open_session(model, "cpu", "fp32", max_memory)
        with_hook = session.model.get_submodule("up.last")
        handle = with_hook.register_forward_hook(lambda _, x, __: held.append(x[0].numel()))
        low, restored = np.empty((4, 3, 288, 352), np.uint8), np.empty_like(high)
        session.encode(high, low)
        session.decode(low, restored)
        handle.remove()
        made.append((low, restored))
    for bounded, free in zip(*made, strict=True):
        assert np.abs(bounded.astype(int) - free).max() <= 1  # float32 rounding at a half
        assert (bounded != free).mean() < 1e-4
    assert len(held) > 2
    assert max(held[:-1]) < held[-1]


@pytest.mark.parametrize("takes", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_automatic_precision_on_cpus(
    save_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, takes: bool, fast: bool
) -> None:
    path = save_model("nearest", {})
    monkeypatch.setattr(doubles.NearestModel, "takes_bfloat16", takes)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    session = open_session(path, "cpu", "auto")
    assert session.model.convolution_dtype is (torch.bfloat16 if takes and fast else None)


@pytest.mark.parametrize("takes", [False, True])
def test_tf32_only_beside_networks_of_reduced_precision(
    save_model: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, takes: bool
) -> None:
    monkeypatch.setattr(doubles.NearestModel, "takes_tf32", takes)
    path = save_model("nearest", {})
    for precision, expected in {"fp32": False, "fp16": takes, "bf16": takes}.items():
        assert devices.takes_tf32(open_session(path, "cpu", precision).model) is expected


def test_settings_of_cuda_hold_in_each_session_and_end_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    both_began = threading.Barrier(2)

    def settings() -> tuple[bool, bool]:
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32

    def compute(tf32: bool) -> list[tuple[bool, bool]]:
        seen = []
        both_began.wait(30)
        for _ in range(50):
            with (
                contextlib.suppress(RuntimeError),
                devices.device_context(torch.device("cuda", 0), tf32),
            ):
                seen.append(settings())
                time.sleep(0)
                seen.append(settings())
                raise RuntimeError("out of memory")
        return seen

    before = settings()
    with ThreadPoolExecutor(2) as pool:
        with_tf32, exact = (pool.submit(compute, tf32) for tf32 in (True, False))
        assert set(with_tf32.result()) == {(True, True)}
        assert set(exact.result()) == {(False, False)}
    assert settings() == before


@pytest.mark.parametrize(
    ("folder", "limit", "taken", "cached"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_container_may_have_less_memory_than_the_system(
    folder: str, limit: str, taken: str, cached: str, tmp_path: Path
) -> None:
    assert memory._free_of_container(tmp_path) == []
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / limit).write_text("1000\n")
    (group / taken).write_text("700\n")
    (group / "memory.stat").write_text(f"anon 1\n{cached} 200\nactive_file 5\n")
    assert memory._free_of_container(tmp_path) == [500]
    (group / taken).write_text("1300\n")
    assert memory._free_of_container(tmp_path) == [0]
    (group / limit).write_text("max\n")
    assert memory._free_of_container(tmp_path) == []


def test_default_memory_is_half_of_what_is_free(
    nearest_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: "MemTotal: 9 kB\nMemAvailable: 921600 kB\n")
    assert memory.default_memory(torch.device("cpu")) == 450
    monkeypatch.setattr(Path, "read_text", lambda path: "MemAvailable: 99999999 kB\n")
    assert memory.default_memory(torch.device("cpu")) == 2048
    monkeypatch.setattr(Path, "read_text", lambda path: "")
    assert 64 <= memory.default_memory(torch.device("cpu")) <= 2048


# Not ru_maxrss: a process begins with that of the one that started it.
_PEAK = """
import re, sys
from pathlib import Path
import numpy as np
from vs_cvrs.checkpoints import zoo
from vs_cvrs.runtime.session import open_session
session = open_session(zoo.resolve("lite", 2, 1), "cpu", "fp32", int(sys.argv[1]))
high, low = np.zeros((8, 3, 720, 1280), np.uint8), np.zeros((4, 3, 720, 1280), np.uint8)
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
session.encode(high, low)
print((peak() - before) >> 10)
"""


def test_max_memory_lowers_the_peak() -> None:
    def grown(max_memory: int) -> int:
        """MiB that a group took."""
        command = [sys.executable, "-c", _PEAK, str(max_memory)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
        return int(done.stdout)

    bounded, free = grown(256), grown(4096)
    assert bounded < 0.8 * free
    assert bounded < 256 + 300  # the frames take 265 MiB


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_script_that_asks_for_a_gpu_where_there_is_none(
    write_script: Callable[[str], Path], vapoursynth_env: dict[str, str]
) -> None:
    """The filter before it works on the CPU; the one that cannot be made says why."""
    script = write_script(
        "clip = clip_of(pictures(8))\n"
        "low = vs.core.cvrs.Downsample(clip, fps=15, device='cpu')\n"
        "vs.core.cvrs.Upsample(low, device='cuda:0').set_output()"
    )
    code, _, log = watched.run(["vspipe", "--info", str(script), "-"], vapoursynth_env)
    assert code != 0
    said = "Upsample: device cuda:0 is asked for, but PyTorch finds no CUDA device here"
    assert said in log
