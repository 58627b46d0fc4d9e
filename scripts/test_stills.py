#!/usr/bin/env python3
"""Take still pictures down in size and back: the test of image rescaling and super-resolution."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from vs_cvrs.evaluation import report, scoring, stills
from vs_cvrs.model.base import CvrsModel


def main(
    datapath: Annotated[
        Path, typer.Option(help="One folder of PNG pictures per set, of any sizes.")
    ],
    weight: report.Weight = "auto",
    scales: Annotated[
        str,
        typer.Option(metavar="N,N,...", help="High sizes over low sizes: 2,4."),
    ] = "2,4",
    refine: report.Refine = 0,
    device: report.Device = "auto",
    json_path: report.JsonPath = None,
) -> None:
    """Restore each picture from its low size; print scores beside bicubic's and published ones.

    As papers on rescaling do it, Y PSNR is taken without a border of as many pixels as the factor.
    """
    with report.command("test_stills"):
        factors = [report.parse_factor("--scales", text) for text in scales.split(",")]
        place = scoring.open_device(device)
        sets = stills.find_sets(datapath)
        for pictures in sets.values():
            stills.check(pictures, factors)
        models: dict[Fraction, CvrsModel] = {
            scale: scoring.load_model(weight, Fraction(1), scale, place) for scale in factors
        }
        rows: dict[tuple[Fraction, str], list[stills.StillScores]] = defaultdict(list)
        with report.progress_bar() as progress:
            total = len(factors) * sum(map(len, sets.values()))
            task = progress.add_task("restoring", total=total)
            for scale, model in models.items():
                for name, pictures in sets.items():
                    for picture in pictures:
                        rows[scale, name].append(stills.evaluate(model, picture, scale, refine))
                        progress.advance(task)
        report.table_console().print(_table(weight, rows))
        if json_path is not None:
            content = {
                "device": report.describe_device(place),
                "weight": weight,
                "refine": refine,
                "per_scale": [
                    {
                        "scale_factor": str(scale),
                        "set": name,
                        "pictures": len(scores),
                        **asdict(stills.average(scores)),
                    }
                    for (scale, name), scores in rows.items()
                ],
            }
            report.write_json(json_path, content)


def _table(weight: str, rows: dict[tuple[Fraction, str], list[stills.StillScores]]) -> Table:
    table = Table(title=f"{weight}, stills, means in dB", title_justify="left")
    for heading in ("space", "set", "pictures"):
        table.add_column(heading)
    for heading in ("Y", "RGB", "low-rate RGB", "bicubic Y", "gain", "IRN gain", "of it"):
        table.add_column(heading, justify="right")
    shares = []
    for (scale, name), scores in rows.items():
        mean = stills.average(scores)
        gain = mean.psnr_y - mean.bicubic_psnr_y
        published = stills.IRN.get((scale, name))
        cells = [mean.psnr_y, mean.psnr_rgb, mean.low_psnr_rgb, mean.bicubic_psnr_y, gain]
        compared = ["-", "-"]
        if published is not None:
            theirs = published.irn - published.bicubic
            shares.append(gain / theirs)
            compared = [f"{theirs:.2f}", f"{shares[-1]:.0%}"]
        table.add_row(
            f"{float(scale):g}x", name, str(len(scores)), *(f"{x:.2f}" for x in cells), *compared
        )
    if shares:
        table.caption = f"Of IRN's gain over bicubic, mean of sets: {statistics.fmean(shares):.0%}"
    return table


if __name__ == "__main__":
    typer.run(main)
