#!/usr/bin/env python3
"""Compare, through real encoders with loss, what half the frame rate leaves of a clip.

Every scene's frame rate is halved, encoded as 8-bit 4:2:0, decoded and restored. Plain low-rate
frames are restored by repetition and by interpolation; those of a model by its receiver; and the
full rate by the same encoder stands beside them. Bitrates are of the encoded stream.

    scripts/rate_distortion.py --datapath DIR --codecs x264,svtav1 --outputpath out/rd
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import bjontegaard
import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.carrier.lossy import LossyCarrier
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.interpolation import Method, installed
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, Scene, find_scenes, read_frames
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.programs.ffmpeg import find_ffmpeg

_RATE = Fraction(30)  # of the high-rate clips; encoders decide by it, a little

_MIN_FRAMES = 3
_CURVE_POINTS = 4  # as Bjontegaard deltas are defined

_ENCODERS: dict[str, tuple[str, list[str]]] = {
    "x264": ("h264", ["-c:v", "libx264", "-preset", "medium"]),
    "x265": ("hevc", ["-c:v", "libx265", "-preset", "medium", "-x265-params", "log-level=error"]),
    "svtav1": ("ivf", ["-c:v", "libsvtav1", "-preset", "6"]),
    "vp9": ("ivf", ["-c:v", "libvpx-vp9", "-b:v", "0", "-cpu-used", "2", "-row-mt", "0"]),
}
"""File format of the bare stream, and ffmpeg's options, without the quality."""

_WIDE = ("svtav1", "vp9")
"""Encoders whose CRF ends at 63."""


@dataclass(frozen=True)
class Point:
    """What a method makes of a scene at one quality, or means over scenes.

    Attributes:
        kilobits: per second of the clip.
        shown, removed: PSNR in dB of the frames that a low-rate frame shows, and of the others.
        clip: PSNR in dB of the mean squared error of all frames.
        ssim: of all frames.
        low: PSNR in dB of the low-rate frames against the frames they show; of the full rate,
            that of all frames.
    """

    kilobits: float
    shown: float
    removed: float
    clip: float
    ssim: float
    low: float


def carry(frames: Frames, rate: Fraction, codec: str, crf: float) -> tuple[Frames, int]:
    """Frames through an encoder and a decoder, and the bytes of the stream between.

    Raises:
        EvaluationError: ffmpeg fails or gives another number of frames back.
    """
    suffix, options = _ENCODERS[codec]
    count, _, height, width = frames.shape
    to_yuv = "scale=out_color_matrix=bt709:out_range=tv:flags=lanczos+accurate_rnd"
    to_rgb = "scale=in_color_matrix=bt709:in_range=tv:flags=lanczos+accurate_rnd+full_chroma_int"
    raw = ["-f", "rawvideo", "-pix_fmt", "gbrp"]
    with tempfile.TemporaryDirectory() as folder:
        stream = Path(folder) / f"stream.{suffix}"
        size = ["-s", f"{width}x{height}", "-r", str(rate)]
        encode = [*raw, *size, "-i", "-", "-vf", to_yuv, "-pix_fmt", "yuv420p", *options]
        planes = np.ascontiguousarray(frames[:, (1, 2, 0)])
        _ffmpeg([*encode, "-crf", f"{crf:g}", str(stream)], planes.tobytes())
        back = _ffmpeg(["-i", str(stream), "-vf", to_rgb, *raw, "-"])
        taken = stream.stat().st_size
    if len(back) != planes.nbytes:
        raise EvaluationError(f"{codec} gave {len(back)} bytes of frames back of {planes.nbytes}")
    made = np.frombuffer(back, np.uint8).reshape(count, 3, height, width)
    return np.ascontiguousarray(made[:, (2, 0, 1)]), taken


def _ffmpeg(words: list[str], data: bytes = b"") -> bytes:
    command = [find_ffmpeg(), "-v", "error", "-y", *words]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        raise EvaluationError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@dataclass(frozen=True)
