#!/usr/bin/env python3
"""Compare, through real encoders with loss, what half the frame rate leaves of a clip.

Every scene's frame rate is halved, encoded as 8-bit 4:2:0, decoded and restored. Plain low-rate
frames are restored by repetition and by interpolation; those of a model by its receiver; and the
full rate by the same encoder stands beside them. Bitrates are of the encoded stream.

    scripts/rate_distortion.py --datapath DIR --codecs x264,svtav1 --outputpath out/rd
    scripts/rate_distortion.py --datapath DIR --first x264:18 --crfs 18,23,28,33  # encoded again
"""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import bjontegaard
import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from matplotlib.ticker import LogLocator
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.carrier import mark
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

_FULL, _HIDDEN, _RECEIVER = "full rate", "hidden, our receiver", "plain, our receiver"

_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)

_Low = tuple[float, float, float, float]
"""The last four fields of a `Point`."""

Encoding = tuple[str, float]
"""An encoder and its constant rate factor."""


@dataclass(frozen=True)
class Point:
    """What a method makes of a scene at one quality, or means over scenes.

    Attributes:
        kilobits: per second of the clip.
        shown, removed: PSNR in dB of the frames that a low-rate frame shows, and of the others.
        clip: PSNR in dB of the mean squared error of all frames.
        ssim: of all frames.
        low: PSNR in dB of the frames of the file against the frames they show.
        low_ssim, low_vmaf: SSIM and VMAF of them; VMAF is NaN where ffmpeg cannot tell it.
        low_change: by how many levels RMS of luma their error changes from one to the next: noise
            of that size is seen to move.
    """

    kilobits: float
    shown: float
    removed: float
    clip: float
    ssim: float
    low: float
    low_ssim: float
    low_vmaf: float
    low_change: float


def carry(frames: Frames, rate: Fraction, encodings: Sequence[Encoding]) -> tuple[Frames, int]:
    """Frames through encoders, one after the other, and a decoder, and the last stream's bytes.

    Raises:
        EvaluationError: ffmpeg fails or gives another number of frames back.
    """
    count, _, height, width = frames.shape
    to_yuv = "scale=out_color_matrix=bt709:out_range=tv:flags=lanczos+accurate_rnd"
    to_rgb = "scale=in_color_matrix=bt709:in_range=tv:flags=lanczos+accurate_rnd+full_chroma_int"
    raw = ["-f", "rawvideo", "-pix_fmt", "gbrp"]
    planes = np.ascontiguousarray(frames[:, (1, 2, 0)])
    data = planes.tobytes()
    given = [*raw, "-s", f"{width}x{height}", "-r", str(rate), "-i", "-", "-vf", to_yuv]
    with tempfile.TemporaryDirectory() as folder:
        for n, (codec, crf) in enumerate(encodings):
            suffix, options = _ENCODERS[codec]
            stream = Path(folder) / f"{n}.{suffix}"
            _ffmpeg([*given, "-pix_fmt", "yuv420p", *options, "-crf", f"{crf:g}", stream], data)
            # Bare streams may say nothing of their rate, or another one.
            data, given = b"", ["-r", str(rate), "-i", str(stream), "-fps_mode", "passthrough"]
        back = _ffmpeg(["-i", stream, "-vf", to_rgb, *raw, "-"])
        taken = stream.stat().st_size
    if len(back) != planes.nbytes:
        raise EvaluationError(f"{codec} gave {len(back)} bytes of frames back of {planes.nbytes}")
    made = np.frombuffer(back, np.uint8).reshape(count, 3, height, width)
    return np.ascontiguousarray(made[:, (2, 0, 1)]), taken


