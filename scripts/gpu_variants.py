#!/usr/bin/env python3
"""Measure what a GPU makes of a model in variants: speed both ways, and what each costs in quality.

A variant is a precision, a setting of PyTorch or a way of asking for the same: CUDA graphs, several
groups at once. The last row is a session's, with its copies. docs/gpu.md says what was measured so,
and which variant was kept. Leave the machine alone meanwhile.

torch.compile is not among them: it was not done within 40 s in two of its modes. On a CPU only the
variants that need no CUDA are measured, which shows that this script works, and no more.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
import typer
from bench import (
    QUICK_SIZE,
    SIZES,
    ModelsOption,
    QuickOption,
    SizesOption,
    allocate,
    describe_run,
    group_shapes,
    median_seconds,
    parse_models,
    parse_sizes,
)
from rich import box
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from vs_cvrs import metrics
from vs_cvrs.checkpoints import zoo
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.model.base import CvrsModel, Size, round_to_8bit
from vs_cvrs.model.strips import bounded_memory
from vs_cvrs.runtime.devices import cuda_settings
from vs_cvrs.runtime.memory import default_memory, is_out_of_memory
from vs_cvrs.runtime.session import Session, open_session

_ASKING = 2  # threads that ask a session at once: it has as many groups under way
SESSION = "a `Session` with its transfers, two groups under way"


@dataclass(frozen=True)
class Variant:
    """A way to compute a group.

    Attributes:
        label: the row's heading.
        precision: of the networks; None: float32.
        tf32: what is float32 is computed in TF32.
        search: cuDNN searches for its fastest algorithm, and need not find the same every time.
        graphs: each way is recorded as a CUDA graph, and played.
        channels_first: convolutions get tensors in PyTorch's plain layout.
        groups: computed at once.
    """

    label: str
    precision: torch.dtype | None = torch.float16
    tf32: bool = False
    search: bool = False
    graphs: bool = False
    channels_first: bool = False
    groups: int = 1

    @property
    def for_cuda(self) -> bool:
        """Whether it says anything on CUDA alone."""
        return self.tf32 or self.search or self.graphs or self.channels_first

    @contextlib.contextmanager
    def settings(self) -> Iterator[None]:
        """PyTorch's settings for this variant, and at the end those that were there before."""
        convolutions = torch.backends.cudnn.flags(
            enabled=True,
            benchmark=self.search,
            deterministic=not self.search,
            allow_tf32=self.tf32,
        )
        layout = _channels_first() if self.channels_first else contextlib.nullcontext()
        with cuda_settings(self.tf32), convolutions, layout:
            yield


VARIANTS = (
    Variant("float16, the rest float32"),
    Variant("CUDA graphs", graphs=True),
    Variant("cuDNN's search for the fastest (`benchmark`)", search=True),
    Variant("both", graphs=True, search=True),
    Variant("TF32 in the rest", tf32=True),
    Variant("TF32 in the rest, graphs", tf32=True, graphs=True),
    Variant("bfloat16", torch.bfloat16),
    Variant('all in float32 (`precision="fp32"`)', None),
    Variant("all in TF32", None, tf32=True),
    Variant("channels first, not last", channels_first=True),
    *(Variant(f"{n} groups at once", groups=n) for n in (2, 4, 8)),
)


@dataclass
class Row:
    """A variant of a model at a size; what is None did not fit into memory.

    Attributes:
        downsample_fps, upsample_fps: high-rate frames in a second.
        psnr: of all restored frames together, in dB; a session's are rounded to 8 bits.
    """

    model: str
    variant: str
    width: int
    height: int
    downsample_fps: float | None = None
    upsample_fps: float | None = None
    psnr: float | None = None

    @property
    def shown(self) -> str:
        """As the table has it."""
        if self.downsample_fps is None or self.upsample_fps is None:
            return "out of memory"
        return f"{self.downsample_fps:.0f} / {self.upsample_fps:.0f} / {self.psnr:.3f}"


