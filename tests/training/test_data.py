from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vs_cvrs.programs.ffmpeg import find_ffmpeg
from vs_cvrs.training.config import ConfigError, DataConfig, Stage
from vs_cvrs.training.data import ClipDataset, Footage, load_footage


def footage(moving: bool = True) -> Footage:
    rng = np.random.default_rng(0)
    still = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    frames = [np.roll(still, 3 * t if moving else 0, axis=1) for t in range(30)]
    return Footage([np.stack(frames)], [still])


def dataset(seed: int = 1, stage: Stage | None = None, **data: float) -> ClipDataset:
    config = DataConfig.model_validate({"videos": [], "stills": [], "validation": [], **data})
    return ClipDataset(footage(), config, [stage or Stage(steps=50, batch=2, crop=32)], seed)


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    first, second = dataset(), dataset()
    second[3]
    assert torch.equal(first[7].high, second[7].high)
    assert not torch.equal(first[7].high, first[8].high)
    assert not torch.equal(first[7].high, dataset(seed=2)[7].high)


def test_shapes_follow_ratio_and_scale() -> None:
    stage = Stage(
        steps=1,
        batch=2,
        crop=48,
        group=4,
        ratios=[Fraction(5, 2)],
        scales=(Fraction(2), Fraction(2)),
    )
    batch = dataset(stage=stage)[0]
    assert batch.high.shape == (2, 3, 10, 48, 48)
    assert batch.low_size == (4, 24, 24)
    assert batch.shown == [0, 2, 5, 7]
    assert batch.high.min() >= 0
    assert batch.high.max() <= 1


def test_drawn_clips_and_stretched_contrast_come_in_on_demand() -> None:
    drawn = dataset(graphics_share=1.0, cut_share=0.0, still_share=0.0)[0].high
    ends = ((drawn == 0) | (drawn == 1)).float().mean()
    plain = dataset(cut_share=0.0, still_share=0.0)[0].high
    assert float(ends) > 0.4 > float(((plain == 0) | (plain == 1)).float().mean())
    stretched = dataset(stretch_share=1.0, cut_share=0.0, still_share=0.0)[0].high
    assert not torch.equal(stretched, plain)


def test_reduced_clips_come_in_on_demand() -> None:
    footage = np.random.default_rng(0).integers(0, 256, (6, 100, 200, 3)).astype(np.uint8)
    config = {"videos": [], "stills": [], "validation": [], "stills_share": 0.0}
    deviations = []
    for share in (0.0, 1.0):
        every = DataConfig.model_validate({**config, "reduced_share": share})
        made = ClipDataset(Footage([footage], []), every, [Stage(steps=20, batch=2, crop=32)], 1)
        assert made[0].high.shape == (2, 3, 8, 32, 32)
        deviations.append(np.mean([float(made[i].high.std()) for i in range(20)]))
    assert deviations[1] < 0.8 * deviations[0]  # noise is averaged away


def test_patterns_and_detailed_crops_come_in_on_demand() -> None:
    plain = dataset(cut_share=0.0, still_share=0.0)[0].high
    patterned = dataset(pattern_share=1.0, cut_share=0.0, still_share=0.0)[0].high
    assert not torch.equal(patterned, plain)

    flat = np.full((6, 100, 400, 3), 90, np.uint8)
    flat[:, :, 200:] = np.random.default_rng(0).integers(0, 256, (100, 200, 3))
    config = {"videos": [], "stills": [], "validation": [], "stills_share": 0.0}
    deviations = []
    for share in (0.0, 1.0):
        every = DataConfig.model_validate({**config, "motion_share": 0.0, "detail_share": share})
        made = ClipDataset(Footage([flat], []), every, [Stage(steps=20, batch=2, crop=16)], 1)
        deviations.append(np.mean([float(made[i].high.std()) for i in range(20)]))
    assert deviations[1] > 1.2 * deviations[0]


def test_stills_move_smoothly() -> None:
    batch = dataset(stills_share=1.0, cut_share=0.0, still_share=0.0)[0]
    steps = (batch.high[:, :, 1:] - batch.high[:, :, :-1]).abs().mean(dim=(1, 3, 4))
    assert bool((steps > 0).all())
    assert float(steps.max()) < 0.3


