"""The filters with a model that is made for encoders with loss, and looks beyond its groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import vapoursynth as vs
from clips import clip_of, core, forget, frames_of, panned, pictures

from vs_cvrs.checkpoints import checkpoint

OPTIONS = {
    "width": 16,
    "down_blocks": "h",
    "up_blocks": "q",
    "hidden": 8,
    "motion_width": 8,
    "motion_blocks": "h",
}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def robust_model(save_model: Callable[..., Path]) -> Path:
    return save_model("robust", OPTIONS, name="robust")


@pytest.fixture
def down(robust_model: Path) -> Callable[..., Any]:
    options = {"model": str(robust_model), "precision": "fp32"}
    return lambda clip, **kw: core.cvrs.Downsample(clip, factor_num=2, **options, **kw)


@pytest.fixture
def up(robust_model: Path) -> Callable[..., Any]:
    options = {"model": str(robust_model), "precision": "fp32"}
    return lambda clip, **kw: core.cvrs.Upsample(clip, **options, **kw)


def decoded(path: Path, low: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.uint8]:
    """What the model itself restores from low-rate frames, in 8 bits."""
    model = checkpoint.load(path).model.eval()
    with torch.inference_mode():
        clip = torch.from_numpy(low).permute(1, 0, 2, 3)[None] / 255.0
        made = model.decode(clip, (count, *low.shape[2:]))[0].permute(1, 0, 2, 3)
        levels: npt.NDArray[np.uint8] = (made * 255.0).round().byte().numpy()
    return levels


@pytest.mark.parametrize("stamp", [0, 1])
def test_each_group_is_restored_with_the_frame_behind_it(
    stamp: int, robust_model: Path, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    low = down(clip_of(pictures(20)), stamp=stamp)
    received = frames_of(low)
    assert len(received) == 10
    wanted = np.concatenate(
        [
            decoded(robust_model, received[0:5], 8),
            decoded(robust_model, received[4:9], 8),
            decoded(robust_model, received[8:10], 4),
        ]
    )
    made = up(low)
    # In any order: from the last to the first.
    backwards = [np.asarray(made.get_frame(n)[1]) for n in reversed(range(20))]
    np.testing.assert_array_equal(backwards[::-1], wanted[:, 1])
    told = up(forget(low), factor_num=2, stamp=stamp)
    np.testing.assert_array_equal(frames_of(told), wanted)
    assert made.get_frame(9).props.get("CVRSIntact") == (1 if stamp else None)


def test_a_clip_without_stamps_is_restored_without_a_word(
    robust_model: Path, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    low = down(clip_of(pictures(16)))
    lossy = core.std.Expr(low, "x 1 +")  # no stamp survives this, and all properties do
    made = up(lossy)
    assert "CVRSIntact" not in made.get_frame(3).props
    wanted = decoded(robust_model, frames_of(lossy)[:5], 8)
    np.testing.assert_array_equal(frames_of(made)[:8], wanted)
    with pytest.raises(vs.Error, match="are not as Downsample made them"):
        up(lossy, strict=1).get_frame(0)


def test_strength_is_what_the_sender_is_told(down: Callable[..., Any]) -> None:
    source = clip_of(pictures(8))
    light, same, heavy, default, web = (
        frames_of(down(source, stamp=0, **given))
        for given in (
            {"strength": "light"},
            {"strength": "15"},
            {"strength": "heavy"},
            {},
            {"strength": "web"},
        )
    )
    np.testing.assert_array_equal(light, same)
    np.testing.assert_array_equal(default, web)
    assert (light != heavy).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strength": "medium"}, "strength must be light, web, heavy, or a constant rate factor"),
        ({"strength": "60"}, "from 0 to 51, got '60'"),
        ({"strength": "nan"}, "from 0 to 51, got 'nan'"),
        ({"check": 1}, "check=1 knows what comes back through files without loss"),
    ],
)
def test_what_it_does_not_take(
    arguments: dict[str, Any], message: str, down: Callable[..., Any]
) -> None:
    with pytest.raises(vs.Error, match=f"^Downsample: .*{message}"):
        down(clip_of(pictures(8)), **arguments)


def test_other_models_have_no_strength(tiny_model: Path) -> None:
    with pytest.raises(vs.Error, match="strength is for models that outlive encoders with loss"):
        core.cvrs.Downsample(
            clip_of(pictures(8)), factor_num=2, model=str(tiny_model), strength="web"
        )


WIDE = (192, 108)


def arrived(low: Any) -> Any:
    """Low-rate frames after some loss, without properties: no stamp is left."""
    return forget(core.std.BoxBlur(core.std.Expr(low, "x 1 +"), hradius=1, vradius=0))


def test_marks_tell_what_is_to_be_restored(
    down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    low = down(clip_of(panned(31, *WIDE)))
    received = arrived(low)
    made = up(received)  # no factor, no length
    assert (made.num_frames, made.fps) == (31, 30)
    told = up(received, factor_num=2, length=31)
    np.testing.assert_array_equal(frames_of(made), frames_of(told))


def test_marks_tell_where_a_clip_was_cut(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    received = arrived(down(clip_of(panned(40, *WIDE))))
    made = up(received[3:])
    assert made.num_frames == 34
    whole = frames_of(up(received))
    # The first frame is alone in its group; the groups behind it are where they were.
    np.testing.assert_array_equal(frames_of(made)[2:], whole[8:])


def test_marks_name_the_model(down: Callable[..., Any], save_model: Callable[..., Path]) -> None:
    received = arrived(down(clip_of(panned(32, *WIDE))))
    with pytest.raises(vs.Error, match="made with model whose checksum begins otherwise"):
        core.cvrs.Upsample(received, model=str(save_model("robust", OPTIONS, seed=5)))


def test_a_clip_without_marks_says_nothing(up: Callable[..., Any]) -> None:
    with pytest.raises(vs.Error, match="nothing tells what is to be restored"):
        up(clip_of(panned(16, *WIDE)))


def test_marks_can_be_left_out(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    with pytest.raises(vs.Error, match="nothing tells what is to be restored"):
        up(arrived(down(clip_of(panned(32, *WIDE)), stamp=0)))
