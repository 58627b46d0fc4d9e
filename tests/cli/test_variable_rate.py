"""Files of a variable frame rate: every frame keeps its time, there and back."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import commands
import numpy as np
import pytest

from vs_cvrs.cli.clips import Video, open_video
from vs_cvrs.cli.streams import streams_of
from vs_cvrs.cli.tags import read_tags
from vs_cvrs.cli.times import TABLE, attached_times, retiming
from vs_cvrs.cli.timing import Timing, rate_text

X264 = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "8"]
FRAMES, RATE = 75, Fraction(30)

PHONE = (
    "settb=1/90000,setpts='round((N/30+0.002*sin(1.7*N)"
    "+if(gt(N,20),0.2,0)+if(gt(N,60),(N-60)/60,0))*90000)'"
)
"""As phones write them: no two steps are the same, some frames are left out, and in the dark there
are fewer of them."""


@pytest.fixture(scope="module")
def phone(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("phone") / "phone.mp4"
    words = ["-fps_mode", "passthrough", "-enc_time_base", "1/90000"]
    words += ["-video_track_timescale", "90000", "-bf", "2"]
    commands.ffmpeg("-i", source, "-vf", PHONE, *X264, *words, "-c:a", "aac", path)
    return path


@pytest.fixture(scope="module")
def sent(phone: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sent") / "low.mkv"
    commands.run("encode", phone, out, "--model", tiny_model, "--segment", 16)
    return out


def read(path: Path) -> Video:
    return open_video(path, any_times=True)


def times_of(path: Path) -> np.ndarray:
    times = read(path).times
    assert times is not None
    return times


def sound(path: Path) -> list[str]:
    said = commands.ffmpeg("-i", path, "-map", "0:a", "-c", "copy", "-f", "framemd5", "-")
    return [line.split(",")[5] for line in said.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    ("form", "words"),
    [("mkv", []), ("mp4", []), ("mkv", ["--codec", "ffv1"]), ("mov", ["--codec", "x265"])],
)
def test_every_frame_has_its_time_back(
    form: str, words: list[str], phone: Path, sent: Path, tiny_model: Path, tmp_path: Path
) -> None:
    wanted = times_of(phone)
    steps = np.diff(wanted)
    assert not read(phone).constant
    assert (wanted.size, len(set(steps.round(4)))) > (FRAMES - 1, 40)
    shown = wanted[::2]
    np.testing.assert_allclose(times_of(sent) - shown[0], shown - shown[0], atol=0.001)
    out = tmp_path / f"out.{form}"
    said = commands.run("decode", sent, out, "--model", tiny_model, "--segment", 16, *words).stderr
    assert f"{FRAMES} frames at times of their own (most at {rate_text(RATE)} fps)" in said
    found = times_of(out)
    assert found.size == FRAMES
    # Matroska has milliseconds.
    off = 0.00051 if form == "mkv" else 0.00001
    np.testing.assert_allclose(found - found[0], wanted - wanted[0], atol=off)
    assert commands.beeps(out) == pytest.approx(commands.beeps(phone), abs=0.001)
    assert sound(phone) == sound(sent) == sound(out)
    assert [s.kind for s in streams_of(out)] == ["video", "audio"]


def test_frames_are_grouped_by_their_number(phone: Path, sent: Path) -> None:
    tags = read_tags(sent)
    assert tags is not None
    assert tags.timed
    assert (tags.first.length, tags.first.rate, tags.low_length) == (FRAMES, RATE, 38)
    table = attached_times(sent)
    assert table is not None
    times = times_of(phone)
    np.testing.assert_allclose(table, times - times[0], atol=1e-5)


def test_a_part_of_it(phone: Path, tiny_model: Path, tmp_path: Path) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    words = ["--model", tiny_model, "--start", "0.9", "--end", "60f"]
    commands.run("encode", phone, low, *words)
    commands.run("decode", low, out, "--model", tiny_model)
    wanted = times_of(phone)
    begin = int(np.abs(wanted - wanted[0] - 0.9).argmin())
    assert begin not in (0, 27)
    found = times_of(out)
    part = wanted[begin:60]
    np.testing.assert_allclose(found - found[0], part - part[0], atol=0.00051)
    beeps = [beep - part[0] for beep in commands.beeps(phone) if part[0] < beep < wanted[60]]
    assert commands.beeps(out) == pytest.approx(beeps, abs=0.002)


def test_killed_and_resumed(phone: Path, sent: Path, tiny_model: Path, tmp_path: Path) -> None:
    for command, source, whole in (("encode", phone, sent), ("decode", sent, None)):
        out = tmp_path / f"{command}.mkv"
        words = [command, source, out, "--model", tiny_model, "--segment", 16]
        if whole is None:
            whole = tmp_path / "whole.mkv"
            commands.run(command, source, whole, *words[3:])
        process = commands.start(*words)
        commands.wait_for(out.with_name(out.name + ".part") / "00001.nut", process)
        process.kill()
        process.communicate(timeout=60)
        assert not out.exists()
        commands.run(*words, "--resume")
        assert out.read_bytes() == whole.read_bytes()
        assert not out.with_name(out.name + ".part").exists()


def test_info_and_compare_know_it(
    phone: Path, sent: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    facts = json.loads(commands.run("info", sent, "--json").stdout)
    last = times_of(phone)[-1] - times_of(phone)[0]
    assert facts["rate"] == f"{RATE} for most frames, which have times of their own: {last:.3f} s"
    commands.run("decode", sent, out, "--model", tiny_model)
    assert "differ by at most 0.0 ms" in commands.run("compare", phone, out).stdout


def test_without_the_table(phone: Path, sent: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A cut drops attachments; what is left are the times of the low-rate frames."""
    cut, out = tmp_path / "cut.mkv", tmp_path / "out.mkv"
    commands.ffmpeg("-i", sent, "-c", "copy", cut)
    assert TABLE not in [s.metadata.get("filename") for s in streams_of(cut)]
    said = commands.run("decode", cut, out, "--model", tiny_model).stderr
    assert f"{cut} has lost the table of its frames' times: removed frames are spread" in said
    wanted, found = times_of(phone), times_of(out)
    assert found.size == FRAMES
    wanted, found = wanted - wanted[0], found - found[0]
    np.testing.assert_allclose(found[::2], wanted[::2], atol=0.0011)
    between = (wanted[:-1:2][: FRAMES // 2] + wanted[2::2]) / 2
    np.testing.assert_allclose(found[1:-1:2], between, atol=0.0011)


def test_a_table_of_another_cut(sent: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The table is of the whole file: what was shifted after that is not to be undone."""
    late, out = tmp_path / "late.mkv", tmp_path / "out.mkv"
    shift = "setts=ts='TS+if(gt(TS,1000),500,0)'"
    commands.ffmpeg("-i", sent, "-map", 0, "-c", "copy", "-bsf:v", shift, late)
    said = commands.run("decode", late, out, "--model", tiny_model).stderr
    assert f"{late} was cut or joined: removed frames are spread evenly" in said
    assert times_of(out)[-1] == pytest.approx(times_of(late)[-1], abs=0.05)


@pytest.mark.parametrize("rate", ["30", "30000/1001", "24000/1001", "25"])
@pytest.mark.parametrize("form", ["mkv", "mp4"])
def test_the_rate_that_most_frames_have(form: str, rate: str, tmp_path: Path) -> None:
    source = tmp_path / f"in.{form}"
    commands.ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate={rate}:duration=4"),
        *("-vf", "select='not(eq(mod(n,33),5))'", "-fps_mode", "vfr", *X264, source),
    )
    video = read(source)
    assert not video.constant
    assert Fraction(video.clip.fps) == Fraction(rate)
    given = f"{float(Fraction(rate)):.3f}".rstrip("0").rstrip(".")
    assert f"--constant-rate {given} would make it constant" in video.remarks[0]


def test_a_constant_rate_is_made_where_it_is_asked_for(
    phone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    words = ["--model", tiny_model, "--constant-rate", "30"]
    said = commands.run("encode", phone, low, *words).stderr
    assert "varies" not in said
    commands.run("decode", low, out, "--model", tiny_model)
    assert read(out).constant
    assert attached_times(low) is None
    assert "PSNR" in commands.run("compare", phone, out, "--constant-rate", "30").stdout


def test_rounded_times_are_those_of_a_constant_rate() -> None:
    for rate in (Fraction(30000, 1001), Fraction(1234, 100), Fraction(15)):
        times = np.round(np.arange(5000) / float(rate), 3)
        timing = Timing(times, Fraction(5000, round(float(times[-1]))))
        assert timing.is_constant(timing.rate())
        assert float(timing.rate()) == pytest.approx(float(rate), rel=1e-5)
    jitter = np.arange(100) / 30 + 0.003 * np.sin(np.arange(100))
    timing = Timing(jitter, Fraction(30))
    assert not timing.is_constant(timing.rate())
    assert timing.usual_rate() == 30


DICE = np.random.default_rng(1)
GRID = np.arange(300) / 30
LEFT = DICE.uniform(size=300) > 0.15
SHAKEN = np.sort(GRID + DICE.uniform(-0.008, 0.008, 300))


@pytest.mark.parametrize(
    ("rate", "times"),
    [
        ("30", np.cumsum(1 / DICE.uniform(28, 32, 300))),
        ("30", np.sort(GRID + DICE.uniform(-0.01, 0.01, 300))),
        ("30", GRID + 0.012 * np.sin(1.7 * np.arange(300))),
        ("30", np.cumsum(np.abs(DICE.normal(1 / 30, 0.006, 300)))),
        ("30", GRID[LEFT]),
        ("30", SHAKEN[LEFT]),
        ("30", np.concatenate([GRID[:200], GRID[200] + np.arange(100) / 24])),
        ("12.3", np.arange(300) / 12.3 + DICE.uniform(-0.001, 0.001, 300)),
    ],
    ids=["28 to 32", "shaken", "waves", "strolling", "dropped", "both", "dark", "no usual rate"],
)
def test_the_rate_of_phones(rate: str, times: np.ndarray) -> None:
    stated = Fraction(times.size) / Fraction(float(times[-1])).limit_denominator(1000)
    assert rate_text(Timing(times, stated).usual_rate()) == rate


def test_a_film_of_four_hours_can_be_retimed(tmp_path: Path) -> None:
    """The table is longer than an argument of a program may be."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.05, 400_000))
    table, video = tmp_path / "table", tmp_path / "video.nut"
    table.write_text(retiming(times, Fraction(30)))
    picture = ["-f", "lavfi", "-i", "color=s=16x16:r=30:d=1", "-bf", 2]
    commands.ffmpeg(*picture, *X264, video)
    listed = ["-f", "framecrc", "-"]
    said = commands.ffmpeg("-i", video, "-c", "copy", "-/bsf:v", table, *listed)
    rows = [line.split(",") for line in said.splitlines() if not line.startswith("#")]
    ticks = sorted(int(row[2]) for row in rows)
    assert ticks == [round(90000 * t) for t in (times - times[0])[:30]]
    assert all(int(row[1]) <= int(row[2]) for row in rows)
