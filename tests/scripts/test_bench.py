from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from places import ROOT

from vs_cvrs.checkpoints import checkpoint, zoo

BENCH = ROOT / "scripts" / "bench.py"

# Multiply-adds for each high-rate pixel of a group of 8 frames, both filters together.
WORK = {"lite": 39_000, "lite-any": 39_000, "robust": 49_800, "tiny": 10_900}


def _bench(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH), "--device", "cpu", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=500, check=False, env=env
    )


def test_a_quick_run_measures_everything(tmp_path: Path, vapoursynth_env: dict[str, str]) -> None:
    done = _bench("--quick", "--json", str(tmp_path / "bench.json"), env=vapoursynth_env)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "bench.json").read_text())
    assert "vspipe" not in results["skipped"], results["skipped"]
    assert {row["model"] for row in results["speeds"]} == set(zoo.names())
    assert all(row["imsm"] > 0.0 for row in results["speeds"] if row["model"] == "tiny")
    rows = [row for row in results["speeds"] if row["model"] == "lite"]
    assert {(row["time_factor"], row["space_factor"]) for row in rows} == {(2.0, 1.0)}
    assert {(row["width"], row["height"]) for row in rows} == {(64, 48)}
    assert len({row["precision"] for row in rows}) == len(rows)
    for row in rows:
        assert row["downsample_fps"] > 0
        assert row["upsample_fps"] > 0
        assert row["peak_mib"] > 100
        assert row["sampler"] == 0.0
        assert 0.0 < row["imsm"] < 1.0
        assert 0.0 < row["convolutions"] < 1.0
        assert 0.0 < row["of_peak_overall"] < row["of_peak"]
    assert results["pipeline"][0]["share"] > 0.0
    assert {row["model"] for row in results["checks"]} == {"lite", "lite-any", "tiny"}
    for row in results["checks"]:
        assert row["plain_seconds"] > 0.0
        assert row["checked_seconds"] > 0.0
    assert set(results["sampler"]) == {"1x", "2x"}
    assert all(value > 0.0 for value in results["ceilings"].values())
    plain, _, filters = results["start"]
    assert 0.0 < plain["processor_seconds"] < filters["processor_seconds"]
    assert "Upsample fps" in done.stdout
    assert "took" in done.stdout


def test_tables_are_not_lost_where_vspipe_cannot_start(
    tmp_path: Path, vapoursynth_env: dict[str, str]
) -> None:
    broken = tmp_path / "vspipe"
    broken.write_text("#!/bin/sh\necho no VapourSynth here >&2\nexit 1\n")
    broken.chmod(0o755)
    site = tmp_path / "sitecustomize.py"
    site.write_text(f"import sysconfig\nsysconfig.get_path = lambda *_, **__: {str(tmp_path)!r}\n")
    env = vapoursynth_env | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), vapoursynth_env["PYTHONPATH"]])
    }
    json_path = tmp_path / "bench.json"
    done = _bench("--quick", "--brief", "--models", "lite", "--json", str(json_path), env=env)
    assert done.returncode == 0, done.stderr
    assert "bench: vspipe is left out: vspipe failed: no VapourSynth here" in done.stdout
    assert "Upsample fps" in done.stdout
    assert json.loads(json_path.read_text())["speeds"]


@pytest.mark.parametrize("name", zoo.names())
def test_work_is_counted_alike_in_any_precision(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH.parent))
    bench = importlib.import_module("bench")
    model = checkpoint.load(zoo.resolve(name, Fraction(2), Fraction(1))).model.eval()
    counts = []
    for dtype in (None, torch.bfloat16):
        model.convolution_dtype = dtype
        counts.append(bench._convolutions(model, torch.device("cpu"), Fraction(2), Fraction(1)))
        assert model.convolution_dtype is dtype
    assert counts[0] == counts[1]
    assert counts[0][0] == pytest.approx(8 * 2 * WORK[name], rel=0.02)  # a multiply and an add


@pytest.mark.parametrize("sizes", ["448", "8x8", "448x256,", "9000x256"])
def test_wrong_sizes_are_named(sizes: str, vapoursynth_env: dict[str, str]) -> None:
    done = _bench("--sizes", sizes, env=vapoursynth_env)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: --sizes must be like 448x256,1280x720")
    assert "Traceback" not in done.stderr


def test_a_wrong_model_is_named(vapoursynth_env: dict[str, str]) -> None:
    done = _bench("--models", "lite,litter", env=vapoursynth_env)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: --models must be of lite")
    assert "got 'litter'" in done.stderr