def test_every_group_can_be_cut_or_still() -> None:
    still = dataset(still_share=1.0, cut_share=0.0)[0].high
    assert torch.equal(still, still[:, :, :1].expand_as(still))
    cut = dataset(cut_share=1.0, still_share=0.0, stills_share=1.0, motion_share=0.0)
    changes = []
    for step in range(10):
        x = cut[step].high
        changes += (x[:, :, 1:] - x[:, :, :-1]).abs().mean(dim=(1, 3, 4)).argmax(dim=1).tolist()
    assert len(set(changes)) > 2  # cuts fall anywhere in the group


def test_footage_is_decoded_halved_and_cached(tmp_path: Path) -> None:
    videos, stills = tmp_path / "videos", tmp_path / "stills"
    videos.mkdir()
    stills.mkdir()
    for width in (640, 320):
        command = [find_ffmpeg(), "-v", "error", "-f", "lavfi"]
        command += ["-i", f"testsrc=size={width}x240:rate=10:duration=1"]
        subprocess.run([*command, str(videos / f"{width}.mkv")], check=True, timeout=60)
    Image.new("RGB", (40, 30), "red").save(stills / "red.png")
    config = DataConfig(videos=[videos], stills=[stills], validation=[])
    loaded = load_footage(config, tmp_path / "cache")
    assert [video.shape for video in loaded.videos] == [(10, 240, 320, 3), (10, 120, 320, 3)]
    assert loaded.stills[0][0, 0].tolist() == [255, 0, 0]
    cached = sorted((tmp_path / "cache").iterdir())
    times = [path.stat().st_mtime_ns for path in cached]
    load_footage(config, tmp_path / "cache")
    assert [path.stat().st_mtime_ns for path in cached] == times


def test_unusable_footage_is_named(tmp_path: Path) -> None:
    def config(folder: Path) -> DataConfig:
        return DataConfig(videos=[folder], stills=[], validation=[])

    with pytest.raises(ConfigError, match="missing does not exist"):
        load_footage(config(tmp_path / "missing"), tmp_path / "cache")
    with pytest.raises(ConfigError, match="neither videos nor stills"):
        load_footage(config(tmp_path), tmp_path / "cache")
    (tmp_path / "broken.mp4").write_bytes(b"not a video" * 100)
    with pytest.raises(ConfigError, match=r"broken\.mp4 cannot be decoded"):
        load_footage(config(tmp_path), tmp_path / "cache")


def test_batches_range_over_ratios_and_scales() -> None:
    stage = Stage(
        steps=60,
        batch=1,
        crop=48,
        group=5,
        vary_group=True,
        max_frames=8,
        ratios=[Fraction(1), Fraction(5, 4), Fraction(2), Fraction(3)],
        other_ratios=0.2,
        scales=(Fraction(1), Fraction(4)),
        unscaled=0.3,
        whole=0.4,
    )
    batches = [dataset(stage=stage)[step] for step in range(60)]
    shapes = [(batch.high.shape[2], batch.low_size) for batch in batches]
    ratios = {Fraction(high, low[0]) for high, low in shapes}
    assert {Fraction(1), Fraction(5, 4), Fraction(2), Fraction(3)} < ratios
    assert max(ratios) <= 4
    assert len({low[0] for _, low in shapes}) > 3
    # A group is never shorter than its ratio's denominator, or it would be of another ratio.
    assert max(high for high, _ in shapes) <= 8 + 4
    sizes = [low[1] for _, low in shapes]
    assert {48, 24, 16, 12} < set(sizes)
    assert all(high > low[0] for high, low in shapes if low[1] == 48)
    for batch in batches:
        assert len(batch.shown) == batch.low_size[0]


def test_without_ranges_every_batch_is_alike() -> None:
    batches = [dataset()[step] for step in range(10)]
    assert {(batch.high.shape[2], batch.low_size) for batch in batches} == {(8, (4, 32, 32))}


def test_at_full_size_every_group_loses_a_frame() -> None:
    stage = Stage(
        steps=20, batch=1, crop=16, vary_group=True, ratios=[Fraction(6, 5), Fraction(5, 4)]
    )
    batches = [dataset(stage=stage)[step] for step in range(20)]
    assert all(batch.high.shape[2] > batch.low_size[0] for batch in batches)
    assert len({batch.low_size[0] for batch in batches}) > 1
