#!/usr/bin/env python3
"""What low-rate frames take on disk: scripts/carriers.py VIDEO_OR_FOLDER... (or drawn:SEED)."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import vapoursynth as vs
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.carrier.lossless import Carrier
from vs_cvrs.cli.clips import stated_matrix, usual_matrix
from vs_cvrs.evaluation import EvaluationError, report
from vs_cvrs.evaluation.clips import clip_of
from vs_cvrs.evaluation.scenes import find_scenes, read_frames
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.training import graphics

_RATE = Fraction(30)
_BT709 = 1
_NO_KEYFRAMES = 250

_LOSSLESS = {
    8: (
        Carrier("x264", "yuv"),
        Carrier("x264"),
        Carrier("x265"),
        Carrier("ffv1"),
    ),
    10: (
        Carrier("x265", "yuv", 10),
        Carrier("x265", "rgb", 10),
        Carrier("ffv1", "rgb", 10),
    ),
}

_LOSSY = {
    "x264 CRF 17": ["-c:v", "libx264", "-crf", "17", "-pix_fmt", "yuv420p"],
    "x265 CRF 18": ["-c:v", "libx265", "-crf", "18", "-x265-params", "log-level=error"],
}


@dataclass(frozen=True)
class Made:
    """What an encoder made of a clip. ``exact``: both readers gave back every bit."""

    size: int
    exact: bool


def load(name: str, frames: int) -> Any:
    """An RGB24 clip of a video file, a folder of PNG frames, or drawn graphics."""
    if name.startswith("drawn:"):
        rng = np.random.default_rng(int(name.removeprefix("drawn:")))
        drawn = graphics.scroll(rng, frames, 256).transpose(0, 3, 1, 2)
        return clip_of(np.ascontiguousarray(drawn), _RATE)
    path = Path(name)
    if path.is_dir():
        scene = find_scenes(path)[0]
        return clip_of(read_frames(scene.frames[:frames]), _RATE)
    clip = vs.core.bs.VideoSource(name, cachemode=0)
    clip = clip[: min(frames, clip.num_frames)]
    matrix = stated_matrix(clip)
    if matrix is None:
        matrix = usual_matrix(clip)
    clip = vs.core.resize.Bicubic(clip, format=vs.RGB24, matrix_in=matrix)
    return vs.core.std.AssumeFPS(clip, fpsnum=_RATE.numerator, fpsden=_RATE.denominator)


def samples(clip: Any) -> np.ndarray[Any, Any]:
    """All frames of an RGB clip, (frames, 3, height, width)."""
    return np.stack([[np.asarray(plane) for plane in frame] for frame in clip.frames(close=True)])


def carry(clip: Any, carrier: Carrier, keyframes: int) -> Made:
    """Encode a clip, and read it back with ffmpeg and with BestSource."""
    sent = samples(clip)
    rgb = carrier.colours == "rgb"
    made = (
        clip
        if rgb
        else vs.core.resize.Point(
            clip, format=getattr(vs, carrier.clip_format), matrix=_BT709, range=0
        )
    )
    planes = samples(made)
    pixels = {"RGB24": "gbrp", "RGB30": "gbrp10le"}.get(carrier.clip_format, carrier.pixel_format)
    colours = [] if rgb else ["-colorspace", "bt709", "-color_range", "tv"]
    raw = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{clip.width}x{clip.height}"]
    order = [1, 2, 0] if rgb else [0, 1, 2]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "low.mkv"
        _ffmpeg(
            [
                *colours,
                *raw,
                "-r",
                str(_RATE),
                "-i",
                "-",
                *carrier.options(keyframes),
                *colours,
                file,
            ],
            np.ascontiguousarray(planes[:, order]).tobytes(),
        )
        decoded = _ffmpeg(["-i", file, "-f", "rawvideo", "-pix_fmt", pixels, "-"])
        arrived = np.frombuffer(decoded, planes.dtype).reshape(planes.shape)[:, np.argsort(order)]
        read = vs.core.bs.VideoSource(str(file), cachemode=0)
        if not rgb:
            read = vs.core.resize.Point(read, format=clip.format.id, matrix_in=_BT709, range_in=0)
        exact = np.array_equal(arrived, planes) and np.array_equal(samples(read), sent)
        return Made(file.stat().st_size, exact)


def lossy(clip: Any, options: list[str]) -> tuple[int, float]:
    """Size of a clip in an encoder's own YUV, and the RGB PSNR of what comes back."""
    sent = samples(clip)
    raw = ["-f", "rawvideo", "-pix_fmt", "gbrp", "-s", f"{clip.width}x{clip.height}"]
    scale = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_inp"
    back = "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd+full_chroma_int"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "original.mkv"
        _ffmpeg(
            [*raw, "-r", str(_RATE), "-i", "-", "-vf", f"{scale},format=yuv420p", *options, file],
            np.ascontiguousarray(sent[:, [1, 2, 0]]).tobytes(),
        )
        decoded = _ffmpeg(["-i", file, "-vf", back, "-f", "rawvideo", "-pix_fmt", "gbrp", "-"])
        arrived = np.frombuffer(decoded, np.uint8).reshape(sent.shape)[:, [2, 0, 1]]
        return file.stat().st_size, metrics.clip_psnr(arrived, sent)


