"""Low-rate files cut and joined without re-encoding, by the programs that people do it with."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import commands
import numpy as np
import pytest
from clips import Array
from watched import run

from vs_cvrs.cli.probe import State, probe

SEGMENT = 8
"""Low-rate frames from keyframe to keyframe: two groups."""


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[Path, list[str]]:
    """A low-rate file of 32 frames, a keyframe every 8, and the hashes of what it restores to."""
    folder = tmp_path_factory.mktemp("sent")
    source = commands.video(folder / "source.mkv", 64 / 30, "30")
    low = folder / "low.mkv"
    commands.run("encode", source, low, "--model", tiny_model, "--segment", SEGMENT)
    return low, restored(low, tiny_model, folder / "whole.mkv")


def restored(low: Path, model: Path, output: Path) -> list[str]:
    """Hashes of the frames that ``decode`` makes of a file."""
    said = commands.run("decode", low, output, "--lossless", "--model", model).stderr
    assert "warning" not in said
    lines = commands.ffmpeg("-i", output, "-map", "0:v", "-f", "framemd5", "-").splitlines()
    return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def by_ffmpeg(low: Path, order: list[int], folder: Path) -> Path:
    """Cut at every keyframe, and joined in another order, by ffmpeg."""
    cut = ("-map", "0:v", "-c", "copy", "-f", "segment", "-segment_time", "0.001")
    commands.ffmpeg("-i", low, *cut, "-reset_timestamps", "1", folder / "%d.mkv")
    parts = folder / "parts.txt"
    parts.write_text("".join(f"file '{folder}/{n}.mkv'\n" for n in order))
    joined = folder / "joined.mkv"
    commands.ffmpeg("-f", "concat", "-safe", "0", "-i", parts, "-c", "copy", joined)
    return joined


def by_mkvmerge(low: Path, order: list[int], folder: Path) -> Path:
    """The same by MKVToolNix."""

    def mkvmerge(*words: object) -> None:
        done = subprocess.run(
            ["mkvmerge", "-q", *map(str, words)], capture_output=True, text=True, check=False
        )
        assert done.returncode < 2, done.stdout  # 1: warnings

    frames = ",".join(str(SEGMENT * n + 1) for n in range(1, 4))
    mkvmerge("-o", folder / "%01d.mkv", "--no-audio", "--split", f"frames:{frames}", low)
    words = [str(folder / f"{n + 1}.mkv") for n in order]
    mkvmerge("-o", folder / "joined.mkv", words[0], *(f"+{word}" for word in words[1:]))
    return folder / "joined.mkv"


@pytest.mark.parametrize("order", [[1, 2], [3, 1, 0, 2], [0, 0, 3, 3, 1]])
@pytest.mark.parametrize("program", [by_ffmpeg, by_mkvmerge])
def test_files_cut_at_keyframes_and_joined_again(
    program: Callable[[Path, list[int], Path], Path],
    order: list[int],
    sent: tuple[Path, list[str]],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    if program is by_mkvmerge and shutil.which("mkvmerge") is None:
        pytest.skip("needs MKVToolNix")
    low, whole = sent
    assert len(whole) == 64
    joined = program(low, order, tmp_path)
    high = 2 * SEGMENT
    wanted = [frame for n in order for frame in whole[n * high : (n + 1) * high]]
    assert restored(joined, tiny_model, tmp_path / "out.mkv") == wanted
    found = probe(joined)
    assert found.state == State.INTACT
    parts = sum(order[n] != order[n - 1] + 1 for n in range(1, len(order))) + 1
    assert parts == 1 or f"in {parts} parts joined" in found.because


PART = """
low = core.cvrs.Downsample(clip_of(pictures(40)), fps=15, gop=2, model={model!r})
clip = core.std.RemoveFrameProps(low)[{begin}:]
core.cvrs.Upsample(clip, fps=30, gop=2, scale=1, model={model!r}).set_output()
"""


@pytest.mark.parametrize("begin", [0, 1])
def test_vspipe_from_any_frame_of_a_group(
    begin: int,
    conv_model: Path,
    write_script: Callable[[str], Path],
    vapoursynth_env: dict[str, str],
) -> None:
    script = str(write_script(PART.format(model=str(conv_model), begin=begin)))

    def frames(*words: str) -> Array:
        code, raw, log = run(["vspipe", *words, script, "-"], vapoursynth_env)
        assert code == 0, log
        return np.frombuffer(raw, np.uint8).reshape(-1, 3, 24, 32)

    whole = frames()
    assert len(whole) == 40 - 2 * begin
    for start in range(4, 8):
        part = frames("--start", str(start), "--end", str(start + 6))
        np.testing.assert_array_equal(part, whole[start : start + 7])
