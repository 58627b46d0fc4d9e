#!/usr/bin/env python3
"""What encoders and conversions leave of hidden motion: scripts/damage.py --datapath DIR."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
import typer
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, Scene, find_scenes, read_frames
from vs_cvrs.ffmpeg import CARRIER_FORMAT, LOSSLESS, find_ffmpeg

_BT709 = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_inp"
_TO_RGB = "scale=in_color_matrix=bt709:in_range=tv:flags=accurate_rnd+full_chroma_int"


@dataclass(frozen=True)
class Carrier:
    """A way for low-rate frames from sender to receiver."""

    name: str
    pixel_format: str = CARRIER_FORMAT
    codec: tuple[str, ...] = tuple(LOSSLESS["x264"])
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
    Carrier("x265 lossless, 4:4:4 10 bit", codec=tuple(LOSSLESS["x265"])),
    Carrier("FFV1, 4:4:4 10 bit", codec=tuple(LOSSLESS["ffv1"])),
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
    """Means over scenes, in dB."""

    even_psnr_rgb: float
    odd_psnr_rgb: float
    clip_psnr_rgb: float


def measure(
    scene: Scene, carrier: Carrier, weight: str, protocol: Protocol, device: torch.device
) -> Row:
    """Hide a scene, carry it, restore what arrives, and score it."""
    model = scoring.load_model(weight, protocol.ratio, protocol.scale, device)
    frames = read_frames(scene.frames)
    size = protocol.low_size(scene)
    lows = [
        scoring.encode_group(model, frames[g.high.start : g.high.stop], (len(g.low), *size))
        for g in protocol.groups(len(frames))
    ]
    low = np.concatenate([part.cpu().numpy() for part in lows])
    arrived = carrier.carry(low, Fraction(15))
    frames = frames[2 * carrier.trimmed :]
    restored = np.concatenate(
        [
            scoring.decode_group(
                model,
                torch.from_numpy(arrived[g.low.start : g.low.stop].copy()).to(device),
                (len(g.high), scene.height, scene.width),
            )
            .cpu()
            .numpy()
            for g in protocol.groups(len(frames))
        ]
    )
    psnr = metrics.psnr(restored, frames)
    return Row(
        float(psnr[::2].mean()), float(psnr[1::2].mean()), metrics.clip_psnr(restored, frames)
    )


def main(
    datapath: report.DataPath,
    weight: report.Weight = "auto",
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Restore scenes whose low-rate frames went through each of several carriers."""
    with report.command("damage"):
        protocol = Protocol(Fraction(2), Fraction(1), 8)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath)
        protocol.check(scenes)
        rows: dict[str, Row] = {}
        with report.progress_bar() as progress:
            task = progress.add_task("restoring", total=len(CARRIERS) * len(scenes))
            for carrier in CARRIERS:
                found = []
                for scene in scenes:
                    try:
                        found.append(measure(scene, carrier, weight, protocol, place))
                    except subprocess.CalledProcessError as error:
                        raise EvaluationError(f"{carrier.name}: {error}") from error
                    progress.advance(task)
                values = np.mean([list(asdict(row).values()) for row in found], axis=0)
                rows[carrier.name] = Row(*map(float, values))
        table = Table(title=f"{len(scenes)} scenes, RGB PSNR in dB")
        for column in ("low-rate frames went through", "even", "odd", "clip"):
            table.add_column(column)
        for name, row in rows.items():
            table.add_row(name, *(f"{value:.2f}" for value in asdict(row).values()))
        report.table_console().print(table)
        if json_path is not None:
            report.write_json(json_path, {name: asdict(row) for name, row in rows.items()})


if __name__ == "__main__":
    typer.run(main)
