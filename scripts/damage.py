#!/usr/bin/env python3
"""What encoders and conversions leave of hidden motion: scripts/damage.py --datapath DIR."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
import vapoursynth as vs
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.carrier import lossless
from vs_cvrs.evaluation import EvaluationError, report
from vs_cvrs.evaluation.clips import clip_of, frames_of
from vs_cvrs.evaluation.scenes import Frames, Scene, find_scenes, read_frames
from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.timeline import Timeline, low_size

_RATE = Fraction(30)
_KEYFRAMES = 24
_YUV = lossless.Carrier("x264", "yuv")

_BT709 = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_inp"
_TO_RGB = "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class Carrier:
    """A way for low-rate frames from sender to receiver."""

    name: str
    pixel_format: str = _YUV.pixel_format
    codec: tuple[str, ...] = tuple(_YUV.options(_KEYFRAMES))
    filters: str = ""
    trimmed: int = 0

    def carry(self, frames: Frames, rate: Fraction) -> Frames:
        """Frames as they arrive, through a real file."""
        _, _, height, width = frames.shape
        raw = ["-f", "rawvideo", "-pix_fmt", "gbrp", "-s", f"{width}x{height}", "-r", str(rate)]
        ffmpeg = [find_ffmpeg(), "-y", "-v", "error"]
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder) / "low.mkv")
            filters = ",".join(part for part in (self.filters, _BT709) if part)
            encode = [*ffmpeg, *raw, "-i", "-", "-vf", filters, *self.codec]
            encode += ["-pix_fmt", self.pixel_format, file]
            planes = np.ascontiguousarray(frames[:, [1, 2, 0]])
            subprocess.run(encode, input=planes.tobytes(), check=True)
            decode = [*ffmpeg, "-i", file, "-vf", _TO_RGB, "-pix_fmt", "gbrp"]
            decoded = subprocess.run(
                [*decode, "-f", "rawvideo", "-"], capture_output=True, check=True
            ).stdout
        arrived = np.frombuffer(decoded, np.uint8).reshape(-1, 3, height, width)[:, [2, 0, 1]]
        return arrived[self.trimmed :]


def _x264(crf: int) -> tuple[str, ...]:
    return ("-c:v", "libx264", "-crf", str(crf))


CARRIERS = (
    Carrier("x264 lossless, 4:4:4 10 bit"),
    Carrier(
        "x265 lossless, 4:4:4 10 bit",
        codec=tuple(lossless.Carrier("x265", "yuv").options(_KEYFRAMES)),
    ),
    Carrier("FFV1, 4:4:4 10 bit", codec=tuple(lossless.Carrier("ffv1", "yuv").options(_KEYFRAMES))),
    Carrier("x264 lossless, 4:4:4 8 bit", "yuv444p"),
    Carrier("x264 CRF 4, 4:4:4 10 bit", codec=_x264(4)),
    Carrier("x264 CRF 12, 4:4:4 10 bit", codec=_x264(12)),
    Carrier("x264 CRF 18, 4:4:4 10 bit", codec=_x264(18)),
    Carrier("x264 lossless, 4:2:0 8 bit", "yuv420p"),
    Carrier("x264 CRF 18, 4:2:0 8 bit", "yuv420p", _x264(18)),
    Carrier("scaled to half size and back", filters="scale=iw/2:ih/2,scale=iw*2:ih*2"),
    Carrier("first frame cut off", trimmed=1),
)


@dataclass(frozen=True)
class Row:
    """Means over scenes, in dB: what is restored, and against it what else could be seen.

    Attributes:
        shown_psnr_rgb, hidden_psnr_rgb: of the restored frames that low-rate frames show, and of
            those that had been removed (None where there are none).
        clip_psnr_rgb: of all restored frames.
        repeated_clip_psnr_rgb: of the low-rate frames repeated instead.
        seen_clip_psnr_rgb: of what Upsample shows, which is the one or the other in each group
            that is not as it was sent.
    """

    shown_psnr_rgb: float
    hidden_psnr_rgb: float | None
    clip_psnr_rgb: float
    repeated_clip_psnr_rgb: float
    seen_clip_psnr_rgb: float


@dataclass(frozen=True)
class Filters:
    """The filters' arguments."""

    ratio: Fraction
    scale: Fraction
    model: str
    device: str

    def send(self, frames: Frames) -> Any:
        """The low-rate clip."""
        return vs.core.cvrs.Downsample(
            clip_of(frames, _RATE), scale=float(self.scale), **self._common()
        )

    def restore(self, low: Frames, size: tuple[int, int], stamp: bool) -> Frames:
        """Restored frames of what arrived; with ``stamp`` as Upsample shows them."""
        height, width = size
        clip = clip_of(low, _RATE / self.ratio)
        restored = vs.core.cvrs.Upsample(
            clip, width=width, height=height, stamp=int(stamp), **self._common()
        )
        return frames_of(restored)

    def _common(self) -> dict[str, Any]:
        return {
            "factor_num": self.ratio.numerator,
            "factor_den": self.ratio.denominator,
            "model": self.model,
            "device": self.device,
        }