class Bench:
    """One scene, and what is needed to restore it.

    Attributes:
        frames: of the scene, an odd number: each removed one has a shown one on either side.
        protocol: the model's groups.
    """

    scene: Scene
    frames: Frames
    protocol: Protocol
    model: CvrsModel
    methods: list[Method]

    def points(self, codec: str, crf: float) -> dict[str, Point]:
        """Every method's point at one quality."""
        high, plain = self.frames, np.ascontiguousarray(self.frames[::2])
        full, full_bytes = carry(high, _RATE, codec, crf)
        rows = {"full rate": self._score(full, full_bytes, metrics.clip_psnr(full, high))}
        received, taken = carry(plain, _RATE / 2, codec, crf)
        low = metrics.clip_psnr(received, plain)
        repeated = np.repeat(received, 2, axis=0)[: len(high)]
        rows["plain, repeated"] = self._score(repeated, taken, low)
        for method in self.methods:
            made = repeated.copy()
            made[1::2] = method.between(received)
            rows[f"plain, {method.name}"] = self._score(made, taken, low)
        rows["plain, our receiver"] = self._score(self._restored(received), taken, low)
        self.model.crf = LossyCarrier("av1" if codec in _WIDE else "x264", crf).strength
        hidden = self._hidden()
        received, taken = carry(hidden, _RATE / 2, codec, crf)
        rows["hidden, our receiver"] = self._score(
            self._restored(received), taken, metrics.clip_psnr(received, plain)
        )
        return rows

    def _hidden(self) -> Frames:
        low: list[Frames] = []
        for group in self.protocol.groups(len(self.frames)):
            high = self.frames[group.high.start : group.high.stop]
            size = (len(group.low), *self.protocol.low_size(self.scene))
            low.append(scoring.encode_group(self.model, high, size, group.padded).cpu().numpy())
        return np.concatenate(low)[:, :, : self.scene.height, : self.scene.width]

    def _restored(self, low: Frames) -> Frames:
        height, width = self.protocol.low_size(self.scene)
        edges = ((0, 0), (0, 0), (0, height - low.shape[2]), (0, width - low.shape[3]))
        low = np.pad(low, edges, mode="edge")
        made: list[Frames] = []
        for group in self.protocol.groups(len(self.frames)):
            seen = slice(group.low.start, group.low.stop + self.model.looks_ahead)
            received = torch.from_numpy(low[seen])
            received = received.to(next(self.model.parameters()).device)
            size = (group.padded, self.scene.height, self.scene.width)
            restored = scoring.decode_group(self.model, received, size)[: len(group.high)]
            made.append(restored.cpu().numpy())
        return np.concatenate(made)

    def _score(self, made: Frames, taken: int, low: float) -> Point:
        seconds = float(len(self.frames) / _RATE)
        errors = metrics.mean_squared_error(torch.from_numpy(made), torch.from_numpy(self.frames))
        return Point(
            kilobits=taken * 8 / 1000 / seconds,
            shown=float(metrics.psnr_from_mse(float(errors[::2].mean()))),
            removed=float(metrics.psnr_from_mse(float(errors[1::2].mean()))),
            clip=float(metrics.psnr_from_mse(float(errors.mean()))),
            ssim=float(metrics.ssim(torch.from_numpy(made), torch.from_numpy(self.frames)).mean()),
            low=low,
        )


def _mean(points: Iterable[Point]) -> Point:
    rows = [list(asdict(point).values()) for point in points]
    return Point(*(sum(column) / len(column) for column in zip(*rows, strict=True)))


Curves = dict[str, list[Point]]
"""By method, a point for each quality, mean over scenes."""


def _bd(
    curves: Curves, anchor: str, value: Callable[[Point], float]
) -> dict[str, tuple[float, float]]:
    """Bjontegaard deltas against a method: rate in percent, and PSNR in dB."""
    base = curves[anchor]
    found = {}
    for name, points in curves.items():
        rates = [[point.kilobits for point in row] for row in (base, points)]
        values = [[value(point) for point in row] for row in (base, points)]
        rate = psnr = float("nan")
        rising = all(np.all(np.diff(row[::-1]) > 0) for row in (*rates, *values))
        if len(base) >= _CURVE_POINTS and rising:
            arguments = (rates[0][::-1], values[0][::-1], rates[1][::-1], values[1][::-1])
            if min(values[0][0], values[1][0]) > max(values[0][-1], values[1][-1]):
                rate = bjontegaard.bd_rate(*arguments, method="akima", min_overlap=0)
            psnr = bjontegaard.bd_psnr(*arguments, method="akima", min_overlap=0)
        found[name] = (float(rate), float(psnr))  # NaN: the curves have nothing in common
    return found


