"""Still pictures: the measure of papers on image rescaling, on pictures with known answers."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.evaluation import EvaluationError, stills


def save(path: Path, width: int, height: int, period: float) -> Path:
    """A grey picture of waves, the finer the shorter ``period`` is."""
    y, x = np.mgrid[:height, :width]
    waves = 128 + 50 * np.sin(2 * np.pi * x / period) + 50 * np.cos(2 * np.pi * y / period)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(waves.astype(np.uint8)[..., None], 3, axis=2)).save(path)
    return path


def test_sets_are_folders(tmp_path: Path) -> None:
    for name in ("A/10.png", "A/9.png", "B/1.png"):
        save(tmp_path / name, 16, 16, 8.0)
    found = stills.find_sets(tmp_path)
    assert {name: [path.name for path in paths] for name, paths in found.items()} == {
        "A": ["9.png", "10.png"],
        "B": ["1.png"],
    }
    assert list(stills.find_sets(tmp_path / "B")) == ["B"]


def test_small_pictures_are_refused(tmp_path: Path) -> None:
    picture = save(tmp_path / "small.png", 31, 15, 8.0)
    stills.check([picture], [Fraction(1), Fraction(3, 2)])
    with pytest.raises(EvaluationError, match=r"at least 16x16, got 31x15"):
        stills.check([picture], [Fraction(4)])


def test_what_is_hidden_is_worth_more_than_bicubic(tmp_path: Path) -> None:
    model = checkpoint.load(zoo.resolve("lite-any", Fraction(1), Fraction(2))).model.eval()
    # 99x75 is cropped to 96x72: the factor is exact, or low-rate pictures would be padded.
    coarse, fine = (
        stills.evaluate(model, save(tmp_path / f"{period}.png", 99, 75, period), Fraction(2))
        for period in (24.0, 5.0)
    )
    assert coarse.bicubic_psnr_y > 45 > fine.bicubic_psnr_y
    assert fine.psnr_y > fine.bicubic_psnr_y + 3
    assert fine.low_psnr_rgb > 38
    # Of grey pictures R, G and B err alike, and Y by 219/255 of it.
    assert fine.psnr_y > fine.psnr_rgb
    mean = stills.average([coarse, fine])
    assert mean.psnr_y == pytest.approx((coarse.psnr_y + fine.psnr_y) / 2)


def test_the_script_prints_published_gains_beside_ours(tmp_path: Path) -> None:
    save(tmp_path / "Set5" / "1.png", 64, 64, 7.0)
    results = tmp_path / "results.json"
    script = ROOT / "scripts" / "test_stills.py"
    options: list[str | Path] = ["--datapath", tmp_path, "--scales", "2,4", "--json", results]
    made = subprocess.run(
        [sys.executable, script, *options], capture_output=True, text=True, check=True
    )
    assert "Of IRN's gain over bicubic" in made.stdout
    assert "10.33" in made.stdout  # 43.99 - 33.66
    assert "7.77" in made.stdout  # 36.19 - 28.42
    rows = json.loads(results.read_text())["per_scale"]
    assert [(row["scale_factor"], row["set"], row["pictures"]) for row in rows] == [
        ("2", "Set5", 1),
        ("4", "Set5", 1),
    ]
    assert rows[0]["psnr_y"] > rows[1]["psnr_y"]
    refused = subprocess.run(
        [sys.executable, script, "--datapath", tmp_path / "Set5" / "1.png"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith("test_stills: --datapath must be a folder of PNG pictures")
