#!/usr/bin/env python3
"""Score a model at any rate and any size: 30 -> 24 -> 30 fps, space 1.5x, 2.4x and so on."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from vs_cvrs.evaluation import EvaluationError, report, scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import find_scenes
from vs_cvrs.timeline import choose_group_length, snap_rate

_WINDOW = 8
_PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def main(
    datapath: report.DataPath,
    outputpath: report.OutputPath,
    weight: report.Weight = "auto",
    time_factor: report.TimeFactor = "2",
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
            help="High-rate frames in a closed group; default: 8, and with --fps-in the groups "
            "that the filters form with the model's own length."
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw clip PSNR over the space factor, as PNG, SVG or PDF.")
    ] = None,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Restore each scene at every space factor; print scores beside what blending frames gives.

    Low-rate frames go to OUTPUTPATH/xN/SCENE/low, restored ones to OUTPUTPATH/xN/SCENE/restored.
    With --fps-in and --fps-out the groups are those of the filters, whose number of high-rate
    frames may vary; --window then sets the length that they should be near.
    """
    with report.command("test_contin"):
        ratio, by_rate = _ratio(time_factor, fps_in, fps_out)
        factors = [
            report.parse_factor("--scales", text) for text in (scales or scale_factor).split(",")
        ]
        if window is not None:
            report.check_window(window)
        if plot is not None:
            _check_plot(plot)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath, outputpath)
        for scale in factors:
            Protocol(ratio, scale).check(scenes)
        models = {scale: scoring.load_model(weight, ratio, scale, place) for scale in factors}
        results: dict[Fraction, dict[str, scoring.Scores]] = {}
        floors: dict[Fraction, dict[str, float]] = {}
        with report.progress_bar() as progress:
            total = sum(len(s.frames) for s in scenes)
            for scale, model in models.items():
                if by_rate:
                    preferred = model.group_length if window is None else round(window / ratio)
                    length = choose_group_length(ratio, max(1, preferred))
                    protocol = Protocol(ratio, scale, None, length)
                else:
                    protocol = Protocol(ratio, scale, window or _WINDOW)
                task = progress.add_task(f"space {float(scale):g}x", total=total)
                results[scale] = scoring.evaluate(
                    model,
                    scenes,
                    protocol,
                    outputpath / f"x{float(scale):g}",
                    lambda n, task=task: progress.advance(task, n),  # type: ignore[misc]
                )
                floors[scale] = {
                    scene.name: scoring.blend_floor(scene, protocol) for scene in scenes
                }
        console = report.table_console()
        for scale, scores in results.items():
            title = f"{weight}, time {ratio}x, space {float(scale):g}x"
            paper = report.PAPER.get((ratio, scale), ())
            console.print(report.scores_table(title, scores, paper, floors[scale]))
        if json_path is not None:
            content = {
                **_report([row for scores in results.values() for row in scores.items()]),
                "device": report.describe_device(place),
                "weight": weight,
                "time_factor": str(ratio),
                "window": window,
                "per_scale": [
                    {"scale_factor": str(scale), **_report(list(scores.items()), floors[scale])}
                    for scale, scores in results.items()
                ],
            }
            report.write_json(json_path, content)
        if plot is not None:
            _draw(plot, ratio, results, floors)


def _check_plot(path: Path) -> None:
    if path.suffix.lower() not in _PLOT_SUFFIXES:
        raise EvaluationError(f"--plot must end in {', '.join(_PLOT_SUFFIXES)}, got {path}")
    if importlib.util.find_spec("matplotlib") is None:
        raise EvaluationError("--plot needs matplotlib: pip install matplotlib")


def _ratio(time_factor: str, fps_in: str | None, fps_out: str | None) -> tuple[Fraction, bool]:
    """High rate over low rate, and whether it came from frame rates."""
    if (fps_in is None) != (fps_out is None):
        raise EvaluationError("--fps-in and --fps-out must be given together")
    if fps_in is None or fps_out is None:
        return report.parse_factor("--time-factor", time_factor), False
    high, low = _rate("--fps-in", fps_in), _rate("--fps-out", fps_out)
    if not low <= high <= low * report.MAX_FACTOR:
        raise EvaluationError(
            f"--fps-out must be --fps-in or less, down to 1/{report.MAX_FACTOR} of it, "
            f"got {fps_in} and {fps_out}"
        )
    return high / low, True


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


def _draw(
    path: Path,
    ratio: Fraction,
    results: Mapping[Fraction, Mapping[str, scoring.Scores]],
    floors: Mapping[Fraction, Mapping[str, float]],
) -> None:
    """Clip PSNR over the space factor, solid, and that of blending, dashed; a colour per scene."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    scales = sorted(results)
    x = [float(scale) for scale in scales]
    for i, name in enumerate(results[scales[0]]):
        y = [results[scale][name].clip_psnr_rgb for scale in scales]
        axes.plot(x, y, f"C{i}o-", label=name)
        axes.plot(x, [floors[scale][name] for scale in scales], f"C{i}.--")
    axes.set_xlabel("space factor")
    axes.set_ylabel("clip PSNR, RGB (dB)")
    axes.set_title(f"time {ratio}x; dashed: frames dropped and blended, bicubic")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


if __name__ == "__main__":
    typer.run(main)