def _table(title: str, crfs: list[float], curves: Curves, deltas: Mapping[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("CRF", justify="right")
    table.add_column("method", no_wrap=True)
    for heading in ("kbit/s", "shown", "removed", "all", "SSIM", "low-rate", "BD-rate", "BD-PSNR"):
        table.add_column(heading, justify="right", no_wrap=True)
    for index, crf in enumerate(crfs):
        for name, points in curves.items():
            point = points[index]
            rate, psnr = deltas[name]
            table.add_row(
                f"{crf:g}",
                name,
                f"{point.kilobits:.0f}",
                *(f"{value:.2f}" for value in (point.shown, point.removed, point.clip)),
                f"{point.ssim:.4f}",
                f"{point.low:.2f}",
                *((f"{rate:+.1f}%", f"{psnr:+.2f}") if index == len(crfs) - 1 else ("", "")),
                end_section=name == list(curves)[-1],
            )
    return table


def _plot(path: Path, codec: str, curves: Curves) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, field in zip(axes, ("removed", "clip"), strict=True):
        title = {"removed": "removed frames", "clip": "all frames"}[field]
        for name, points in curves.items():
            rates = [point.kilobits for point in points]
            axis.plot(rates, [getattr(point, field) for point in points], marker="o", label=name)
        axis.set(xscale="log", xlabel="kbit/s", ylabel="PSNR (dB)", title=f"{codec}: {title}")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _numbers(option: str, text: str, top: float) -> list[float]:
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not 0 <= values[0] <= values[-1] <= top:
        raise EvaluationError(f"{option} must be numbers from 0 to {top:g} and commas, got {text}")
    return values


def main(
    datapath: report.DataPath,
    outputpath: Annotated[
        Path | None, typer.Option(help="Where plots go, one PNG file for each encoder.")
    ] = None,
    weight: report.Weight = "lite",
    codecs: Annotated[str, typer.Option(help="Of x264, x265, svtav1, vp9.")] = "x264",
    crfs: Annotated[str, typer.Option(help="Qualities of x264 and x265.")] = "12,18,23,28",
    wide_crfs: Annotated[
        str, typer.Option(help="Qualities of SVT-AV1 and VP9, whose CRF ends at 63.")
    ] = "20,30,38,46",
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Halve the frame rate of each scene, send it through encoders with loss, and restore it.

    A scene's frames are held in memory; of an even number of them the last one is left out.
    """
    with report.command("rate_distortion"):
        chosen = [name.strip() for name in codecs.split(",")]
        for name in chosen:
            if name not in _ENCODERS:
                raise EvaluationError(f"--codecs must be of {', '.join(_ENCODERS)}, got {name}")
        qualities = _numbers("--crfs", crfs, 51), _numbers("--wide-crfs", wide_crfs, 63)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath)
        short = [scene for scene in scenes if len(scene.frames) < _MIN_FRAMES]
        if short:
            raise EvaluationError(
                f"scene {short[0].name} must have at least {_MIN_FRAMES} frames, "
                f"got {len(short[0].frames)}"
            )
        model = scoring.load_model(weight, Fraction(2), Fraction(1), place)
        protocol = Protocol(Fraction(2), Fraction(1), None, model.group_length)
        methods, missing = installed(place)
        results: dict[str, Any] = {}
        with report.progress_bar() as progress:
            total = sum(len(qualities[codec in _WIDE]) for codec in chosen)
            frames = sum(len(scene.frames) for scene in scenes)
            task = progress.add_task("rate and distortion", total=total * frames)
            for codec in chosen:
                values = qualities[codec in _WIDE]
                found: dict[str, list[list[Point]]] = {}
                for scene in scenes:
                    odd = read_frames(scene.frames[: (len(scene.frames) - 1) // 2 * 2 + 1])
                    bench = Bench(scene, odd, protocol, model, methods)
                    for index, crf in enumerate(values):
                        for name, point in bench.points(codec, crf).items():
                            rows = found.setdefault(name, [[] for _ in values])
                            rows[index].append(point)
                        progress.advance(task, len(scene.frames))
                curves = {name: [_mean(row) for row in rows] for name, rows in found.items()}
                anchor = f"plain, {methods[-1].name}"
                deltas = _bd(curves, anchor, lambda point: point.clip)
                title = f"{codec}, 8-bit 4:2:0; BD of all frames against {anchor}"
                report.table_console().print(_table(title, values, curves, deltas))
                if outputpath is not None:
                    _plot(outputpath / f"{codec}.png", codec, curves)
                results[codec] = {
                    "crfs": values,
                    "anchor": anchor,
                    "curves": {n: [asdict(p) for p in points] for n, points in curves.items()},
                    "bd_rate_and_psnr": deltas,
                }
        for name, reason in missing.items():
            typer.echo(f"rate_distortion: {name} is left out, it is not installed: {reason}")
        if json_path is not None:
            report.write_json(json_path, {"weight": weight, "codecs": results})


if __name__ == "__main__":
    typer.run(main)
