"""Values of options that are texts."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest

from vs_cvrs.cli.options import parse_factor, parse_frame, parse_rate
from vs_cvrs.cli.running import CliError


@pytest.mark.parametrize("parse", [parse_rate, parse_factor])
@pytest.mark.parametrize(
    "text",
    ["1e60000000", "1e-60000000", "9" * 5000, "1/" + "9" * 5000, "inf", "1/0", "2/", ".", "x", ""],
)
def test_texts_that_are_no_numbers(parse: Callable[[str, str], Fraction], text: str) -> None:
    with pytest.raises(CliError, match="--it must be a number or a fraction, got ") as caught:
        parse(text, "--it")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("25", Fraction(25)),
        ("30000/1001", Fraction(30000, 1001)),
        ("23.976", Fraction(24000, 1001)),
        ("29.970029970029969", Fraction(30000, 1001)),
        (".5", Fraction(1, 2)),
    ],
)
def test_rates(text: str, rate: Fraction) -> None:
    assert parse_rate(text, "--fps") == rate


@pytest.mark.parametrize(("text", "wanted"), [("2", 2), ("5/4", 1.25), ("2.5", 2.5), ("+3.", 3)])
def test_factors(text: str, wanted: float) -> None:
    assert parse_factor(text, "--time-factor") == wanted


def test_rates_out_of_range() -> None:
    for text in ("0", "-1", "0.0001"):
        with pytest.raises(CliError, match=r"--fps must be at least 0\.001 frames per second, got"):
            parse_rate(text, "--fps")
    with pytest.raises(CliError, match="--fps is out of range"):
        parse_rate("99999999999", "--fps")


def test_places() -> None:
    def nearest(seconds: Fraction) -> int:
        return round(10 * seconds)

    assert parse_frame("300f", nearest, "--start") == 300
    assert parse_frame("1:02:03.5", nearest, "--start") == 37235
    for text in ("9" * 5000, "9" * 5000 + "f", "1:1:1:1", "1."):
        with pytest.raises(CliError, match="--start must be like"):
            parse_frame(text, nearest, "--start")
