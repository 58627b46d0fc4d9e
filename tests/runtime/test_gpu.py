"""What only a GPU can show: which copies are made, what comes back, and what is held.

The name of the device can be set to cpu, to try most of this without one.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import watched
from clips import Array, panned
from torch.profiler import ProfilerActivity, profile

from vs_cvrs.checkpoints import zoo
from vs_cvrs.runtime.session import Session, open_session
from vs_cvrs.timeline import low_size

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("CVRS_GPU_TESTS_ON", "cuda")
WIDTH, HEIGHT = 128, 96

# Model, high-rate and low-rate frames of a group, space factor.
CASES = {
    "lite": ("lite", 8, 4, 1),
    # Of four frames of 8 bits a group would be as large as one frame of floats.
    "lite-any, time 2x, space 2x": ("lite-any", 6, 3, 2),
    "lite-any, space 2x": ("lite-any", 3, 3, 2),
    "lite-any, time 5/4x": ("lite-any", 5, 4, 1),
    "robust": ("robust", 8, 4, 1),
}
every_case = pytest.mark.parametrize("case", CASES)


def opened(case: str, device: str, precision: str = "auto") -> Session:
    name = CASES[case][0]
    return open_session(zoo.resolve(name, Fraction(2), Fraction(1)), device, precision)


def sizes(case: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of a group's high-rate and low-rate frames."""
    _, high, low, scale = CASES[case]
    side = Fraction(scale)
    return (high, 3, HEIGHT, WIDTH), (low, 3, low_size(HEIGHT, side), low_size(WIDTH, side))


def footage(frames: int) -> Array:
    """Waves that a camera passes, with grain that stays where it is in the picture."""
    grain = np.random.default_rng(3).normal(0, 3, (3, HEIGHT + frames, WIDTH + 2 * frames))
    moved = [
        grain[:, frames - n : frames - n + HEIGHT, 2 * (frames - n) :][..., :WIDTH]
        for n in range(frames)
    ]
    mixed: Array = np.clip(panned(frames, WIDTH, HEIGHT) + np.stack(moved), 0, 255)
    return np.round(mixed).astype(np.uint8)


def psnr(made: Array, wanted: Array) -> float:
    error = np.square(made.astype(float) - wanted).mean()
    return float(10 * np.log10(255**2 / error))


