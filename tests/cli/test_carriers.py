"""Carriers of 8 and 10 bits, with real encoders, and what they keep of deep and HDR sources."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

import commands
import numpy as np
import pytest
import vapoursynth as vs
from clips import core, frames_of

from vs_cvrs.carrier.lossless import CODECS, COLOURS, DEPTHS
from vs_cvrs.cli.clips import open_video, to_low_rate
from vs_cvrs.cli.colours import Colours
from vs_cvrs.cli.encodings import choose_carrier
from vs_cvrs.cli.running import CliError
from vs_cvrs.programs.ffmpeg import find_ffmpeg

DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
CARRIERS = [c for c in itertools.product(CODECS, COLOURS, DEPTHS) if (c[0], c[2]) != ("x264", 10)]


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames in RGB of 10 bits, each shown twice: ramps that 8 bits do not hold."""
    path = tmp_path_factory.mktemp("deep") / "deep.mkv"
    ramp = (
        "geq=r='mod(3*X+trunc(N/2),1024)':g='mod(5*Y+N-mod(N,2),1024)':b='mod(X*Y+trunc(N/2),1024)'"
    )
    commands.ffmpeg(
        *("-f", "lavfi", "-i", "color=s=64x48:r=24:d=2.5", "-vf", f"format=gbrp10le,{ramp}"),
        *("-c:v", "ffv1", path),
    )
    return path


def keyframes(path: Path) -> list[int]:
    """Numbers of the frames at which ffmpeg can cut a file without encoding it anew."""
    folder = path.with_suffix(".cut")
    folder.mkdir()
    commands.ffmpeg(
        *("-i", path, "-map", "0:v", "-c", "copy", "-f", "segment", "-segment_time", "0.0001"),
        *("-segment_format", "nut", "-segment_list", folder / "list.csv", folder / "%d.nut"),
    )
    parts = [line.split(",")[0] for line in (folder / "list.csv").read_text().splitlines()]
    counts = [len(core.bs.VideoSource(str(folder / part), cachemode=0)) for part in parts]
    return [sum(counts[:n]) for n in range(len(counts))]


@pytest.mark.parametrize(("codec", "colours", "bits"), CARRIERS)
def test_there_and_back_on_every_carrier(
    codec: str, colours: str, bits: int, deep: Path, nearest_model: Path, tmp_path: Path
) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    asked = ["--codec", codec, "--carrier", colours, "--bits", bits]
    said = commands.run("encode", deep, low, "--model", nearest_model, *asked).stderr
    assert ("10 bits (8 are)" in said) == (bits == 8)
    commands.run("info", low, "--all")
    direct = core.cvrs.Downsample(
        core.resize.Point(open_video(deep).clip, format=vs.RGB48),
        *(), model=str(nearest_model), factor_num=2, bits=bits, check=1,
    )  # fmt: skip
    np.testing.assert_array_equal(frames_of(to_low_rate(open_video(low).clip)), frames_of(direct))
    assert keyframes(low) == [0, 24]
    commands.run("decode", low, out, "--model", nearest_model, "--lossless")
    restored = frames_of(core.resize.Point(to_low_rate(open_video(out).clip), format=vs.RGB30))
    error = np.abs(restored.astype(int) - frames_of(open_video(deep).clip))
    # The stamp moves a level, and rounding to 8 bits is two of 10 at most.
    assert error.max() <= (1 if bits == 10 else 6)
    assert (error.mean() < 0.1) == (bits == 10)