def vmaf(frames: Frames, reference: Frames, rate: Fraction) -> float:
    """VMAF, 0 to 100, by ffmpeg; NaN where it is made without libvmaf."""
    _, _, height, width = frames.shape
    with tempfile.TemporaryDirectory() as folder:
        words: list[str | Path] = []
        for name, clip in (("a", frames), ("b", reference)):
            raw = Path(folder) / f"{name}.rgb"
            raw.write_bytes(np.ascontiguousarray(clip[:, (1, 2, 0)]).tobytes())
            words += ["-f", "rawvideo", "-pix_fmt", "gbrp", "-s", f"{width}x{height}"]
            words += ["-r", str(rate), "-i", raw]
        log = Path(folder) / "log.json"
        to_yuv = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"
        graph = f"[0]{to_yuv}[a];[1]{to_yuv}[b];[a][b]libvmaf=log_fmt=json:log_path={log}"
        try:
            _ffmpeg([*words, "-lavfi", graph, "-f", "null", "-"])
        except EvaluationError:
            return float("nan")
        return float(json.loads(log.read_text())["pooled_metrics"]["vmaf"]["mean"])


def _ffmpeg(words: Sequence[str | Path], data: bytes = b"") -> bytes:
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
        first: what every file goes through before the encoder that is measured.
        marks: whether hidden frames carry the marks that Downsample writes.
        cache: a folder for what methods make, which may be slow; None: all is made anew.
    """

    scene: Scene
    frames: Frames
    protocol: Protocol
    model: CvrsModel
    methods: list[Method]
    first: Encoding | None
    marks: bool
    cache: Path | None

    def points(self, codec: str, crf: float) -> dict[str, Point]:
        """Every method's point at one quality."""
        encodings = [*([] if self.first is None else [self.first]), (codec, crf)]
        high, plain = self.frames, np.ascontiguousarray(self.frames[::2])
        full, taken = carry(high, _RATE, encodings)
        rows = {_FULL: self._score(full, taken, self._low(full, high, _RATE))}
        received, taken = carry(plain, _RATE / 2, encodings)
        low = self._low(received, plain, _RATE / 2)
        repeated = np.repeat(received, 2, axis=0)[: len(high)]
        rows["plain, repeated"] = self._score(repeated, taken, low)
        for method in self.methods:
            made = repeated.copy()
            made[1::2] = self._between(method, received)
            rows[f"plain, {method.name}"] = self._score(made, taken, low)
        rows[_RECEIVER] = self._score(self._restored(received, hidden=False), taken, low)
        # The sender knows of the encoder that it uses, and of no later one.
        sent_by, sent_crf = encodings[0]
        self.model.crf = LossyCarrier("av1" if sent_by in _WIDE else "x264", sent_crf).strength
        received, taken = carry(self._hidden(), _RATE / 2, encodings)
        low = self._low(received, plain, _RATE / 2)
        rows[_HIDDEN] = self._score(self._restored(received, hidden=True), taken, low)
        return rows

    def _low(self, made: Frames, wanted: Frames, rate: Fraction) -> _Low:
        ssim = float(metrics.ssim(torch.from_numpy(made), torch.from_numpy(wanted)).mean())
        error = (made.astype(np.float32) - wanted).transpose(0, 2, 3, 1) @ _LUMA
        change = math.sqrt(float(np.square(np.diff(error, axis=0)).mean()))
        return metrics.clip_psnr(made, wanted), ssim, vmaf(made, wanted, rate), change

    def _between(self, method: Method, shown: Frames) -> Frames:
        if self.cache is None:
            return method.between(shown)
        seen = hashlib.sha256(f"{method.name} {shown.shape} ".encode() + shown.tobytes())
        path = self.cache / f"{seen.hexdigest()}.npy"
        if path.is_file():
            kept: Frames = np.load(path)
            return kept
        made = method.between(shown)
        self.cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npy")
        np.save(partial, made)
        partial.replace(path)
        return made

    def _hidden(self) -> Frames:
        low: list[Frames] = []
        width, height = self.scene.width, self.scene.height
        low_height, low_width = self.protocol.low_size(self.scene)
        message = mark.Message(
            self.protocol.ratio,
            self.protocol.group_length,
            mark.model_id("0000"),
            len(self.frames),
            (low_width - width, low_height - height),
        )
        marked = self.marks and self.model.outlives_loss and mark.fits(low_width, low_height)
        for group in self.protocol.groups(len(self.frames)):
            high = self.frames[group.high.start : group.high.stop]
            size = (len(group.low), low_height, low_width)
            made = scoring.encode_group(self.model, high, size, group.padded).cpu().numpy()
            if marked:
                mark.write(made, message, group.low.start)
            low.append(made)
        return np.concatenate(low)[:, :, :height, :width]

    def _restored(self, low: Frames, *, hidden: bool) -> Frames:
        """As Upsample does: where nothing is hidden, models that can interpolate do."""
        height, width = self.protocol.low_size(self.scene)
        edges = ((0, 0), (0, 0), (0, height - low.shape[2]), (0, width - low.shape[3]))
        low = np.pad(low, edges, mode="edge")
        made: list[Frames] = []
        for group in self.protocol.groups(len(self.frames)):
            seen = slice(group.low.start, group.low.stop + self.model.looks_ahead)
            received = torch.from_numpy(low[seen])
            received = received.to(next(self.model.parameters()).device)
            size = (group.padded, self.scene.height, self.scene.width)
            decode = scoring.decode_group
            if self.model.interpolates and not hidden:
                decode = scoring.interpolate_group
            restored = decode(self.model, received, size)[: len(group.high)]
            made.append(restored.cpu().numpy())
        return np.concatenate(made)

    def _score(self, made: Frames, taken: int, low: _Low) -> Point:
        seconds = float(len(self.frames) / _RATE)
        errors = metrics.mean_squared_error(torch.from_numpy(made), torch.from_numpy(self.frames))
        return Point(
            kilobits=taken * 8 / 1000 / seconds,
            shown=float(metrics.psnr_from_mse(float(errors[::2].mean()))),
            removed=float(metrics.psnr_from_mse(float(errors[1::2].mean()))),
            clip=float(metrics.psnr_from_mse(float(errors.mean()))),
            ssim=float(metrics.ssim(torch.from_numpy(made), torch.from_numpy(self.frames)).mean()),
            low=low[0],
            low_ssim=low[1],
            low_vmaf=low[2],
            low_change=low[3],
        )


