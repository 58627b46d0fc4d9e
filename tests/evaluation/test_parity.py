"""The models against tensors recorded of every stage; skipped where there are none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from places import GOLDEN, ROOT
from safetensors.torch import load_file, save_file

from vs_cvrs.checkpoints import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = sorted(path.parent for path in GOLDEN.glob("*/case.json"))

needs_cases = pytest.mark.skipif(not CASES, reason="needs the recorded cases")


def _check(*folders: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "check_parity.py"), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@needs_cases
def test_all_stages_agree_with_the_recorded_tensors() -> None:
    done = _check(*CASES)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6 * len(CASES)
    assert all(line.endswith(" ok") for line in lines)


@needs_cases
def test_check_parity_sees_what_is_off(tmp_path: Path) -> None:
    shutil.copytree(CASES[0], tmp_path / "case")
    tensors = load_file(CASES[0] / "tensors.safetensors")
    tensors["hr_out_unclamped"][0, 0, 0, 0, 0] += 2e-4
    (tmp_path / "case" / "tensors.safetensors").unlink()
    save_file(tensors, tmp_path / "case" / "tensors.safetensors")
    done = _check(tmp_path / "case")
    assert done.returncode == 1
    off = [line for line in done.stdout.splitlines() if line.endswith(" OFF")]
    assert len(off) == 1
    assert "hr_out_unclamped" in off[0]


def test_check_parity_says_what_is_missing(tmp_path: Path) -> None:
    done = _check(tmp_path)
    assert done.returncode == 2
    assert "model.pth" in done.stderr
    assert "Traceback" not in done.stderr


@needs_cases
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_folders_load_without_their_configuration(case: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    for part in ("rescaler", "inverter"):
        (bare / part).mkdir(parents=True)
        shutil.copyfile(case / part / "model.pth", bare / part / "model.pth")
    known, told = checkpoint.load(case), checkpoint.load(bare)
    assert told.model.options == known.model.options
    assert told.checksum == known.checksum
    assert "down_type" in known.info


@needs_cases
@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_our_format_keeps_an_authors_model(case: Path, tmp_path: Path) -> None:
    known = checkpoint.load(case)
    checkpoint.save(tmp_path / "m.safetensors", known.model, known.info)
    kept = checkpoint.load(tmp_path / "m.safetensors")
    assert kept.checksum == known.checksum
    assert kept.info == known.info
    x = torch.rand(1, 3, 3, 8, 8)
    with torch.inference_mode():
        assert torch.equal(kept.model.encode(x, (2, 4, 8)), known.model.encode(x, (2, 4, 8)))
