"""Tables, files and the options that the evaluation scripts have in common."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vs_cvrs.carrier.lossless import DEPTHS
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.evaluation.scoring import Scores, average
from vs_cvrs.model.refine import MAX_REFINE

__all__ = [
    "MAX_FACTOR",
    "MAX_WINDOW",
    "PAPER",
    "Bits",
    "DataPath",
    "Device",
    "JsonPath",
    "OutputPath",
    "PaperRow",
    "Refine",
    "ScaleFactor",
    "TimeFactor",
    "Weight",
    "check_bits",
    "check_window",
    "command",
    "describe_device",
    "describe_machine",
    "parse_factor",
    "progress_bar",
    "scores_table",
    "table_console",
    "write_json",
]

MAX_FACTOR = 64
"""Largest time or space factor that the scripts take."""

MAX_WINDOW = 128
"""Longest window in high-rate frames; a group is held in memory as a whole."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the tables in Zhang & Chen, CVPR 2025: PSNR in dB and SSIM, RGB and Y."""

    name: str
    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float
    ssim_y: float


PAPER: dict[tuple[Fraction, Fraction], tuple[PaperRow, ...]] = {
    (Fraction(2), Fraction(1)): (
        PaperRow("CVRS paper, Vimeo-90K", 48.03, 0.9949, 50.52, 0.9976),
        PaperRow("CVRS paper, Vid4", 43.75, 0.9955, 46.77, 0.9974),
    ),
    (Fraction(2), Fraction(4)): (
        PaperRow("CVRS paper, Vimeo-90K", 37.78, 0.9624, 40.57, 0.9770),
        PaperRow("CVRS paper, Vid4", 30.71, 0.9336, 32.76, 0.9488),
    ),
}
"""The paper's results by time and space factor."""


DataPath = Annotated[
    Path,
    typer.Option(help="One folder of PNG frames per scene, at any depth, or one scene's folder."),
]
OutputPath = Annotated[
    Path, typer.Option(help="Where low-rate and restored frames go as PNG files.")
]
Weight = Annotated[
    str,
    typer.Option(
        metavar="NAME_OR_PATH",
        help="A bundled model, a .safetensors file, or a folder in the layout of the paper's "
        "release; auto: the bundled model for the factors.",
    ),
]
TimeFactor = Annotated[
    str, typer.Option(metavar="N", help="High rate over low rate: 2, 1.25, 5/4.")
]
ScaleFactor = Annotated[str, typer.Option(metavar="N", help="High size over low size: 1, 2.4, 4.")]
Bits = Annotated[int, typer.Option(help="Bits of the samples of low-rate frames: 8 or 10.")]
Refine = Annotated[
    int, typer.Option(help="Steps that make low-rate frames better.", min=0, max=MAX_REFINE)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
JsonPath = Annotated[Path | None, typer.Option("--json", help="Write the results there too.")]


@contextmanager
def command(name: str) -> Iterator[None]:
    """Turn what a user can put right into one sentence on standard error and exit code 2."""
    try:
        yield
    except (EvaluationError, OSError) as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(2) from error


def parse_factor(option: str, text: str) -> Fraction:
    """A time or space factor from "2", "2.4" or "5/4".

    Raises:
        EvaluationError: it is no number from 1 to 64.
    """
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if not 1 <= value <= MAX_FACTOR:
        raise EvaluationError(f"{option} must be a number from 1 to {MAX_FACTOR}, got {text}")
    return value


def check_bits(bits: int) -> int:
    """The ``--bits`` option, as it is.

    Raises:
        EvaluationError: it is not one of `DEPTHS`.
    """
    if bits not in DEPTHS:
        raise EvaluationError(f"--bits must be {' or '.join(map(str, DEPTHS))}, got {bits}")
    return bits


def check_window(window: int) -> int:
    """The ``--window`` option, as it is.

    Raises:
        EvaluationError: it is not 1 to `MAX_WINDOW`.
    """
    if not 1 <= window <= MAX_WINDOW:
        raise EvaluationError(f"--window must be 1 to {MAX_WINDOW} frames, got {window}")
    return window


def describe_device(device: torch.device) -> str:
    """The device, with its product name where it is a GPU."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def describe_machine() -> str:
    """The processor's name where the system tells it, and how many threads are used."""
    name = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [row for row in info.read_text().splitlines() if row.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def progress_bar() -> Progress:
    """A bar that counts frames, on standard error."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("frames"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def table_console() -> Console:
    """Standard output, wide enough for a table where it is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def scores_table(
    title: str,
    rows: Mapping[str, Scores],
    paper: Sequence[PaperRow] = (),
    floors: Mapping[str, float] | None = None,
) -> Table:
    """Scores by scene, their mean, and the paper's rows below.

    ``floors`` (`blend_floor` by scene) adds a column beside the clip PSNR.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("scene", no_wrap=True)
    headings = ["RGB PSNR/SSIM", "Y PSNR/SSIM", "clip RGB"]
    headings += [] if floors is None else ["(blended)"]
    headings += ["even RGB", "odd RGB", "odd Y", "low RGB PSNR/SSIM", "frames", "s"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)

    def add(name: str, row: Scores, floor: float | None, *, end_section: bool = False) -> None:
        table.add_row(
            name,
            _pair(row.psnr_rgb, row.ssim_rgb),
            _pair(row.psnr_y, row.ssim_y),
            _decibels(row.clip_psnr_rgb),
            *([] if floor is None else [_decibels(floor)]),
            *map(_decibels, (row.even_psnr_rgb, row.odd_psnr_rgb, row.odd_psnr_y)),
            _pair(row.lr_psnr_rgb, row.lr_ssim_rgb),
            str(row.frames),
            f"{row.seconds:.1f}",
            end_section=end_section,
        )

    for i, (name, row) in enumerate(rows.items()):
        add(name, row, floors[name] if floors else None, end_section=i == len(rows) - 1)
    mean_floor = sum(floors.values()) / len(floors) if floors else None
    add("mean", average(rows.values()), mean_floor, end_section=True)
    for published in paper:
        table.add_row(
            published.name,
            _pair(published.psnr_rgb, published.ssim_rgb),
            _pair(published.psnr_y, published.ssim_y),
        )
    return table


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write results, indented, with folders made as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _pair(psnr: float, ssim: float) -> str:
    return f"{psnr:.2f}/{ssim:.4f}"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