def _mean(points: Iterable[Point]) -> Point:
    rows = [list(asdict(point).values()) for point in points]
    return Point(*(sum(column) / len(column) for column in zip(*rows, strict=True)))


Curves = dict[str, list[Point]]
"""By method, a point for each quality, the best first."""

_FIELDS = ("removed", "clip")
"""What is compared at equal bitrate."""


@dataclass(frozen=True)
class Comparison:
    """How far a method is from another one, the anchor; NaN where curves have nothing in common.

    Attributes:
        above: at each quality, dB above the anchor at the same bitrate.
        rate, psnr: Bjontegaard deltas, in percent and dB.
    """

    above: list[float]
    rate: float
    psnr: float


Comparisons = dict[str, dict[str, Comparison]]
"""By method and then by field."""


def _compare(curves: Curves, anchor: str) -> Comparisons:
    return {
        name: {field: _compared(curves[anchor], points, field) for field in _FIELDS}
        for name, points in curves.items()
    }


def _compared(anchor: list[Point], points: list[Point], field: str) -> Comparison:
    rates, values = [], []
    for row in (anchor, points):
        rates.append(np.array([point.kilobits for point in row[::-1]]))
        values.append(np.array([getattr(point, field) for point in row[::-1]]))
    nan = float("nan")
    at_rate = np.interp(np.log(rates[1]), np.log(rates[0]), values[0], left=nan, right=nan)
    rate = psnr = nan
    rising = all(np.all(np.diff(row) > 0) for row in rates)
    if len(anchor) >= _CURVE_POINTS and rising and rates[0][-1] > rates[1][0] > 0:
        arguments = (rates[0], values[0], rates[1], values[1])
        psnr = float(bjontegaard.bd_psnr(*arguments, method="akima", min_overlap=0))
        common = max(row[0] for row in values) < min(row[-1] for row in values)
        if common and all(np.all(np.diff(row) > 0) for row in values):
            rate = float(bjontegaard.bd_rate(*arguments, method="akima", min_overlap=0))
    return Comparison((values[1] - at_rate)[::-1].tolist(), rate, psnr)


def _mean_comparison(rows: Sequence[Comparison]) -> Comparison:
    def mean(values: Iterable[float]) -> float:
        return float(np.mean(list(values)))

    above = [mean(column) for column in zip(*(row.above for row in rows), strict=True)]
    return Comparison(above, mean(row.rate for row in rows), mean(row.psnr for row in rows))


