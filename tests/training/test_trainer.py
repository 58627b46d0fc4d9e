from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from places import ROOT

from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.model import build
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.robust import RobustModel
from vs_cvrs.training.config import ConfigError, load_config
from vs_cvrs.training.trainer import Trainer
from vs_cvrs.training.transports import straight_through_round

ANY_OPTIONS = {"alone_half": "8h 8h mod 5", "alone_quarter": "8h 8h mod 7"}
ANY_OPTIONS |= {"shared_half": "8h 8h 8h mod 9", "shared_quarter": "8h 8h 8h mod 9"}
PARAMETERS = {"lite": 0.707e6, "lite-any": 3.99e6, "robust": 0.835e6, "tiny": 0.305e6}
PARAMETERS |= {"base": 11.7e6, "mix": 17.4e6}

TRAIN = ROOT / "scripts" / "train.py"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run of seconds: two stages, moving stills, one validation scene."""
    rng = np.random.default_rng(0)
    stills, scene = tmp_path / "stills", tmp_path / "validation" / "scene"
    stills.mkdir()
    scene.mkdir(parents=True)
    for n in range(2):
        noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        noise.resize((300, 280), Image.Resampling.BICUBIC).save(stills / f"{n}.png")
    picture = Image.open(stills / "0.png")
    for n in range(7):
        picture.crop((2 * n, n, 2 * n + 48, n + 32)).save(scene / f"im{n + 1}.png")
    path = tmp_path / "tiny.yaml"
    settings = {
        "name": "tiny",
        "architecture": "lite",
        "options": {"width": 8, "down_blocks": "h", "up_blocks": "h", "cells": 1, "hidden": 8},
        "data": {"videos": [], "stills": ["stills"], "validation": ["validation"]},
        "ema": 0.9,
        "validate_every": 10,
        "save_every": 4,
        "stages": [
            {"train": "rescaler", "steps": 10, "batch": 2, "crop": 16, "precision": "fp32"},
            {
                "steps": 20,
                "batch": 2,
                "crop": 24,
                "precision": "fp32",
                "loss": {"restoration": "charbonnier", "latent": 0.1},
            },
        ],
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny layers gain nothing from more threads, and wait long for them on a busy machine."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(TRAIN), *map(str, arguments)]


def test_a_killed_run_ends_like_an_undisturbed_one(config: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    subprocess.run(command(config, "--run", whole), check=True, timeout=120, capture_output=True)

    process = subprocess.Popen(command(config, "--run", killed), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (killed / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    assert torch.load(killed / "state.pt", weights_only=True)["step"] < 30
    resumed = subprocess.run(
        command(config, "--resume", killed), check=True, timeout=120, capture_output=True, text=True
    )
    assert "step 30" in resumed.stdout

    states = [torch.load(run / "state.pt", weights_only=True) for run in (whole, killed)]
    for name, weight in states[0]["average"].items():
        assert torch.equal(weight, states[1]["average"][name]), name
    assert states[0]["history"][-1]["clip_psnr"] == states[1]["history"][-1]["clip_psnr"]

    for file in ("tiny.safetensors", "best.safetensors", "curves.png", "summary.md"):
        assert (killed / file).stat().st_size > 0
    assert "| 30 |" in (killed / "summary.md").read_text()
    loaded = checkpoint.load(killed / "tiny.safetensors")
    assert loaded.model.architecture == "lite"
    assert list((killed / "tensorboard").iterdir())

    again = subprocess.run(command(config, "--run", killed), capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.startswith("train: ")
    assert "--resume" in again.stderr


def test_sigterm_saves_and_ends(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["stages"][0]["steps"] = 100000
    config.write_text(yaml.safe_dump(settings))
    run = tmp_path / "runs" / "stopped"
    process = subprocess.Popen(command(config, "--run", run), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (run / "state.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    before = torch.load(run / "state.pt", weights_only=True)["step"]
    process.terminate()
    assert process.wait(timeout=30) == 0
    assert torch.load(run / "state.pt", weights_only=True)["step"] >= before


def test_rounding_is_real_forwards_and_straight_through_backwards() -> None:
    x = torch.tensor([-0.2, 0.1001, 0.7, 1.3], requires_grad=True)
    rounded = straight_through_round(x)
    assert (rounded * 255).tolist() == pytest.approx([0, 26, 178, 255], abs=1e-4)
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": [{"steps": 0}]}, r"stages\.0\.steps: .*greater than 0, got 0"),
        ({"stages": [{"steps": 1, "crop": 30}]}, r"stages\.0\.crop: .*multiple of 4, got 30"),
        ({"lerning_rate": 1}, "lerning_rate: Extra inputs"),
        ({"ema": 1.0}, "ema: .*less than 1"),
        ({"stages": []}, "stages: .*at least 1 item"),
    ],
)
def test_wrong_settings_are_named(config: Path, change: dict[str, object], message: str) -> None:
    settings = yaml.safe_load(config.read_text()) | change
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=message):
        load_config(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "unknown"}, "unknown"),
        ({"options": {"width": -1}}, "width"),
        ({"stages": [{"steps": 1, "train": "space"}]}, "a lite model has no way to other sizes"),
        ({"stages": [{"steps": 1, "share": True}]}, "share needs a lite-any model"),
        ({"data": {"videos": ["gone"], "stills": [], "validation": []}}, "gone does not exist"),
        (
            {"data": {"videos": [], "stills": [], "validation": ["gone"]}},
            "validation folder .*gone",
        ),
    ],
)
def test_what_a_run_cannot_begin_with_is_named_and_leaves_no_folder(
    config: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    settings = yaml.safe_load(config.read_text()) | change
    config.write_text(yaml.safe_dump(settings))
    folder = tmp_path / "runs" / "wrong"
    with pytest.raises(ConfigError, match=message):
        Trainer(load_config(config), folder, torch.device("cpu"))
    assert not folder.exists()


def test_data_folders_are_relative_to_the_data_folder(config: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert load_config(config).data.stills == [tmp_path / "stills"]
    assert load_config(config, elsewhere).data.stills == [elsewhere / "stills"]
    assert load_config(config, elsewhere).data.validation == [elsewhere / "validation"]


def test_bundled_configurations_are_valid() -> None:
    folder = TRAIN.parents[1] / "vs_cvrs" / "training" / "configs"
    found = sorted(folder.glob("*.yaml"))
    assert found
    for path in found:
        config = load_config(path)
        assert config.name == path.stem
        parameters = sum(p.numel() for p in build(config.architecture, config.options).parameters())
        assert parameters == pytest.approx(PARAMETERS[config.name], rel=0.02)


def test_what_training_goes_on_from_fits_its_configuration() -> None:
    config = load_config(TRAIN.parents[1] / "vs_cvrs" / "training" / "configs" / "lite-any.yaml")
    start = checkpoint.load(zoo.resolve("lite-any", Fraction(1), Fraction(2))).model
    assert start.options == build(config.architecture, config.options).options


@pytest.mark.parametrize("train", ["rescaler", "imsm", "joint"])
def test_a_stage_trains_what_it_names(config: Path, tmp_path: Path, train: str) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = "conv"
    settings["options"] = {
        "block_num": 1,
        "down_opt": {"mid_channels": 4, "three_D_res_num": 1, "kernel_size": [3, 3, 3]},
        "up_opt": {"mid_channels": 8, "three_D_res_num": 1, "fuse_channels": 4},
    }
    settings["stages"] = [
        {"train": train, "steps": 1, "batch": 1, "crop": 16, "precision": "fp32", "warmup": 0}
    ]
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / train, torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    changed = {
        name.split(".")[0]
        for name, value in trainer.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    parts = {"rescaler": {"downet", "upnet"}, "imsm": {"inv_block"}}
    assert changed == parts.get(train, {"downet", "upnet", "inv_block"})


@pytest.mark.parametrize(("train", "changed"), [("shared", {"shared"}), ("space", {"shared"})])
def test_space_and_time_are_trained_apart(
    config: Path, tmp_path: Path, train: str, changed: set[str]
) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = "lite-any"
    settings["options"] |= ANY_OPTIONS
    settings["stages"] = [
        {"train": train, "steps": 1, "batch": 1, "crop": 24, "precision": "fp32", "warmup": 0}
        | {"ratios": ["2"], "scales": [2, 2], "whole": 1.0}
    ]
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / train, torch.device("cpu"))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    assert {
        re.split(r"[_.]", name)[0]
        for name, value in trainer.model.state_dict().items()
        if not torch.equal(value, before[name])
    } == changed


@pytest.mark.parametrize("architecture", ["lite", "lite-any", "robust"])
def test_a_receiver_is_trained_on_what_is_out_there(
    config: Path, tmp_path: Path, architecture: str
) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = architecture
    settings["options"] |= ANY_OPTIONS if architecture == "lite-any" else {}
    stage = {"train": "receiver", "steps": 2, "batch": 1, "crop": 32, "precision": "fp32"}
    settings["stages"] = [stage | {"warmup": 0, "rate": 1e-2}]
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / "r", torch.device("cpu"))
    frames = torch.rand(1, 3, 4, 32, 32)
    size = (2, 32, 32)
    low = trainer.model.encode(frames, size)
    restored = trainer.model.decode(low, (4, 32, 32))
    trainer.run()
    trainer.model.crf = None  # training tells it how strongly to hide
    assert torch.equal(trainer.model.encode(frames, size), low)
    assert not torch.equal(trainer.model.decode(low, (4, 32, 32)), restored)


def test_what_is_shared_begins_as_what_was_learned_apart(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = "lite-any"
    settings["options"] |= ANY_OPTIONS
    stage = {"train": "space", "steps": 2, "batch": 1, "crop": 24, "precision": "fp32"}
    stage |= {"warmup": 0, "ratios": ["1"], "scales": [2, 2], "whole": 1.0}
    settings["stages"] = [stage, stage | {"share": True, "rate": 0.0, "final_rate": 0.0}]
    settings["weight_decay"] = 0.0
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / "share", torch.device("cpu"))
    name = "shared_half.up.blocks.0.conv1.weight"
    before = trainer.model.state_dict()[name].clone()
    trainer.run()
    learned = trainer.model.state_dict()
    assert torch.equal(learned[name], learned[name.replace("shared", "alone")])
    assert not torch.equal(learned[name], before)


def test_networks_that_cannot_be_shared_are_named(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = "lite-any"
    settings["options"] |= ANY_OPTIONS | {"shared_half": "8h 16h 8h mod 9"}
    settings["stages"] = [{"steps": 1, "share": True}]
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match="share: networks of 8h and 16h cannot begin as others"):
        Trainer(load_config(config), tmp_path / "runs" / "share", torch.device("cpu"))


def test_a_missing_run_is_named(config: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        command(config, "--resume", tmp_path / "nothing"), capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "holds no run to go on with" in result.stderr


def test_a_run_over_ratios_and_scales_starts_from_lite(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    lite = tmp_path / "lite.safetensors"
    checkpoint.save(lite, build("lite", settings["options"]), {})
    settings["architecture"] = "lite-any"
    settings["options"] |= ANY_OPTIONS
    settings["cases"] = [["2", "1"], ["5/4", "1.5"]]
    settings["stages"] = [
        {
            "steps": 4,
            "batch": 1,
            "crop": 24,
            "precision": "fp32",
            "ratios": ["1", "5/4", "3"],
            "other_ratios": 0.2,
            "scales": [1, 3],
            "unscaled": 0.3,
        }
    ]
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / "any", torch.device("cpu"), lite)
    started = checkpoint.load(lite).model.state_dict()["imsm.cells.0.f.conv1.weight"]
    assert torch.equal(trainer.model.state_dict()["imsm.cells.0.f.conv1.weight"], started)
    trainer.run()
    last = trainer.history[-1]
    assert last["clip_psnr"] == pytest.approx((last["2x1"] + last["5/4x3/2"]) / 2)

    settings["options"]["width"] = 16
    config.write_text(yaml.safe_dump(settings))
    refused = subprocess.run(
        command(config, "--run", tmp_path / "runs" / "other", "--init", lite),
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"train: tiny cannot start from {lite}: a lite-any model")


def test_tiny_starts_from_lite_and_learns(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    lite = tmp_path / "lite.safetensors"
    checkpoint.save(lite, build("lite", settings["options"]), {})
    settings["architecture"] = "tiny"
    settings["options"] = {
        "width": 16,
        "up_blocks": "h",
        "cells": settings["options"]["cells"],
        "hidden": settings["options"]["hidden"],
    }
    settings["stages"] = [{"steps": 2, "batch": 1, "crop": 24, "precision": "bf16"}]
    config.write_text(yaml.safe_dump(settings))
    trainer = Trainer(load_config(config), tmp_path / "runs" / "tiny", torch.device("cpu"), lite)
    begun = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    started = checkpoint.load(lite).model.state_dict()["imsm.cells.0.f.conv1.weight"]
    assert begun["imsm.cells.0.f.conv1.weight"].sum() == pytest.approx(
        float(started.sum()) * 256 / 255, rel=1e-3
    )
    trainer.run()
    for name, weight in trainer.model.state_dict().items():
        assert not torch.equal(weight, begun[name]), name


@pytest.mark.parametrize("fast", [False, True])
def test_bfloat16_only_where_there_are_instructions_for_it(
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast: bool,
) -> None:
    computed_in: list[bool] = []
    make = LiteModel.downsample

    def watched(self: LiteModel, high: torch.Tensor, size: Any) -> torch.Tensor:
        computed_in.append(torch.is_autocast_enabled("cpu"))
        return make(self, high, size)

    monkeypatch.setattr(LiteModel, "downsample", watched)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": fast}, raising=False)
    settings = yaml.safe_load(config.read_text())
    settings["stages"] = [{"steps": 2, "batch": 1, "crop": 16, "precision": "bf16"}]
    config.write_text(yaml.safe_dump(settings))
    Trainer(load_config(config), tmp_path / "runs" / "run", torch.device("cpu")).run()
    assert computed_in[:2] == [fast, fast]
    said = " ".join(capsys.readouterr().out.split())
    assert ("train: this device has no instructions for bfloat16" in said) is not fast


def test_files_that_hide_nothing_are_interpolated_and_read(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def watched(name: str) -> None:
        make = getattr(RobustModel, name)

        def noted(self: RobustModel, low: torch.Tensor, size: Any) -> torch.Tensor:
            called.append(name)
            made: torch.Tensor = make(self, low, size)
            return made

        monkeypatch.setattr(RobustModel, name, noted)

    watched("between")
    watched("upsample")
    settings = yaml.safe_load(config.read_text())
    settings["architecture"] = "robust"
    settings["options"] |= {"motion_width": 8, "motion_blocks": ""}
    stage = {"steps": 10, "batch": 1, "crop": 32, "group": 2, "precision": "fp32"}
    settings["stages"] = [stage | {"transport": {"plain": 1.0}}]
    config.write_text(yaml.safe_dump(settings))
    Trainer(load_config(config), tmp_path / "runs" / "plain", torch.device("cpu")).run()
    # Ten steps, and a validation, which reads what it sent.
    assert min(called.count("between"), called.count("upsample") - 1) > 1


def test_a_robust_run_goes_through_x264_from_start_to_end(config: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load(config.read_text())
    stage = {"steps": 3, "batch": 2, "crop": 32, "group": 3, "max_frames": 6, "precision": "fp32"}
    ways = [{"blind": 1.0}, {"plain": 0.5}]
    settings |= {
        "architecture": "robust",
        "options": {**settings["options"], "motion_width": 8, "motion_blocks": "h"},
        "stages": [
            stage | {"transport": {"codecs": ["libx264"], "presets": ["veryfast"], **way}}
            for way in ways
        ],
        "crfs": [18, 30],
        "validate_every": 6,
    }
    settings["stages"][1]["transport"]["rate"] = 1.0
    config.write_text(yaml.safe_dump(settings))
    Trainer(load_config(config), tmp_path / "runs" / "robust", torch.device("cpu")).run()
    trained = checkpoint.load(tmp_path / "runs" / "robust" / "tiny.safetensors")
    scores = trained.info["validation"]
    assert scores["low@18"] > scores["low@30"] > 15
    assert {"odd@18", "odd@30", "plain@18", "plain@30"} <= set(scores)
    assert trained.model.options["motion_width"] == 8
    summary = (tmp_path / "runs" / "robust" / "summary.md").read_text()
    assert "odd@30" in summary
    assert "| 6 |" in summary
