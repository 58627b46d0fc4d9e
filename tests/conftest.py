from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import commands
import doubles
import pytest
import torch
import vapoursynth as vs
import watched
from clips import core

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model import build
from vs_cvrs.runtime.transfer import cupy_version

TESTS = Path(__file__).resolve().parent

TINY_CONV: dict[str, Any] = {
    "block_num": 1,
    "down_opt": {"mid_channels": 4, "three_D_res_num": 1, "kernel_size": [3, 3, 3]},
    "up_opt": {"mid_channels": 8, "three_D_res_num": 1, "fuse_channels": 4},
}

TINY_LITE = {"width": 8, "hidden": 8, "down_blocks": "", "up_blocks": "", "cells": 1}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() and cupy_version() is not None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device and CuPy"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small tensors only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What VapourSynth logs as warnings."""
    found: list[str] = []

    def handle(kind: vs.MessageType, text: str) -> None:
        if kind == vs.MESSAGE_TYPE_WARNING:
            found.append(text)

    handler = core.add_log_handler(handle)
    yield found
    core.remove_log_handler(handler)


@pytest.fixture(scope="session")
def save_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Saves an untrained model: save_model(architecture, options, seed) -> file."""

    def save(architecture: str, options: dict[str, Any], seed: int = 0, name: str = "m") -> Path:
        path = tmp_path_factory.mktemp("models") / f"{name}.safetensors"
        torch.manual_seed(seed)
        checkpoint.save(path, build(architecture, options), {})
        return path

    return save


@pytest.fixture(scope="session")
def nearest_model(save_model: Callable[..., Path]) -> Path:
    return save_model("nearest", {}, name="nearest")


@pytest.fixture
def down(nearest_model: Path) -> Callable[..., Any]:
    """Downsample with the nearest model."""
    return lambda clip, **kw: core.cvrs.Downsample(clip, model=str(nearest_model), **kw)


@pytest.fixture
def up(nearest_model: Path) -> Callable[..., Any]:
    """Upsample with the nearest model."""
    return lambda clip, **kw: core.cvrs.Upsample(clip, model=str(nearest_model), **kw)


@pytest.fixture(scope="session")
def conv_model(save_model: Callable[..., Path]) -> Path:
    return save_model("conv", TINY_CONV, name="conv")


@pytest.fixture(scope="session")
def tiny_model(save_model: Callable[..., Path]) -> Path:
    return save_model("lite", TINY_LITE, name="tiny")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video file of 75 frames with sound."""
    return commands.video(tmp_path_factory.mktemp("source") / "source.mkv", seconds=2.5)


@pytest.fixture(scope="session")
def low(source: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``encode`` makes of it."""
    out = tmp_path_factory.mktemp("low") / "low.mkv"
    commands.run("encode", source, out, "--model", tiny_model, "--segment", 16)
    return out


@pytest.fixture
def before_stage(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], None]], None]:
    """Sets what the nearest model calls before each of its stages."""

    def set_hook(hook: Callable[[str], None]) -> None:
        monkeypatch.setattr(doubles.NearestModel, "before_stage", staticmethod(hook))

    return set_hook


@pytest.fixture(scope="session")
def vapoursynth_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which vspipe finds this Python and its configuration."""
    bin_dir = str(Path(sys.executable).parent)
    config = tmp_path_factory.mktemp("config")
    env = os.environ | {
        "PATH": os.pathsep.join([bin_dir, os.environ.get("PATH", "")]),
        "XDG_CONFIG_HOME": str(config),
        # An empty part of it would be the folder that the tests are run in: the sources.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")])),
    }
    subprocess.run(["vapoursynth", "config"], env=env, check=True, capture_output=True, timeout=120)
    return env


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a VapourSynth script that begins with the usual imports."""

    def write(body: str) -> Path:
        path = tmp_path / "script.vpy"
        path.write_text(f"import vapoursynth as vs\nfrom clips import *\n{body}\n")
        return path

    return write


@pytest.fixture
def run_python(
    write_script: Callable[[str], Path], vapoursynth_env: dict[str, str]
) -> Callable[[str], str]:
    """Runs a script in a Python of its own, under a watchdog; what it prints."""

    def run(body: str) -> str:
        # Where it hangs is said by itself, before it is killed.
        alarm = f"import faulthandler\nfaulthandler.dump_traceback_later({watched.SECONDS - 5})"
        script = write_script(f"{alarm}\n{body}")
        # On a busy machine, helper threads that wait by spinning make everything wait.
        env = vapoursynth_env | {"OMP_WAIT_POLICY": "passive"}
        code, out, log = watched.run([sys.executable, str(script)], env)
        assert code == 0, log
        return out.decode()

    return run