def _text(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


def _table(title: str, crfs: list[float], curves: Curves, compared: Comparisons) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("CRF", justify="right")
    table.add_column("method", no_wrap=True)
    headings = ["kbit/s", "shown", "removed", "(+)", "all", "(+)", "SSIM"]
    headings += ["low-rate", "SSIM", "VMAF", "change", "BD removed", "BD all"]
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for index, crf in enumerate(crfs):
        for name, points in curves.items():
            point = points[index]
            removed, clip = (compared[name][field] for field in _FIELDS)
            table.add_row(
                f"{crf:g}",
                name,
                f"{point.kilobits:.0f}",
                f"{point.shown:.2f}",
                f"{point.removed:.2f}",
                _text(removed.above[index], "+.2f"),
                f"{point.clip:.2f}",
                _text(clip.above[index], "+.2f"),
                f"{point.ssim:.4f}",
                f"{point.low:.2f}",
                f"{point.low_ssim:.4f}",
                _text(point.low_vmaf, ".1f"),
                f"{point.low_change:.1f}",
                *(
                    f"{_text(row.rate, '+.1f') or '-'}%, {_text(row.psnr, '+.2f') or '-'}"
                    if index == len(crfs) - 1
                    else ""
                    for row in (removed, clip)
                ),
                end_section=name == list(curves)[-1],
            )
    return table


def _plot(path: Path, codec: str, scenes: dict[str, Curves], anchor: str) -> None:
    """Removed frames above, all frames below; a column for each scene."""
    colours = {_HIDDEN: "C3", anchor: "C0", _RECEIVER: "C1", _FULL: "C7"}
    size = (3.1 * len(scenes) + 0.4, 5.6)
    figure, axes = plt.subplots(2, len(scenes), figsize=size, layout="constrained", squeeze=False)
    for column, (scene, curves) in enumerate(scenes.items()):
        for row, field in enumerate(_FIELDS):
            axis = axes[row][column]
            for name, colour in colours.items():
                points = curves[name]
                rates = [point.kilobits for point in points]
                values = [getattr(point, field) for point in points]
                axis.plot(rates, values, marker=".", label=name, color=colour)
            axis.set(xscale="log")
            axis.grid(alpha=0.3)
            axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axes[0][column].set(title=scene)
        axes[1][column].set(xlabel="kbit/s")
    for row, what in enumerate(("removed frames", "all frames")):
        axes[row][0].set(ylabel=f"{codec}: {what}, PSNR (dB)")
    axes[0][0].legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    # The same numbers make the same file, whose letters are letters.
    with plt.rc_context({"svg.hashsalt": codec, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _numbers(option: str, text: str, top: float) -> list[float]:
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        values = []
    if not values or not 0 <= values[0] <= values[-1] <= top:
        raise EvaluationError(f"{option} must be numbers from 0 to {top:g} and commas, got {text}")
    return values


def _encoding(option: str, text: str) -> Encoding:
    codec, _, crf = text.partition(":")
    if codec not in _ENCODERS or not crf:
        known = ", ".join(_ENCODERS)
        raise EvaluationError(f"{option} must be CODEC:CRF, CODEC one of {known}, got {text}")
    top = 63 if codec in _WIDE else 51
    try:
        value = float(crf)
    except ValueError:
        value = -1.0
    if not 0 <= value <= top:
        raise EvaluationError(f"{option} must be a number from 0 to {top}, got {crf}")
    return codec, value


def main(
    datapath: report.DataPath,
    outputpath: Annotated[
        Path | None, typer.Option(help="Where plots go, one SVG file for each encoder.")
    ] = None,
    weight: report.Weight = "robust",
    codecs: Annotated[str, typer.Option(help="Of x264, x265, svtav1, vp9.")] = "x264",
    crfs: Annotated[str, typer.Option(help="Qualities of x264 and x265.")] = "12,18,23,28",
    wide_crfs: Annotated[
        str, typer.Option(help="Qualities of SVT-AV1 and VP9, whose CRF ends at 63.")
    ] = "20,30,38,46",
    first: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC:CRF", help="An encoder that files went through before, as x264:18."
        ),
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=_MIN_FRAMES, help="At most so many of each scene.")
    ] = None,
    marks: Annotated[bool, typer.Option(help="Write marks, as Downsample does.")] = True,
    cache: Annotated[
        Path | None,
        typer.Option(help="A folder that keeps interpolated frames for the next run."),
    ] = None,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Halve the frame rate of each scene, send it through encoders with loss, and restore it.

    A scene's frames are held in memory; of an even number of them the last one is left out. (+)
    tells how many dB a method is above the best interpolation of plain frames at the same bitrate.
    """
    with report.command("rate_distortion"):
        chosen = [name.strip() for name in codecs.split(",")]
        for name in chosen:
            if name not in _ENCODERS:
                raise EvaluationError(f"--codecs must be of {', '.join(_ENCODERS)}, got {name}")
        qualities = _numbers("--crfs", crfs, 51), _numbers("--wide-crfs", wide_crfs, 63)
        before = None if first is None else _encoding("--first", first)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath)
        short = [scene for scene in scenes if len(scene.frames) < _MIN_FRAMES]
        if short:
            raise EvaluationError(
                f"scene {short[0].name} must have at least {_MIN_FRAMES} frames, "
                f"got {len(short[0].frames)}"
            )
        counts = [(min(len(s.frames), frames or len(s.frames)) - 1) // 2 * 2 + 1 for s in scenes]
        model = scoring.load_model(weight, Fraction(2), Fraction(1), place)
        protocol = Protocol(Fraction(2), Fraction(1), None, model.group_length)
        methods, missing = installed(place)
        anchor = f"plain, {methods[-1].name}"
        results: dict[str, Any] = {}
        with report.progress_bar() as progress:
            total = sum(len(qualities[codec in _WIDE]) for codec in chosen)
            task = progress.add_task("rate and distortion", total=total * sum(counts))
            for codec in chosen:
                values = qualities[codec in _WIDE]
                found: dict[str, Curves] = {}
                for scene, count in zip(scenes, counts, strict=True):
                    pictures = read_frames(scene.frames[:count])
                    bench = Bench(scene, pictures, protocol, model, methods, before, marks, cache)
                    curves: Curves = {}
                    for crf in values:
                        for name, point in bench.points(codec, crf).items():
                            curves.setdefault(name, []).append(point)
                        progress.advance(task, count)
                    found[scene.name] = curves
                results[codec] = _report(codec, values, found, anchor, first)
                if outputpath is not None:
                    _plot(outputpath / f"{codec}.svg", codec, found, anchor)
        for name, reason in missing.items():
            typer.echo(f"rate_distortion: {name} is left out, it is not installed: {reason}")
        if json_path is not None:
            content = {"weight": weight, "first": first, "marks": marks, "codecs": results}
            report.write_json(json_path, content)


def _report(
    codec: str, crfs: list[float], scenes: dict[str, Curves], anchor: str, first: str | None
) -> dict[str, Any]:
    """Print a table of each scene and one of their means, and give what JSON says of them."""
    found = {name: (curves, _compare(curves, anchor)) for name, curves in scenes.items()}
    names = list(next(iter(scenes.values())))
    means = (
        {
            name: [_mean(row) for row in zip(*(c[name] for c in scenes.values()), strict=True)]
            for name in names
        },
        {
            name: {
                field: _mean_comparison([compared[name][field] for _, compared in found.values()])
                for field in _FIELDS
            }
            for name in names
        },
    )
    what = codec if first is None else f"{first}, then {codec}"
    for name, rows in {**found, "mean of the scenes": means}.items():
        if len(scenes) > 1 or name in scenes:
            title = f"{what}, 8-bit 4:2:0: {name}; (+) and BD against {anchor}"
            report.table_console().print(_table(title, crfs, *rows))

    def content(curves: Curves, compared: Comparisons) -> dict[str, Any]:
        return {
            "curves": {name: [asdict(point) for point in row] for name, row in curves.items()},
            "compared": {
                name: {field: asdict(row) for field, row in fields.items()}
                for name, fields in compared.items()
            },
        }

    return {
        "crfs": crfs,
        "anchor": anchor,
        "mean": content(*means),
        "scenes": {name: content(*rows) for name, rows in found.items()},
    }


if __name__ == "__main__":
    typer.run(main)