def _ffmpeg(words: list[Any], fed: bytes | None = None) -> bytes:
    command = [find_ffmpeg(), "-y", "-v", "error", *map(str, words)]
    return subprocess.run(command, input=fed, capture_output=True, check=True).stdout


def rows(name: str, frames: int, bits: int, intervals: list[int]) -> Iterator[tuple[str, float]]:
    """Name and kB (or dB) of everything that is measured of a clip."""
    clip = load(name, frames)
    arguments = {} if bits == 8 else {"bits": bits}
    low = vs.core.cvrs.Downsample(clip, factor_num=2, **arguments)
    low = clip_from(low)
    group = low.get_frame(0).props["CVRSGroupLength"]
    plain = vs.core.std.SelectEvery(clip, 2, 0)
    plain = vs.core.resize.Point(plain, format=low.format.id)
    plain = vs.core.std.AddBorders(
        plain, right=low.width - clip.width, bottom=low.height - clip.height
    )
    for carrier in _LOSSLESS[bits]:
        for interval in intervals[:1] if carrier.codec == "x265" else intervals:
            keyframes = interval * group or _NO_KEYFRAMES
            made = carry(low, carrier, keyframes)
            title = f"{carrier.codec} {carrier.colours}, keyframes {keyframes}"
            yield title + ("" if made.exact else " NOT EXACT"), made.size / 1000
            if interval == intervals[0]:
                yield f"{title}, nothing hidden", carry(plain, carrier, keyframes).size / 1000
    for carrier in (Carrier("x264"), Carrier("ffv1")):
        made = carry(clip, carrier, _NO_KEYFRAMES)
        yield f"original, {carrier.codec} rgb lossless", made.size / 1000
    for title, options in _LOSSY.items():
        size, psnr = lossy(clip, options)
        yield f"original, {title}", size / 1000
        yield f"original, {title}, dB", psnr


def clip_from(low: Any) -> Any:
    """The same frames, kept in memory: each is asked for many times."""
    held = list(low.frames())
    return vs.core.std.ModifyFrame(low, low, lambda n, f: held[n])


def main(
    sources: Annotated[list[str], typer.Argument(help="Videos, folders of PNG, drawn:SEED.")],
    frames: Annotated[int, typer.Option(help="High-rate frames of each.")] = 64,
    bits: Annotated[int, typer.Option(help="Bits of low-rate samples: 8 or 10.")] = 8,
    intervals: Annotated[
        list[int] | None,
        typer.Option("--interval", help="Groups from keyframe to keyframe; 0: 250 frames."),
    ] = None,
    json_path: report.JsonPath = None,
) -> None:
    """Print what each clip takes, in kB: low-rate frames by carrier, and the whole original."""
    with report.command("carriers"):
        found: dict[str, dict[str, float]] = {}
        for source in sources:
            try:
                found[source] = dict(rows(source, frames, bits, intervals or [0]))
            except (vs.Error, subprocess.CalledProcessError) as error:
                raise EvaluationError(f"{source}: {error}") from error
        table = Table(title=f"{frames} frames of each, kB; low-rate frames of {bits} bits")
        table.add_column("")
        for source in sources:
            table.add_column(Path(source).stem, justify="right")
        for title in dict.fromkeys(title for column in found.values() for title in column):
            table.add_row(title, *(f"{column.get(title, 0):.1f}" for column in found.values()))
        report.table_console().print(table)
        if json_path is not None:
            report.write_json(json_path, found)


if __name__ == "__main__":
    typer.run(main)