@pytest.mark.parametrize(("codec", "bits"), [("x265", 10), ("ffv1", 10), ("ffv1", 8)])
def test_resumed_on_other_carriers(
    codec: str, bits: int, deep: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["--model", tiny_model, "--codec", codec, "--bits", bits, "--segment", 8]
    commands.run("encode", deep, tmp_path / "whole.mkv", *words)
    out = tmp_path / "low.mkv"
    process = commands.start("encode", deep, out, *words)
    container = "mkv" if codec == "ffv1" else "nut"
    commands.wait_for(tmp_path / "low.mkv.part" / f"00001.{container}", process)
    process.kill()
    process.communicate(timeout=60)
    commands.run("encode", deep, out, *words, "--resume")
    assert out.read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    assert all(n % 4 == 0 for n in keyframes(out))


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize("end", ["out.mkv", "out.mp4"])
def test_what_hdr_files_say_of_themselves_arrives(
    transfer: str, end: str, tiny_model: Path, tmp_path: Path
) -> None:
    source, low, out = tmp_path / "hdr.mkv", tmp_path / "low.mkv", tmp_path / end
    said = [f"master-display={DISPLAY}", "max-cll=1000,400"] if transfer == "smpte2084" else []
    said += ["log-level=error", "colorprim=bt2020", f"transfer={transfer}", "colormatrix=bt2020nc"]
    commands.ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=0.5", "-pix_fmt", "yuv420p10le"),
        *("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", ":".join(said), source),
    )
    commands.run("encode", source, low, "--model", tiny_model)
    commands.run("decode", low, out, "--model", tiny_model)
    before, after = (open_video(path) for path in (source, out))
    assert after.clip.format.name == "YUV420P10"
    assert before.colours == after.colours
    assert before.colours.hdr == ("PQ" if said[0].startswith("master") else "HLG")
    assert before.colours.mastering == (DISPLAY if before.colours.hdr == "PQ" else "")
    for path in (low, out):
        shown = describe(path)
        assert ("Mastering display metadata" in shown) == (before.colours.hdr == "PQ")
        assert ("MaxCLL=1000, MaxFALL=400" in shown) == (before.colours.hdr == "PQ")
    assert f"bt2020nc/bt2020/{transfer}" in describe(out)


def describe(path: Path) -> str:
    """What ffmpeg prints of a file's container."""
    done = subprocess.run(
        [find_ffmpeg(), "-hide_banner", "-i", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr


def test_matrices_of_the_source_are_kept(tiny_model: Path, tmp_path: Path) -> None:
    source, low, out = (tmp_path / f"{name}.mkv" for name in ("source", "low", "out"))
    colours = ["-colorspace", "smpte170m", "-color_primaries", "smpte170m"]
    commands.ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=0.5"),
        *("-vf", "format=yuv420p,setparams=colorspace=smpte170m:color_primaries=smpte170m"),
        *("-c:v", "libx264", *colours, source),
    )
    commands.run("encode", source, low, "--model", tiny_model)
    commands.run("decode", low, out, "--model", tiny_model)
    assert open_video(out).colours == open_video(source).colours == Colours(6, 6)


@pytest.mark.parametrize(
    ("codec", "bits", "source", "made"),
    [
        ("auto", "auto", 8, ("x264", 8)),
        ("auto", "auto", 10, ("ffv1", 10)),
        ("auto", "auto", 16, ("ffv1", 10)),
        ("auto", "8", 10, ("x264", 8)),
        ("auto", "10", 8, ("ffv1", 10)),
        ("x264", "auto", 10, ("x264", 8)),
        ("x265", "auto", 12, ("x265", 10)),
    ],
)
def test_carriers_that_are_chosen(
    codec: str, bits: str, source: int, made: tuple[Any, ...]
) -> None:
    carrier = choose_carrier(codec, "rgb", bits, source)
    assert (carrier.codec, carrier.bits) == made


def test_presets_of_encoders_that_auto_stands_for(
    deep: Path, nearest_model: Path, tmp_path: Path
) -> None:
    low, out = tmp_path / "low.mkv", tmp_path / "out.mkv"
    wanted = "--preset is for x264 and x265, got --codec auto, which is ffv1 here"
    words = ["--model", nearest_model]
    said = commands.run("encode", deep, low, *words, "--preset", "slow", code=1).stderr
    assert wanted in said
    commands.run("encode", deep, low, *words)
    words += ["--preset", "ultrafast"]
    said = commands.run("decode", low, out, *words, "--lossless", code=1).stderr
    assert wanted in said
    commands.run("decode", low, out, *words)


def test_carriers_that_cannot_be() -> None:
    with pytest.raises(CliError, match="x264 does not carry 10-bit frames as rgb"):
        choose_carrier("x264", "rgb", "10", 10)
    with pytest.raises(CliError, match="--bits must be auto, 8 or 10, got '9'"):
        choose_carrier("auto", "rgb", "9", 10)


@pytest.mark.parametrize(
    "values", [{"CVRS_COLOURS": "9"}, {"CVRS_MASTERING": "G(1)"}, {"CVRS_LIGHT": "1,2,3"}]
)
def test_broken_tags_of_colours(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="CVRS_"):
        Colours.parse(values)
    whole = Colours(9, 9, 16, DISPLAY, "1000,400")
    assert Colours.parse(whole.as_dict()) == whole
    assert Colours().as_dict() == {}
