"""vs-cvrs encode and decode, with real files, a real ffmpeg and real kills."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import commands
import numpy as np
import pytest
from clips import core, frames_of
from conftest import TINY_LITE

from vs_cvrs.cli.clips import open_video, to_rgb24
from vs_cvrs.cli.tags import read_tags


@pytest.fixture(scope="module")
def long_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.video(tmp_path_factory.mktemp("source") / "long.mkv", seconds=8, size="96x72")


def pictures(path: Path) -> np.ndarray:
    return frames_of(to_rgb24(open_video(path).clip, unstated=1)[0])


def test_there_and_back(source: Path, tiny_model: Path, low: Path, tmp_path: Path) -> None:
    assert not low.with_name("low.mkv.part").exists()
    clip = open_video(low).clip
    assert (clip.num_frames, clip.fps) == (38, Fraction(15000, 1001))
    original, _ = to_rgb24(open_video(source).clip)
    direct = core.cvrs.Downsample(original, factor_num=2, check=1, model=str(tiny_model))
    np.testing.assert_array_equal(pictures(low), frames_of(direct))
    out = tmp_path / "restored.mkv"
    commands.run("decode", low, out, "--model", tiny_model, "--lossless", "--segment", 20)
    restored = open_video(out)
    assert (restored.clip.num_frames, restored.clip.fps) == (75, Fraction(30000, 1001))
    np.testing.assert_array_equal(
        pictures(out), frames_of(core.cvrs.Upsample(direct, model=str(tiny_model)))
    )
    for path in (source, low, out):
        assert commands.beeps(path) == pytest.approx([0, 1, 2], abs=0.002), path


@pytest.mark.parametrize("codec", ["x265", "ffv1"])
def test_other_encoders_give_the_same_frames(
    codec: str, source: Path, tiny_model: Path, low: Path, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    commands.run("encode", source, out, "--model", tiny_model, "--codec", codec, "--segment", 16)
    np.testing.assert_array_equal(pictures(out), pictures(low))
    assert open_video(out).clip.get_frame(0).props["_Matrix"] == 0


def test_a_part_in_a_playable_file(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.mkv"
    commands.run("encode", source, part, "--model", tiny_model, "--start", "21f", "--end", "0:01.9")
    tags = read_tags(part)
    assert tags is not None
    assert (tags.first.length, tags.low_length) == (36, 18)
    assert commands.beeps(part) == pytest.approx([1 - 21 * 1001 / 30000], abs=0.002)
    out = tmp_path / "restored.mp4"
    said = commands.run("decode", part, out, "--model", tiny_model)
    assert "36 frames at 29.97 fps" in said.stderr
    clip = open_video(out).clip
    assert (clip.num_frames, clip.fps, clip.format.name) == (36, Fraction(30000, 1001), "YUV420P8")


def test_video_that_begins_late_stays_with_its_audio(
    source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    late = tmp_path / "late.mkv"
    commands.ffmpeg(
        *("-itsoffset", "0.4", "-i", source, "-i", source),
        *("-map", "0:v", "-map", "1:a", "-c", "copy", late),
    )
    out = tmp_path / "low.mkv"
    commands.run("encode", late, out, "--model", tiny_model)
    assert open_video(out).start == 0
    assert commands.beeps(out) == pytest.approx([0.6, 1.6], abs=0.002)


def test_pixel_shape_and_other_rates(tiny_model: Path, tmp_path: Path, source: Path) -> None:
    wide = tmp_path / "wide.mkv"
    commands.ffmpeg("-i", source, "-an", "-vf", "setsar=16/11", "-c:v", "ffv1", wide)
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    commands.run("encode", wide, low, "--model", tiny_model, "--fps", "14.985")
    commands.run("decode", low, out, "--model", tiny_model)
    assert open_video(low).pixel_shape == open_video(out).pixel_shape == Fraction(16, 11)


def test_the_same_run_twice_gives_the_same_file(
    source: Path, tiny_model: Path, low: Path, tmp_path: Path
) -> None:
    again = tmp_path / "low.mkv"
    commands.run("encode", source, again, "--model", tiny_model, "--segment", 16)
    assert again.read_bytes() == low.read_bytes()


@pytest.fixture(scope="module")
def undisturbed(
    long_source: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> bytes:
    out = tmp_path_factory.mktemp("undisturbed") / "low.mkv"
    commands.run("encode", long_source, out, "--model", tiny_model, "--segment", 10)
    return out.read_bytes()


@pytest.mark.parametrize("victim", ["vs-cvrs", "ffmpeg"])
def test_killed_and_resumed(
    victim: str, long_source: Path, tiny_model: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    words = ["encode", long_source, out, "--model", tiny_model, "--segment", 10]
    process = commands.start(*words)
    commands.wait_for(tmp_path / "low.mkv.part" / "00001.nut", process)
    if victim == "vs-cvrs":
        process.kill()
        process.communicate(timeout=60)
    else:
        while not (found := commands.children_of(process, "ffmpeg")):
            assert process.poll() is None, "it ended too early"
        commands.kill(found[0])
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1
        assert "ffmpeg was ended by SIGKILL; try --resume" in said or "ffmpeg ended" in said
    assert not out.exists()
    assert "--resume goes on from it" in commands.run(*words, code=1).stderr
    other = commands.run(*words[:-1], 5, "--resume", code=1)
    assert "belongs to another job (not the same: segment)" in other.stderr
    commands.run(*words, "--resume")
    assert out.read_bytes() == undisturbed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["low.mkv"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(
    number: signal.Signals, long_source: Path, tiny_model: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    words = ["encode", long_source, out, "--model", tiny_model, "--segment", 10]
    process = commands.start(*words)
    part = tmp_path / "low.mkv.part"
    commands.wait_for(part / "00001.nut", process)
    begin = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begin < 2
    assert process.returncode == 128 + number
    assert f"Temporary files are in {part}: --resume goes on from them." in said
    assert not out.exists()
    if number == signal.SIGINT:
        commands.run(*words, "--resume")
        assert out.read_bytes() == undisturbed


def indexing(source: Path, model: Path, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run of `encode` while it reads the film, and where its temporary files lie."""
    temporary = folder / "tmp"
    temporary.mkdir()
    words = ["encode", source, folder / "low.mkv", "--model", model]
    process = commands.start(*words, env={"TMPDIR": str(temporary)})
    commands.wait_for(temporary / "vs-cvrs-*", process)
    return process, temporary