def copies(work: Callable[[], None], folder: Path) -> list[tuple[str, int]]:
    """The copies that a device made: names such as "Memcpy HtoD (Pinned -> Device)", and bytes."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        work()
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(folder / "trace.json"))
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    return [
        (event["name"], int(event["args"]["bytes"]))
        for event in events
        if event.get("cat") == "gpu_memcpy"
    ]


@pytest.mark.parametrize("way", ["encode", "decode"])
@every_case
def test_a_group_crosses_the_bus_once_each_way(case: str, way: str, tmp_path: Path) -> None:
    session = opened(case, DEVICE)
    high, low = (session.allocate(int(np.prod(shape))).reshape(shape) for shape in sizes(case))
    high[:] = footage(high.shape[0])
    session.encode(high, low)
    source, target = (high, low) if way == "encode" else (low, high)
    work = functools.partial(getattr(session, way), source, target)
    for _ in range(2):  # constants are made, memory is taken
        work()
    found = copies(work, tmp_path)
    assert [size for name, size in found if "HtoD" in name] == [source.nbytes], found
    assert sorted(size for name, size in found if "DtoH" in name) == [1, target.nbytes], found
    assert not [name for name, _ in found if "Pageable" in name], found
    for name, size in found:
        if "HtoD" in name:
            assert name == "Memcpy HtoD (Pinned -> Device)"
        if "DtoH" in name:
            assert name == "Memcpy DtoH (Device -> Pinned)"
        # A group as it is stored, or as float32.
        if "DtoD" in name:
            assert size not in {n * frames.nbytes for n in (1, 4) for frames in (high, low)}, found


def restored(case: str, sender: Session, receiver: Session) -> float:
    """PSNR of what comes back."""
    high_shape, low_shape = sizes(case)
    high, low = footage(high_shape[0]), np.empty(low_shape, np.uint8)
    back = np.empty(high_shape, np.uint8)
    sender.encode(high, low)
    receiver.decode(low, back)
    return psnr(back, high)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_case
def test_sender_and_receiver_may_have_different_devices(case: str, precision: str) -> None:
    cpu, gpu = opened(case, "cpu", precision), opened(case, DEVICE)
    wanted = restored(case, cpu, cpu)
    assert wanted > 30
    for sender, receiver in ((cpu, gpu), (gpu, cpu), (gpu, gpu)):
        assert restored(case, sender, receiver) > wanted - 0.05


def test_auto_takes_the_gpu() -> None:
    session = opened("lite", "auto")
    assert session.device == torch.device("cuda", 0)
    assert session.model.convolution_dtype is torch.float16
    assert next(session.model.parameters()).is_cuda


PIPE = """
clip = clip_of(panned(48, 128, 96))
low = core.cvrs.Downsample(clip, fps=15, device={down!r})
core.cvrs.Upsample(low, device={up!r}).set_output()
"""


@pytest.mark.parametrize(("down", "up"), [(DEVICE, DEVICE), (DEVICE, "cpu"), ("cpu", DEVICE)])
def test_filters_under_vspipe(
    down: str, up: str, write_script: Callable[[str], Path], vapoursynth_env: dict[str, str]
) -> None:
    script = write_script(PIPE.format(down=down, up=up))
    code, raw, log = watched.run(["vspipe", str(script), "-"], vapoursynth_env, 45)
    assert code == 0, log
    made = np.frombuffer(raw, np.uint8).reshape(48, 3, 96, 128)[:, [2, 0, 1]]
    assert psnr(made, panned(48, 128, 96)) > 40


HELD = """
import json, re, torch
clip = clip_of(panned(8, 128, 96)).std.Loop(60)
low = core.cvrs.Downsample(clip, fps=15, device={device!r})
high = core.cvrs.Upsample(low, device={device!r})
def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1]) << 10
def held():
    if {device!r} == "cpu":
        return [0, 0, resident()]
    import cupy
    pool = cupy.get_default_memory_pool()
    return [torch.cuda.memory_reserved(), pool.total_bytes(), resident()]
found = []
for n, frame in enumerate(high.frames(close=True), 1):
    if n in (160, 480):
        found.append(held())
print(json.dumps(found))
"""


def test_memory_is_flat_over_sixty_groups(run_python: Callable[[str], str]) -> None:
    early, late = json.loads(run_python(HELD.format(device=DEVICE)))
    assert late[0] - early[0] <= 4 << 20  # of PyTorch's on the device
    assert late[1] - early[1] <= 1 << 20  # of CuPy's there
    assert late[2] - early[2] < 24 << 20  # of the process


SHORT = """
import torch
clip = clip_of(panned(8, 640, 480))
low = core.cvrs.Downsample(clip, fps=15, device={device!r})
torch.cuda.empty_cache()
torch.cuda.set_per_process_memory_fraction(1e-4)
try:
    low.get_frame(0)
except vs.Error as error:
    print(error)
torch.cuda.set_per_process_memory_fraction(1.0)
print(low.get_frame(0).width)
"""


def test_memory_that_runs_out_is_said_and_forgotten(run_python: Callable[[str], str]) -> None:
    said, width = run_python(SHORT.format(device=DEVICE)).splitlines()
    assert "Downsample: out of memory on cuda:0 for a group of 8 frames of 640x480: use a" in said
    assert 'or precision="fp16", or device="cpu"' in said
    assert width == "640"


def test_a_session_goes_on_after_memory_ran_out() -> None:
    session = opened("lite", DEVICE)
    high, low = footage(8), np.empty((4, 3, HEIGHT, WIDTH), np.uint8)
    session.encode(high, low)
    wanted = low.copy()
    large = np.zeros((8, 3, 720, 1280), np.uint8)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**26) / total)
    try:
        with pytest.raises(RuntimeError, match="out of memory on cuda:0 for a group of 8 frames"):
            session.encode(large, np.empty((4, 3, 720, 1280), np.uint8))
        low[:] = 0
        session.encode(high, low)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    np.testing.assert_array_equal(low, wanted)