@functools.lru_cache(maxsize=1)
def pictures(count: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """Waves, edges and grain that pan, and a darker square that goes its own way.

    PSNR depends on them: with others it is not that of the tables in docs/gpu.md.
    """
    rng = np.random.default_rng(0)
    wide, high = width + 4 * count, height + 2 * count
    y, x = np.mgrid[0:high, 0:wide].astype(np.float32)
    colour = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
    wave = np.sin(x / 6 + colour) + np.cos(y / 5 + x / 11) + np.sin(x / 23 - y / 17 + 2 * colour)
    edges = 20 * np.sign(np.sin(x / 31 + y / 47))
    scene = 120 + 22 * wave + edges + rng.normal(0, 4, (1, high, wide)).astype(np.float32)
    made = np.empty((count, 3, height, width), np.uint8)
    for n in range(count):
        frame = scene[:, n : n + height, 3 * n : 3 * n + width].copy()
        top, left = height // 3, width // 4 + 5 * n
        frame[:, top : top + height // 4, left : left + width // 5] *= 0.6
        made[n] = np.clip(np.round(frame), 0, 255)
    return made


@contextlib.contextmanager
def _channels_first() -> Iterator[None]:
    plain: Callable[..., Tensor] = functional.conv2d

    def conv2d(x: Tensor, weight: Tensor, *rest: Any, **named: Any) -> Tensor:
        return plain(x.contiguous(), weight.contiguous(), *rest, **named)

    with mock.patch.object(functional, "conv2d", conv2d):
        yield


def recorded(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """``work`` as a CUDA graph; each call plays it again, into the same result."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            work()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    # Sessions have threads of their own, which may use the device as they like.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = work()

    def play() -> Tensor:
        graph.replay()
        return made

    return play


def measure_variant(
    variant: Variant, model: CvrsModel, row: Row, device: torch.device, runs: int
) -> None:
    """Fill in ``row``: medians of ``runs``, with frames that are on the device already."""
    (count, *_), low_shape = group_shapes(model, row.width, row.height)
    high: Size = (count, row.height, row.width)
    low: Size = (low_shape[0], *low_shape[2:])
    frames = torch.from_numpy(pictures(count, row.width, row.height)).to(device)
    clip = frames.transpose(0, 1)[None].float().div_(255.0)
    clip = clip.repeat(variant.groups, 1, 1, 1, 1).contiguous()
    model.convolution_dtype = variant.precision

    def ready(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        return recorded(work) if variant.graphs else work

    with variant.settings():
        encode = ready(lambda: model.encode(clip, low))
        down = median_seconds(encode, device, runs)
        sent = round_to_8bit(encode())
        decode = ready(lambda: model.decode(sent, high))
        up = median_seconds(decode, device, runs)
        error = float((decode() - clip).square().mean()) * 255.0**2
    row.downsample_fps, row.upsample_fps = (variant.groups * count / t for t in (down, up))
    row.psnr = float(metrics.psnr_from_mse(error))


def measure_session(session: Session, row: Row, runs: int) -> None:
    """Fill in ``row``: ``runs`` groups for each thread that asks, from and to host memory."""
    high, low = group_shapes(session.model, row.width, row.height)
    clip = pictures(high[0], row.width, row.height)
    held = [tuple(allocate(session, shape) for shape in (high, low, high)) for _ in range(_ASKING)]
    for source, _, _ in held:
        source[:] = clip

    def fps(work: Callable[..., None]) -> float:
        def repeat(own: tuple[npt.NDArray[np.uint8], ...]) -> None:
            for _ in range(runs):
                work(*own)

        with ThreadPoolExecutor(_ASKING) as pool:
            seconds = median_seconds(lambda: list(pool.map(repeat, held)), session.device, 1)
        return _ASKING * runs * len(clip) / seconds

    row.downsample_fps = fps(lambda source, sent, _: session.encode(source, sent))
    row.upsample_fps = fps(lambda _, sent, back: session.decode(sent, back))
    row.psnr = metrics.clip_psnr(held[0][2], clip)


@contextlib.contextmanager
def _as_memory_allows() -> Iterator[None]:
    """Leave a row as it is where memory runs out."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()


def measure(
    names: Sequence[str], device: torch.device, places: Sequence[tuple[int, int]], runs: int
) -> Iterator[Row]:
    """Measure bundled models in all variants; several groups at once at the first size only.

    Yields:
        rows as they are measured: a GPU may be lent for minutes.

    Raises:
        EvaluationError: a session cannot use the device.
    """
    for name in names:
        path = zoo.resolve(name, Fraction(2), Fraction(1))
        try:
            session = open_session(path, str(device), "auto")
        except RuntimeError as error:
            raise EvaluationError(str(error)) from error
        model = scoring.load_model(name, Fraction(2), Fraction(1), device)
        for width, height in places:
            # Sessions first: whatever is slow once in a process is not a variant's then.
            row = Row(name, SESSION, width, height)
            with _as_memory_allows():
                measure_session(session, row, runs)
            yield row
            for variant in VARIANTS:
                if variant.for_cuda and device.type != "cuda":
                    continue
                if variant.groups > 1 and (width, height) != places[0]:
                    continue
                row = Row(name, variant.label, width, height)
                limit = bounded_memory(default_memory(device) << 20)
                with _as_memory_allows(), torch.inference_mode(), limit:
                    measure_variant(variant, model, row, device, runs)
                yield row


def variant_table(name: str, rows: Sequence[Row]) -> Table:
    """A model's rows as docs/gpu.md has them."""
    sizes = list(dict.fromkeys(f"{row.width}x{row.height}" for row in rows))
    table = Table(box=box.MARKDOWN)
    for heading in (f"`{name}`", *sizes):
        table.add_column(heading, no_wrap=True)
    for label in (*(variant.label for variant in VARIANTS), SESSION):
        found = {f"{row.width}x{row.height}": row.shown for row in rows if row.variant == label}
        if found:
            table.add_row(label, *(found.get(size, "") for size in sizes))
    return table


def main(
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
    sizes: SizesOption = SIZES,
    quick: QuickOption = False,
    models: ModelsOption = "lite,lite-any",
) -> None:
    """Measure models in variants; print frames per second down / up / PSNR of what is restored."""
    with report.command("gpu_variants"):
        places = parse_sizes(QUICK_SIZE if quick else sizes)
        names = parse_models(models)
        place = scoring.open_device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place.index or 0)
        begin = time.monotonic()
        rows = []
        for row in measure(names, place, places, 2 if quick else 20):
            rows.append(row)
            typer.echo(f"{row.model}, {row.width}x{row.height}, {row.variant}: {row.shown}")
        title = describe_run(place)
        typer.echo(title)
        for name in names:
            own = [row for row in rows if row.model == name]
            report.table_console().print(variant_table(name, own))
        typer.echo(f"gpu_variants: took {time.monotonic() - begin:.0f} s")
        if json_path is not None:
            report.write_json(json_path, {"title": title, "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    typer.run(main)
