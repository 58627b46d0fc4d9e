"""What encode and info say of what will come back."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import commands
import pytest

from vs_cvrs.carrier.stamp import Mode, Sent, Stamp, quality_of
from vs_cvrs.cli.quality import Quality, time_code
from vs_cvrs.cli.times import constant_clock

STAMP = Stamp(Fraction(2), Fraction(24), 64, 48, 22, 4, 0, "0123456789abcdef")


def group(number: int, psnr: float, mode: Mode = Mode.HIDDEN, inside: int = 0) -> Stamp:
    sent = Sent(quality_of(psnr), mode=mode)
    return replace(STAMP, index=4 * number + inside, sent=sent)


def test_the_whole_is_weighed_by_frames() -> None:
    quality = Quality.of([group(0, 40), group(0, 40, inside=2), group(1, 30), group(2, 50)])
    assert quality is not None
    error = (8 * 1e-4 + 8 * 1e-3 + 6 * 1e-5) / 22
    assert quality.psnr == pytest.approx(-10 * math.log10(error))
    assert quality.lowest == [(8, 30.0), (0, 40.0), (16, 50.0)]
    assert (quality.groups, quality.interpolated) == (3, 0)
    assert quality.places(constant_clock(Fraction(24)), begin=24).startswith(
        "lowest 30.0 dB at 0:00:01.333, 40.0 "
    )


def test_groups_that_hide_nothing_are_counted() -> None:
    quality = Quality.of([group(0, 40), group(1, math.inf, Mode.INTERPOLATED)])
    assert quality is not None
    assert "; 1 of 2 groups are interpolated" in quality.sentence(constant_clock(Fraction(24)))
    assert quality.facts(constant_clock(None))["worst group"] == "from frame 0"
    only_exact = Quality.of([group(0, math.inf)])
    assert only_exact is not None
    assert only_exact.psnr == math.inf


def test_stamps_that_do_not_know() -> None:
    assert Quality.of([]) is None
    assert Quality.of([STAMP]) is None


def test_time_codes() -> None:
    assert time_code(0, constant_clock(Fraction(25))) == "0:00:00.000"
    assert time_code(110_000, constant_clock(Fraction(30000, 1001))) == "1:01:10.333"
    assert time_code(7, constant_clock(None)) == "frame 7"


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A moving test picture, what encode makes of it, and what it says."""
    folder = tmp_path_factory.mktemp("checked")
    source = commands.video(folder / "source.mkv", size="64x48", seconds=1)
    done = commands.run("encode", source, folder / "low.mkv", "--device", "cpu")
    return source, folder / "low.mkv", done.stderr


def test_encode_ends_with_what_comes_back(checked: tuple[Path, Path, str]) -> None:
    _, low, said = checked
    last = said.strip().splitlines()[-1]
    assert last.startswith(f"{low}: comes back at ")
    assert " dB PSNR on the whole, lowest " in last
    assert " dB at 0:00:00." in last


def test_decode_ends_with_what_came_back(checked: tuple[Path, Path, str], tmp_path: Path) -> None:
    _, low, said = checked
    out, words = tmp_path / "out.mkv", ["--device", "cpu", "--overwrite"]
    sentence = said.strip().splitlines()[-1].split(": comes back at ")[1]
    wanted = f"{out}: came back at {sentence}, as encode measured it"
    last = commands.run("decode", low, out, *words).stderr.strip().splitlines()[-1]
    assert last == f"{wanted}; what the encoder loses comes on top"
    last = commands.run("decode", low, out, *words, "--lossless").stderr.strip().splitlines()[-1]
    assert last == wanted


def test_info_says_it_too(checked: tuple[Path, Path, str]) -> None:
    _, low, said = checked
    facts = json.loads(commands.run("info", low, "--json").stdout)
    whole = said.split(": comes back at ")[1].split(" on the whole")[0]
    assert facts["comes back at"].startswith(f"{whole}, the worst group at ")
    assert facts["interpolated"].endswith("of 4 groups hide nothing")


def test_too_little_is_an_error_that_names_the_places(
    checked: tuple[Path, Path, str], tmp_path: Path
) -> None:
    source, low, said = checked
    out = tmp_path / "low.mkv"
    done = commands.run("encode", source, out, "--device", "cpu", "--min-psnr", "99", code=1)
    last = done.stderr.strip().splitlines()[-1]
    places = said.strip().splitlines()[-1].split("lowest ")[1].split(";")[0]
    assert last == (
        f"vs-cvrs encode: {out} is whole, but not all of it comes back at --min-psnr 99: "
        f"lowest {places}"
    )
    assert out.read_bytes() == low.read_bytes()


def test_without_the_check_nothing_is_said(checked: tuple[Path, Path, str], tmp_path: Path) -> None:
    source, low, _ = checked
    out = tmp_path / "low.mkv"
    done = commands.run("encode", source, out, "--device", "cpu", "--no-check")
    assert "comes back" not in done.stderr
    assert out.read_bytes() != low.read_bytes()
    assert "comes back at" not in json.loads(commands.run("info", out, "--json").stdout)
    done = commands.run("encode", source, out, "--no-check", "--min-psnr", "30", code=1)
    assert "vs-cvrs encode: --min-psnr needs what --no-check leaves out" in done.stderr
