from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from places import ROOT

SCRIPT = ROOT / "scripts" / "gpu_variants.py"


@pytest.fixture
def variants(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("gpu_variants")


def flags() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    tf32 = (cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    return (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, *tf32)


@pytest.mark.gpu
def test_a_quick_run_measures_every_variant(tmp_path: Path) -> None:
    path = tmp_path / "variants.json"
    command = [sys.executable, str(SCRIPT), "--device", "cuda", "--quick", "--json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["rows"]
    for model in ("lite", "lite-any"):
        own = {row["variant"]: row for row in rows if row["model"] == model}
        assert len(own) == 14
        exact = own['all in float32 (`precision="fp32"`)']["psnr"]
        assert exact > 30.0
        for row in own.values():
            assert row["downsample_fps"] > 0.0
            assert row["upsample_fps"] > 0.0
            assert row["psnr"] == pytest.approx(exact, abs=1.0), row["variant"]
        assert f"`{model}`" in done.stdout
    assert "| both" in done.stdout


def test_on_a_cpu_it_measures_what_needs_no_gpu(
    variants: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    exact, graphs = variants.Variant("exact", None), variants.Variant("played", graphs=True)
    monkeypatch.setattr(variants, "VARIANTS", (exact, graphs))
    before = flags()
    path = tmp_path / "variants.json"
    variants.main(device="cpu", json_path=path, quick=True, models="lite")
    assert flags() == before
    rows = {row["variant"]: row for row in json.loads(path.read_text())["rows"]}
    assert set(rows) == {"exact", variants.SESSION}
    for row in rows.values():
        assert (row["model"], row["width"], row["height"]) == ("lite", 64, 48)
        assert row["downsample_fps"] > 0.0
        assert row["upsample_fps"] > 0.0
        assert row["psnr"] > 45.0
    assert f"{rows['exact']['psnr']:.3f}" in capsys.readouterr().out


def test_settings_are_put_back(variants: Any) -> None:
    before, convolution = flags(), torch.nn.functional.conv2d
    for variant in variants.VARIANTS:
        with contextlib.suppress(KeyError), variant.settings():
            tf32 = (variant.tf32, variant.tf32)
            assert flags() == (True, variant.search, not variant.search, *tf32)
            replaced = torch.nn.functional.conv2d is not convolution
            assert replaced == variant.channels_first
            raise KeyError
        assert flags() == before
        assert torch.nn.functional.conv2d is convolution


def test_memory_that_runs_out_leaves_a_row_empty(
    variants: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(variants, "measure_variant", fail)
    monkeypatch.setattr(variants, "measure_session", fail)
    variants.main(device="cpu", quick=True, models="lite")
    told = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    # As they are measured, and in the table.
    assert [line.startswith("lite, 64x48, ") for line in told] == [True] * 7 + [False] * 7


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sizes": "448"}, "gpu_variants: --sizes must be like 448x256,1280x720"),
        ({"models": "litter"}, "gpu_variants: --models must be of lite"),
        ({"device": "gpu"}, "gpu_variants: --device must be auto, cpu or a CUDA device"),
    ],
)
def test_wrong_options_are_named(
    variants: Any, capsys: pytest.CaptureFixture[str], options: dict[str, str], expected: str
) -> None:
    with pytest.raises(typer.Exit) as raised:
        variants.main(**{"models": "lite", **options})
    assert raised.value.exit_code == 2
    assert capsys.readouterr().err.startswith(expected)
