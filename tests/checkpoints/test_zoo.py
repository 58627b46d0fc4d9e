from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from vs_cvrs.carrier import mark
from vs_cvrs.checkpoints import zoo

ONE, TWO = Fraction(1), Fraction(2)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the package's own."""
    monkeypatch.setattr(zoo, "_folder", lambda: tmp_path)
    return tmp_path


def test_marks_tell_the_bundled_models_apart() -> None:
    """They have few bits for a model; where two are alike, change a last bit of a weight."""
    assert len({mark.model_id(zoo.checksum(name)) for name in zoo.names()}) == len(zoo.names())


def test_auto_takes_the_model_made_for_the_ratio(weights: Path) -> None:
    for name in ("lite", "lite-any"):
        (weights / f"{name}.safetensors").touch()
    assert zoo.resolve("auto", TWO, ONE) == weights / "lite.safetensors"
    assert zoo.resolve("auto", Fraction(5, 4), ONE) == weights / "lite-any.safetensors"
    assert zoo.resolve("auto", TWO, TWO) == weights / "lite-any.safetensors"


def test_auto_says_what_there_is_instead(weights: Path) -> None:
    (weights / "lite.safetensors").touch()
    with pytest.raises(ValueError, match=r"time 5/2x and space 1x \(bundled: lite;"):
        zoo.resolve("auto", Fraction(5, 2), ONE)


def test_names_and_paths(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in ("lite", "base"):
        (weights / f"{name}.safetensors").touch()
    (weights / "notes.txt").touch()
    assert zoo.names() == ["base", "lite"]
    assert zoo.resolve("base", ONE, ONE) == weights / "base.safetensors"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    assert zoo.resolve(str(elsewhere), ONE, ONE) == elsewhere


@pytest.mark.parametrize("model", ["best", "", "no/such/file.safetensors", "a\0b", "x" * 5000])
def test_unknown_models_list_the_known(weights: Path, model: str) -> None:
    (weights / "lite.safetensors").touch()
    with pytest.raises(ValueError, match=r"unknown model .*\(lite\)"):
        zoo.resolve(model, TWO, ONE)


def test_every_bundled_model_loads() -> None:
    from vs_cvrs.checkpoints import checkpoint

    for name in zoo.names():
        assert checkpoint.load(zoo.resolve(name, ONE, ONE)).checksum