def _repeated(low: Frames, nearest: npt.NDArray[np.int64], size: tuple[int, int]) -> Frames:
    """The nearest low-rate frame for each high-rate one, enlarged where it is smaller."""
    height, width = size
    if low.shape[2:] != tuple(low_size(n, Fraction(1)) for n in size):
        low = frames_of(vs.core.resize.Bicubic(clip_of(low, _RATE), width, height))
    return low[nearest][..., :height, :width]


def measure(scene: Scene, filters: Filters, carriers: Sequence[Carrier]) -> Iterator[Row]:
    """Hide a scene, carry it by each of the carriers, restore what arrives, and score it."""
    frames = read_frames(scene.frames)
    size = scene.height, scene.width
    clip = filters.send(frames)
    timeline = Timeline(filters.ratio, clip.get_frame(0).props["CVRSGroupLength"])
    low = frames_of(clip)
    for carrier in carriers:
        arrived = carrier.carry(low, _RATE / filters.ratio)
        original = frames[timeline.high_begin(carrier.trimmed) :]
        count = len(original)
        restored = filters.restore(arrived, size, stamp=False)[:count]
        seen = filters.restore(arrived, size, stamp=True)[:count]
        groups = timeline.upsample_table(len(arrived)).groups()
        nearest = np.concatenate([group.nearest for group in groups])[:count]
        psnr = metrics.psnr(restored, original)
        shown = np.zeros(count, bool)
        shown[[timeline.shown(n, count) for n in range(len(arrived))]] = True
        yield Row(
            float(psnr[shown].mean()),
            None if shown.all() else float(psnr[~shown].mean()),
            metrics.clip_psnr(restored, original),
            metrics.clip_psnr(_repeated(arrived, nearest, size), original),
            metrics.clip_psnr(seen, original),
        )


def main(
    datapath: report.DataPath,
    weight: report.Weight = "auto",
    time_factor: report.TimeFactor = "2",
    scale_factor: report.ScaleFactor = "1",
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Restore scenes whose low-rate frames went through each of several carriers.

    The filters do it, in groups of their own. Low-rate files of the scenes are made and read with
    ffmpeg.
    """
    with report.command("damage"):
        filters = Filters(
            report.parse_factor("--time-factor", time_factor),
            report.parse_factor("--scale-factor", scale_factor),
            weight,
            device,
        )
        scenes = find_scenes(datapath)
        found: list[list[Row]] = []
        with report.progress_bar() as progress:
            task = progress.add_task("restoring", total=len(CARRIERS) * len(scenes))
            for scene in scenes:
                found.append([])
                try:
                    for row in measure(scene, filters, CARRIERS):
                        found[-1].append(row)
                        progress.advance(task)
                except (subprocess.CalledProcessError, vs.Error) as error:
                    raise EvaluationError(f"{scene.name}: {error}") from error
        rows = {
            carrier.name: _mean([rows[place] for rows in found])
            for place, carrier in enumerate(CARRIERS)
        }
        table = Table(title=f"{len(scenes)} scenes, RGB PSNR in dB")
        table.add_column("low-rate frames went through")
        for column in ("shown", "hidden", "clip", "clip repeated", "clip seen"):
            table.add_column(column, justify="right")
        for name, row in rows.items():
            values = asdict(row).values()
            table.add_row(name, *("" if v is None else f"{v:.2f}" for v in values))
        report.table_console().print(table)
        if json_path is not None:
            report.write_json(json_path, {name: asdict(row) for name, row in rows.items()})


def _mean(rows: Sequence[Row]) -> Row:
    hidden = [row.hidden_psnr_rgb for row in rows if row.hidden_psnr_rgb is not None]
    return Row(
        float(np.mean([row.shown_psnr_rgb for row in rows])),
        float(np.mean(hidden)) if hidden else None,
        float(np.mean([row.clip_psnr_rgb for row in rows])),
        float(np.mean([row.repeated_clip_psnr_rgb for row in rows])),
        float(np.mean([row.seen_clip_psnr_rgb for row in rows])),
    )


if __name__ == "__main__":
    typer.run(main)
