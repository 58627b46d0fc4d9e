#!/usr/bin/env python3
"""Score a model at any rate and any size: 30 -> 24 -> 30 fps, space 1.5x, 2.4x and so on."""

from __future__ import annotations

import importlib.util
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from vs_cvrs import metrics
from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import find_scenes
from vs_cvrs.timeline import choose_group_length, snap_rate

_PLOT_SUFFIXES = (".png", ".svg", ".pdf")

Results = dict[tuple[Fraction, Fraction], dict[str, scoring.Scores]]
"""Scores by time and space factor and scene."""

Floors = dict[tuple[Fraction, Fraction], dict[str, float]]
"""`blend_floor` likewise."""


def main(
    datapath: report.DataPath,
    outputpath: report.OutputPath,
    weight: report.Weight = "auto",
    time_factor: report.TimeFactor = "2",
    time_factors: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Several of them, in place of --time-factor: 1,5/4,2."
        ),
    ] = None,
    scale_factor: Annotated[
        str, typer.Option(metavar="N", help="High size over low size; see --scales.")
    ] = "1",
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="N,N,...", help="Several of them, in place of --scale-factor: 1,1.5,2."
        ),
    ] = None,
    fps_in: Annotated[
        str | None, typer.Option(help="Frame rate of the scenes: 30, 23.976, 24000/1001.")
    ] = None,
    fps_out: Annotated[
        str | None,
        typer.Option(help="Frame rate to go down to; with --fps-in, in place of --time-factor."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            help="High-rate frames in a closed group, given to the model as they are; default: the "
            "groups that the filters form with the model's own length."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw clip PSNR over the space factor, as PNG, SVG or PDF.")
    ] = None,
    bits: report.Bits = 8,
    refine: report.Refine = 0,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Restore each scene at every time and space factor; print scores beside what blending gives.

    Low-rate frames go to OUTPUTPATH/xN/SCENE/low, restored ones to OUTPUTPATH/xN/SCENE/restored;
    with --time-factors to OUTPUTPATH/tN/xN. With --fps-in and --fps-out, --window sets the length
    that the filters' groups should be near.
    """
    with report.command("test_contin"):
        ratios, by_rate = _ratios(time_factor, time_factors, fps_in, fps_out)
        scales_wanted = [
            report.parse_factor("--scales", text) for text in (scales or scale_factor).split(",")
        ]
        factors = list(itertools.product(ratios, scales_wanted))
        if window is not None:
            report.check_window(window)
        if plot is not None:
            _check_plot(plot)
        report.check_bits(bits)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath, outputpath)
        for ratio, scale in factors:
            Protocol(ratio, scale).check(scenes)
        models = {pair: scoring.load_model(weight, *pair, place) for pair in factors}
        results: Results = {}
        floors: Floors = {}
        with report.progress_bar() as progress:
            total = sum(len(s.frames) for s in scenes)
            for (ratio, scale), model in models.items():
                if window is None:
                    protocol = Protocol.of_filters(model, ratio, scale, scenes[0])
                elif by_rate:
                    length = choose_group_length(ratio, max(1, round(window / ratio)))
                    protocol = Protocol(ratio, scale, None, length)
                else:
                    protocol = Protocol(ratio, scale, window)
                task = progress.add_task(f"time {ratio}x, space {float(scale):g}x", total=total)
                folder = outputpath / f"t{float(ratio):g}" if time_factors else outputpath
                results[ratio, scale] = scoring.evaluate(
                    model,
                    scenes,
                    protocol,
                    folder / f"x{float(scale):g}",
                    lambda n, task=task: progress.advance(task, n),  # type: ignore[misc]
                    bits,
                    refine,
                )
                floors[ratio, scale] = {
                    scene.name: scoring.blend_floor(scene, protocol) for scene in scenes
                }
        console = report.table_console()
        for (ratio, scale), scores in results.items():
            title = f"{weight}, time {ratio}x, space {float(scale):g}x"
            paper = report.PAPER.get((ratio, scale), ())
            console.print(report.scores_table(title, scores, paper, floors[ratio, scale]))
        if len(ratios) > 1:
            console.print(_grid(weight, results, floors))
        if json_path is not None:
            content = {
                **_report([row for scores in results.values() for row in scores.items()]),
                "device": report.describe_device(place),
                "weight": weight,
                "time_factor": ",".join(map(str, ratios)),
                "window": window,
                "bits": bits,
                "refine": refine,
                "per_scale": [
                    {
                        "time_factor": str(pair[0]),
                        "scale_factor": str(pair[1]),
                        **_report(list(scores.items()), floors[pair]),
                    }
                    for pair, scores in results.items()
                ],
            }
            report.write_json(json_path, content)
        if plot is not None:
            _draw(plot, results, floors)


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in _PLOT_SUFFIXES:
        raise EvaluationError(f"--plot must end in {', '.join(_PLOT_SUFFIXES)}, got {path}")
    if importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError("--plot needs matplotlib: pip install matplotlib")


def _ratios(
    time_factor: str, time_factors: str | None, fps_in: str | None, fps_out: str | None
) -> tuple[list[Fraction], bool]:
    """High rates over low rate, and whether they came from frame rates."""
    if (fps_in is None) != (fps_out is None):
        raise EvaluationError("--fps-in and --fps-out must be given together")
    if time_factors is not None:
        if fps_in is not None:
            raise EvaluationError("--time-factors must be given without --fps-in and --fps-out")
        return [
            report.parse_factor("--time-factors", text) for text in time_factors.split(",")
        ], False
    if fps_in is None or fps_out is None:
        return [report.parse_factor("--time-factor", time_factor)], False
    high, low = _rate("--fps-in", fps_in), _rate("--fps-out", fps_out)
    if not low <= high <= low * report.MAX_FACTOR:
        raise EvaluationError(
            f"--fps-out must be --fps-in or less, down to 1/{report.MAX_FACTOR} of it, "
            f"got {fps_in} and {fps_out}"
        )
    return [high / low], True


def _rate(option: str, text: str) -> Fraction:
    try:
        rate = Fraction(text) if "/" in text else snap_rate(float(text))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise EvaluationError(f"{option} must be a frame rate such as 24000/1001, got {text}")
    return rate


def _report(
    rows: Sequence[tuple[str, scoring.Scores]], floors: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Means over all rows and over those of each scene, with the JSON keys of test_vid4."""
    names = dict(rows)
    per_scene = {
        name: asdict(scoring.average(row for key, row in rows if key == name)) for name in names
    }
    means = asdict(scoring.average(row for _, row in rows))
    if floors is not None:
        for name, floor in floors.items():
            per_scene[name]["blend_clip_psnr_rgb"] = floor
        means["blend_clip_psnr_rgb"] = sum(floors.values()) / len(floors)
    return {**means, "per_scene": per_scene}


def _grid(weight: str, results: Results, floors: Floors) -> Table:
    """Mean clip PSNR by time and space factor, that of blending in parentheses.

    Below it what the paper published for a factor, so that a gap cannot hide.
    """
    ratios, scales = ([*dict.fromkeys(pair[i] for pair in results)] for i in (0, 1))
    table = Table(title=f"{weight}, clip RGB PSNR (blended)", title_justify="left")
    table.add_column("time")
    for scale in scales:
        table.add_column(f"space {float(scale):g}x", justify="right", no_wrap=True)
    for ratio in ratios:
        cells = []
        for scale in scales:
            floor = statistics.fmean(floors[ratio, scale].values())
            mean = scoring.average(results[ratio, scale].values())
            cells.append(f"{mean.clip_psnr_rgb:.2f} ({floor:.2f})")
        table.add_row(f"{ratio}x", *cells)
        published = [report.PAPER.get((ratio, scale)) for scale in scales]
        if any(published):
            # Means over frames; clip PSNR, of the mean squared error, is lower as a rule.
            name = next(rows[0].name for rows in published if rows)
            cells = [f"{rows[0].psnr_rgb:.2f}" if rows else "" for rows in published]
            table.add_row(f"{name}, mean of frames", *cells)
    return table


def _draw(path: Path, results: Results, floors: Floors) -> None:
    """Clip PSNR over the space factor, solid, and that of blending, dashed.

    A colour for each scene; of several time factors the means, a colour for each factor.
    """
    from matplotlib.figure import Figure

    ratios, scales = (sorted({pair[i] for pair in results}) for i in (0, 1))
    curves: dict[str, tuple[list[float], list[float]]] = {}
    if len(ratios) > 1:
        for ratio in ratios:
            scores = [scoring.average(results[ratio, s].values()) for s in scales]
            blended = [statistics.fmean(floors[ratio, s].values()) for s in scales]
            curves[f"time {ratio}x"] = [row.clip_psnr_rgb for row in scores], blended
    else:
        for name in results[ratios[0], scales[0]]:
            curves[name] = (
                [results[ratios[0], s][name].clip_psnr_rgb for s in scales],
                [floors[ratios[0], s][name] for s in scales],
            )
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    x = [float(scale) for scale in scales]
    for i, (name, (restored, blended)) in enumerate(curves.items()):
        # Frames that nothing was done to would press all others flat.
        shown = [j for j, value in enumerate(restored) if value < metrics.PSNR_CAP]
        axes.plot([x[j] for j in shown], [restored[j] for j in shown], f"C{i}o-", label=name)
        axes.plot([x[j] for j in shown], [blended[j] for j in shown], f"C{i}.--")
    axes.set_xlabel("space factor")
    axes.set_ylabel("clip PSNR, RGB (dB)")
    which = f"time {ratios[0]}x; " if len(ratios) == 1 else ""
    axes.set_title(f"{which}dashed: frames dropped and blended, bicubic")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