def test_interrupted_while_the_file_is_read(
    long_source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    process, temporary = indexing(long_source, tiny_model, tmp_path)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begin < 2
    assert process.returncode == 128 + signal.SIGINT
    assert "vs-cvrs: interrupted." in said
    assert "Traceback" not in said
    assert not [path for path in temporary.iterdir() if path.name.startswith("vs-cvrs-")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"]


def test_a_closed_terminal_leaves_no_temporary_files(
    long_source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    process, temporary = indexing(long_source, tiny_model, tmp_path)
    assert process.stderr is not None
    # Stopped, so that it says nothing to the closed end before the signal is there.
    process.send_signal(signal.SIGSTOP)
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGCONT)
    assert process.wait(timeout=60) == 128 + signal.SIGHUP
    assert not [path for path in temporary.iterdir() if path.name.startswith("vs-cvrs-")]


def test_decode_interrupted_and_resumed(
    low: Path, tiny_model: Path, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    out, wanted = tmp_path / "restored.mkv", tmp_path / "wanted.mkv"
    words = ["--model", tiny_model, "--lossless", "--segment", 8]
    commands.run("decode", low, wanted, *words)
    process = commands.start("decode", low, out, *words)
    part = tmp_path / "restored.mkv.part"
    commands.wait_for(part / "00000.nut", process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)  # by someone impatient
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert f"Temporary files are in {part}: --resume goes on from them." in said
    assert not out.exists()
    another = save_model("lite", TINY_LITE, seed=3)
    said = commands.run("decode", low, out, *words, "--model", another, "--resume", code=1).stderr
    assert "belongs to another job (not the same: model and sizes)" in said
    commands.run("decode", low, out, *words, "--resume")
    assert out.read_bytes() == wanted.read_bytes()


def test_two_runs_do_not_share_a_file(long_source: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "low.mkv"
    part = tmp_path / "low.mkv.part"
    part.mkdir()
    holder = os.open(part, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        said = commands.run(
            "encode", long_source, out, "--model", tiny_model, "--resume", code=1
        ).stderr
        assert "another process is writing" in said
    finally:
        os.close(holder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk(small_disk: Path, long_source: Path, tiny_model: Path) -> None:
    out = small_disk / "low.mkv"
    words = ["encode", long_source, out, "--model", tiny_model, "--segment", 10]
    said = commands.run(*words, code=1).stderr
    assert "No space left on device" in said
    assert "make room" in said
    assert not out.exists()


@pytest.mark.parametrize(
    ("largest", "message"),
    [
        (0, "cannot write temporary files: make room, or set TMPDIR"),
        (300, "cannot write temporary files: make room, or set TMPDIR"),
        (1_000, "cannot write temporary files: make room, or set TMPDIR"),  # for audio on trial
        (3_000, "File too large"),  # in the first segment
        (None, "File too large"),  # when all segments are there and are joined
    ],
)
def test_no_room_for_a_larger_file(
    largest: int | None, message: str, source: Path, tiny_model: Path, low: Path, tmp_path: Path
) -> None:
    """As a full disk, for those who may not mount one."""
    largest = low.stat().st_size - 1000 if largest is None else largest
    out = tmp_path / "low.mkv"
    code = (
        "import resource, runpy;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}));"
        "runpy.run_module('vs_cvrs', run_name='__main__')"
    )
    words = ["encode", source, out, "--model", tiny_model, "--segment", 16]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("vs-cvrs encode: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert not out.exists()
    commands.run(*words, "--resume")
    assert out.read_bytes() == low.read_bytes()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["encode", "IN", "out.mp4"], "OUT must be a Matroska file"),
        (["encode", "missing.mkv", "out.mkv"], "missing.mkv is not a file"),
        (["encode", "TEXT", "out.mkv"], "cannot be read as video"),
        (["encode", "IN", "out.mkv", "--fps", "15", "--time-factor", "2"], "not both"),
        (["encode", "IN", "out.mkv", "--fps", "0"], "--fps must be at least 0.001 frames"),
        (["encode", "IN", "out.mkv", "--fps", "0/1"], "--fps must be greater than 0"),
        (["encode", "IN", "out.mkv", "--fps", "29.97"], "is the rate that IN has"),
        (["encode", "IN", "out.mkv", "--time-factor", "1"], "--time-factor 1 lowers nothing"),
        (["encode", "IN", "out.mkv", "--preset", "foo"], "--preset must be one of ultrafast,"),
        (
            ["encode", "IN", "out.mkv", "--codec", "ffv1", "--preset", "slow"],
            "--preset is for x264 and x265, got --codec ffv1",
        ),
        (["encode", "IN", "out.mkv", "--fps", "1/0"], "--fps must be a number or a fraction"),
        (
            ["encode", "missing.mkv", "out.mkv", "--fps", "x"],
            "--fps must be a number or a fraction",
        ),
        (["encode", "missing.mkv", "out.mkv", "--time-factor", "0"], "--time-factor must be at"),
        (["encode", "missing.mkv", "out.mkv", "--constant-rate", "x"], "--constant-rate must be a"),
        (["encode", "missing.mkv", "out.mkv", "--scale", "0.5"], "--scale must be 1 to 32768, got"),
        (["encode", "missing.mkv", "out.mkv", "--end", "x"], "--end must be like"),
        (["encode", "missing.mkv", "out.mkv", "--bits", "9"], "--bits must be auto, 8 or 10"),
        (["encode", "IN", "out.mkv", "--start", "9"], "leave no frame: from 270 to 75"),
        (["encode", "IN", "out.mkv", "--start", "x"], "--start must be like"),
        (["encode", "IN", "out.mkv", "--model", "nothing"], "unknown model 'nothing'"),
        (["encode", "IN", "no/such/out.mkv"], "there is no folder"),
        (["encode", "IN", "TEXT"], "exists; --overwrite replaces it"),
        (["decode", "IN", "out.avi"], "OUT must be a .mkv, .mp4 or .mov file"),
        (["decode", "IN", "out.mp4", "--codec", "ffv1"], "ffv1 goes into .mkv files only"),
        (
            ["decode", "IN", "out.mkv", "--lossless", "--crf", "16"],
            "--crf is for encoders with loss, got --lossless",
        ),
        (["decode", "IN", "out.mkv", "--codec", "ffv1", "--crf", "20"], "got --codec ffv1"),
        (["decode", "IN", "out.mkv"], "carries no hidden motion"),
        (["decode", "missing.mkv", "out.mkv"], "missing.mkv is not a file"),
        (["info", "missing.mkv"], "missing.mkv is not a file"),
        (["compare", "IN", "IN", "--png", "out.foo"], "--png must end in .png, .jpg, .svg or"),
        (["compare", "IN", "IN", "--png", "no/such/out.png"], "there is no folder"),
    ],
)
def test_errors_are_one_sentence(
    words: list[str], wanted: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.mkv"
    text.write_text("no video at all")
    monkeypatch.chdir(tmp_path)
    names = {"IN": str(source), "TEXT": str(text)}
    done = commands.run(*(names.get(word, word) for word in words), code=1)
    lines = done.stderr.strip().splitlines()
    assert wanted in lines[-1]
    assert lines[-1].startswith(f"vs-cvrs {words[0]}: ")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.mkv").exists()


def test_one_frame_is_a_frame(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    words = ["--start", "5f", "--end", "6f"]
    said = commands.run("encode", source, out, "--model", tiny_model, *words).stderr
    assert ": 1 frame at 14.985 fps" in said


def test_the_size_is_foretold(source: Path, tiny_model: Path, low: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mkv"
    said = commands.run("encode", source, out, "--model", tiny_model, "--segment", 16).stderr
    wanted = r"will have about ([\d.]+) kB beside audio and other tracks, by its first 16 frames"
    told = re.search(wanted, said)
    assert told is not None, said
    silent = tmp_path / "silent.mkv"
    commands.ffmpeg("-i", low, "-an", "-c", "copy", silent)
    assert float(told[1]) * 1e3 == pytest.approx(silent.stat().st_size, rel=0.25)


def test_quiet_only_when_asked(source: Path, tiny_model: Path, tmp_path: Path) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    words = ["--model", tiny_model]
    assert commands.run("encode", source, low, *words, "--quiet").stderr == ""
    assert commands.run("decode", low, out, *words, "--quiet").stderr == ""
    said = commands.run("decode", low, out, *words, "--quiet", code=1).stderr
    assert "exists; --overwrite replaces it" in said
    assert "75 frames" in commands.run("decode", low, out, *words, "--overwrite").stderr


def test_help_has_a_short_name() -> None:
    assert "encode" in commands.run("-h").stdout
    assert "--constant-rate" in commands.run("encode", "-h").stdout


def test_a_scaled_file_is_refused(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.mkv"
    commands.ffmpeg("-i", low, "-vf", "scale=32:24", "-c:v", "ffv1", small)
    said = commands.run("decode", small, tmp_path / "out.mkv", "--model", tiny_model, code=1).stderr
    assert "was scaled from 64x48 to 32x24" in said


def test_the_version_is_that_of_the_package() -> None:
    from vs_cvrs import __version__

    assert commands.run("--version").stdout.strip() == __version__
    assert shutil.which("vs-cvrs", path=Path(sys.executable).parent) is not None
