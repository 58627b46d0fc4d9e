#!/usr/bin/env python3
"""Restore scenes of PNG frames and score them: the paper's Vid4 and Vimeo-90K tests."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from vs_cvrs.evaluation import report, scoring
from vs_cvrs.evaluation.protocol import Protocol
from vs_cvrs.evaluation.scenes import find_scenes


def main(
    datapath: report.DataPath,
    outputpath: report.OutputPath,
    weight: report.Weight = "auto",
    time_factor: report.TimeFactor = "2",
    scale_factor: report.ScaleFactor = "1",
    window: Annotated[
        int, typer.Option(help="High-rate frames in a closed group; 7 is the paper's 7 -> 4 -> 7.")
    ] = 8,
    bits: report.Bits = 8,
    refine: report.Refine = 0,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Take each scene down to low-rate frames, restore it from those, and print the scores.

    Low-rate frames go to OUTPUTPATH/SCENE/low, restored ones to OUTPUTPATH/SCENE/restored.
    """
    with report.command("test_vid4"):
        protocol = Protocol(
            report.parse_factor("--time-factor", time_factor),
            report.parse_factor("--scale-factor", scale_factor),
            report.check_window(window),
        )
        report.check_bits(bits)
        place = scoring.open_device(device)
        scenes = find_scenes(datapath, outputpath)
        protocol.check(scenes)
        model = scoring.load_model(weight, protocol.ratio, protocol.scale, place)
        with report.progress_bar() as progress:
            task = progress.add_task("restoring", total=sum(len(s.frames) for s in scenes))
            scores = scoring.evaluate(
                model,
                scenes,
                protocol,
                outputpath,
                lambda n: progress.advance(task, n),
                bits,
                refine,
            )
        title = f"{weight}, time {protocol.ratio}x, space {protocol.scale}x, window {window}"
        title += f", {bits} bits" if bits != 8 else ""
        title += f", refined by {refine} steps" if refine else ""
        paper = report.PAPER.get((protocol.ratio, protocol.scale), ())
        report.table_console().print(report.scores_table(title, scores, paper))
        if json_path is not None:
            content = {
                **asdict(scoring.average(scores.values())),
                "device": report.describe_device(place),
                "weight": weight,
                "time_factor": str(protocol.ratio),
                "scale_factor": str(protocol.scale),
                "window": window,
                "bits": bits,
                "refine": refine,
                "per_scene": {name: asdict(row) for name, row in scores.items()},
            }
            report.write_json(json_path, content)


if __name__ == "__main__":
    typer.run(main)
