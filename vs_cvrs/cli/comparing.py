"""``vs-cvrs compare``: PSNR and SSIM of every frame of two videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from vs_cvrs import metrics
from vs_cvrs.cli.clips import frame_array, open_video, to_rgb24
from vs_cvrs.cli.folder import check_not_source
from vs_cvrs.cli.options import parse_rate
from vs_cvrs.cli.running import CliError, console, say
from vs_cvrs.cli.times import Times

__all__ = ["Comparison", "compare", "score"]

_WORST = 3


@dataclass(frozen=True)
class Comparison:
    """Figures per frame; ``ssim`` is empty for frames too small for it."""

    psnr: npt.NDArray[np.float64]
    ssim: npt.NDArray[np.float64]
    mse: npt.NDArray[np.float64]

    def worst(self) -> list[int]:
        """Numbers of the frames with the lowest PSNR, the worst first."""
        return [int(n) for n in np.argsort(self.psnr, kind="stable")[:_WORST]]


def compare(first: Path, second: Path, png: Path | None, constant_rate: str | None = None) -> None:
    """Print a table; draw a picture. Frames are compared in their order, whatever their times.

    Raises:
        CliError: a file cannot be read, or the two differ in size or length.
    """
    if png is not None:
        for path in (first, second):
            check_not_source(path, png, "--png")
        _check_picture(png)
    rate = None if constant_rate is None else parse_rate(constant_rate, "--constant-rate")
    videos = (open_video(first, rate), open_video(second, any_times=True))
    clips = [to_rgb24(video.clip)[0] for video in videos]
    a, b = clips
    for what, x, y in (
        ("size", f"{a.width}x{a.height}", f"{b.width}x{b.height}"),
        ("number of frames", a.num_frames, b.num_frames),
    ):
        if x != y:
            raise CliError(f"{first} and {second} differ in their {what}: {x} and {y}")
    result = score(a, b)
    Console().print(_table(result, f"{second.name} against {first.name}"))
    if not videos[0].constant:
        print(_times_off(*(video.times for video in videos)))
    if png is not None:
        _draw(result, clips, [first.name, second.name], png)
        say(f"Drawn: {png}")


def _times_off(first: Times | None, second: Times | None) -> str:
    """How far the times of two videos with as many frames are apart."""
    if first is None or second is None:
        return "the frames of one have no times"
    off = np.abs((second - second[0]) - (first - first[0])).max()
    return f"times of frames differ by at most {1000 * off:.1f} ms"


def score(reference: Any, other: Any) -> Comparison:
    """Compare two RGB24 clips of the same size and length, in 8-bit RGB."""
    psnr: list[float] = []
    ssim: list[float] = []
    mse: list[float] = []
    pairs = zip(reference.frames(close=True), other.frames(close=True), strict=True)
    with_ssim = min(reference.width, reference.height) >= metrics.SSIM_WINDOW
    for x, y in track(pairs, "comparing", reference.num_frames, console=console, transient=True):
        a, b = (frame_array(frame)[None] for frame in (x, y))
        mse += list(metrics.mean_squared_error(b, a))
        psnr += list(metrics.psnr(b, a))
        if with_ssim:
            ssim += list(metrics.ssim(b, a))
    return Comparison(np.array(psnr), np.array(ssim), np.array(mse))


def _table(result: Comparison, title: str) -> Table:
    # A text of its own: in names, "[b]" is no markup and ":x:" no emoji.
    table = Table(title=Text(title, style="table.title"))
    for column in ("frames", "count", "PSNR mean", "lowest", "SSIM mean", "lowest "):
        table.add_column(column, justify="right" if column != "frames" else "left")
    for label, part in {
        "all": slice(None),
        "even": slice(0, None, 2),
        "odd": slice(1, None, 2),
    }.items():
        psnr, ssim = result.psnr[part], result.ssim[part]
        if psnr.size == 0:
            continue
        figures = [f"{psnr.mean():.2f}", f"{psnr.min():.2f}"]
        figures += [f"{ssim.mean():.4f}", f"{ssim.min():.4f}"] if ssim.size else ["", ""]
        table.add_row(label, str(psnr.size), *figures)
    worst = ", ".join(f"{n} ({result.psnr[n]:.2f} dB)" for n in result.worst())
    whole = float(metrics.psnr_from_mse(result.mse.mean()))
    table.caption = f"clip PSNR {whole:.2f} dB; worst frames: {worst}"
    return table


def _check_picture(path: Path) -> None:
    """Raise CliError for a picture that cannot be drawn, before all frames are read."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CliError("--png needs matplotlib; pip install matplotlib") from error
    if path.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise CliError(f"--png must end in .png, .jpg, .svg or .pdf, got {path.name}")
    if not path.parent.is_dir():
        raise CliError(f"there is no folder {path.parent}")


def _draw(result: Comparison, clips: list[Any], names: list[str], path: Path) -> None:
    """Curves over time, and the worst frames of both files side by side."""
    from matplotlib.figure import Figure

    worst = result.worst()
    figure = Figure(figsize=(11, 3 + 2.6 * len(worst)), layout="constrained")
    grid = figure.add_gridspec(1 + len(worst), 3)
    curves = figure.add_subplot(grid[0, :])
    curves.plot(result.psnr, color="tab:blue", linewidth=1)
    curves.set(xlabel="frame", title="PSNR RGB (dB) and SSIM")
    curves.set_ylabel("PSNR (dB)", color="tab:blue")
    if result.ssim.size:
        right = curves.twinx()
        right.plot(result.ssim, color="tab:orange", linewidth=1)
        right.set_ylabel("SSIM", color="tab:orange")
    for row, number in enumerate(worst, start=1):
        a, b = (frame_array(clip.get_frame(number)).transpose(1, 2, 0) for clip in clips)
        difference = np.clip(np.abs(a.astype(np.int16) - b) * 10, 0, 255).astype(np.uint8)
        titles = [f"{names[0]}, frame {number}", names[1], "difference, x10"]
        for column, (title, picture) in enumerate(zip(titles, (a, b, difference), strict=True)):
            axes = figure.add_subplot(grid[row, column])
            axes.imshow(picture)
            axes.set_title(title, fontsize=8)
            axes.axis("off")
    figure.savefig(path, dpi=110)
