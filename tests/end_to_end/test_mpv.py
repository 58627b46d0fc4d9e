"""mpv itself, where one is there that has the VapourSynth filter."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import vapoursynth as vs
from clips import core
from places import ROOT

MPV = shutil.which("mpv")

KEYFRAMES = 6
"""Low-rate frames from keyframe to keyframe: every other one stands inside a group of 4."""


def has_filter() -> bool:
    if MPV is None:
        return False
    said = subprocess.run([MPV, "--vf=help"], capture_output=True, text=True, check=False)
    return "vapoursynth" in said.stdout


pytestmark = pytest.mark.skipif(not has_filter(), reason="needs mpv built with VapourSynth")


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """38 low-rate frames of 75, the last group shorter than the others."""
    folder = tmp_path_factory.mktemp("mpv")
    source = commands.video(folder / "source.mkv", 2.5, "30")
    sent, low = folder / "sent.mkv", folder / "low.mkv"
    hide = ("--carrier", "yuv", "--no-check", "--model", tiny_model)
    commands.run("encode", source, sent, *hide)
    x264 = ("-c:v", "libx264", "-qp", 0, "-g", KEYFRAMES, "-sc_threshold", 0, "-bf", 0)
    commands.ffmpeg("-i", sent, "-an", *x264, "-pix_fmt", "yuv444p10le", low)
    return low


@pytest.fixture(scope="module")
def script(low: Path, tiny_model: Path) -> Path:
    """The documented one, with the model that made the file."""
    page = (ROOT / "docs" / "players.md").read_text()
    found = re.search(r"```python\n(# play\.vpy\n.*?)```", page, re.DOTALL)
    assert found is not None
    text = found[1].replace("scale=1", f"scale=1, model={str(tiny_model)!r}")
    assert "model" in text
    path = low.with_name("play.vpy")
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def whole(low: Path, script: Path) -> list[str]:
    """Hashes of the frames that the script makes of the whole file."""
    names: dict[str, Any] = {"video_in": core.bs.VideoSource(str(low), cachemode=0)}
    exec(script.read_text().replace(".set_output()", ""), names)
    shown = core.resize.Bicubic(names["clip"], format=vs.YUV444P10, matrix=1)
    return [
        hashlib.md5(b"".join(np.asarray(frame[plane]).tobytes() for plane in range(3))).hexdigest()
        for frame in shown.frames(close=True)
    ]


def played(low: Path, script: Path, *options: str) -> list[str]:
    """Hashes of the frames that mpv shows, and not a word of it about anything."""
    assert MPV is not None
    output = low.with_name("shown.mkv")
    library = subprocess.run(
        ["vapoursynth", "get-vsscript"], capture_output=True, text=True, check=True
    ).stdout.strip()
    done = subprocess.run(
        [
            MPV,
            "--no-config",
            "--no-audio",
            "--quiet",
            "--msg-level=all=warn",
            f"--vf=vapoursynth={script}:buffered-frames=32",
            f"--o={output}",
            "--ovc=ffv1",
            *options,
            str(low),
        ],
        env=os.environ | {"VSSCRIPT_PATH": library},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = commands.ffmpeg("-i", output, "-map", "0:v", "-f", "framemd5", "-").splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def test_every_frame_is_shown_as_vapoursynth_makes_it(
    low: Path, script: Path, whole: list[str]
) -> None:
    assert len(whole) == 76  # 38 low-rate frames
    assert played(low, script) == whole


@pytest.mark.parametrize("frame", [21, 75])
def test_an_exact_seek(frame: int, low: Path, script: Path, whole: list[str]) -> None:
    start = f"--start={frame / 30 - 0.001:.3f}"
    assert played(low, script, start, "--hr-seek=yes") == whole[frame:]


@pytest.mark.parametrize("keyframe", [6, 12])
def test_a_seek_to_a_keyframe_costs_the_group_that_it_stands_in(
    keyframe: int, low: Path, script: Path, whole: list[str]
) -> None:
    start = f"--start={(keyframe + 1) / 15:.3f}"
    shown = played(low, script, start, "--hr-seek=no")
    lost = 2 * (-keyframe % 4)
    assert len(shown) == 76 - 2 * keyframe
    assert shown[lost:] == whole[2 * keyframe + lost :]
