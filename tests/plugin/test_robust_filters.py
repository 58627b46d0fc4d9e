"""The filters with a model that is made for encoders with loss, and looks beyond its groups."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import vapoursynth as vs
from clips import clip_of, core, forget, frames_of, panned, pictures

from vs_cvrs.carrier import mark
from vs_cvrs.carrier.mark import Message
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
    options = {"model": str(robust_model), "precision": "fp32", "device": "cpu"}
    return lambda clip, **kw: core.cvrs.Downsample(clip, factor_num=2, **options, **kw)


@pytest.fixture
def up(robust_model: Path) -> Callable[..., Any]:
    options = {"model": str(robust_model), "precision": "fp32", "device": "cpu"}
    return lambda clip, **kw: core.cvrs.Upsample(clip, **options, **kw)


def made_by(path: Path, low: npt.NDArray[np.uint8], count: int, way: str) -> npt.NDArray[np.uint8]:
    """What the model itself makes of low-rate frames by that method, in 8 bits."""
    model = checkpoint.load(path).model.eval()
    with torch.inference_mode():
        clip = torch.from_numpy(low).permute(1, 0, 2, 3)[None] / 255.0
        made = getattr(model, way)(clip, (count, *low.shape[2:]))[0].permute(1, 0, 2, 3)
        levels: npt.NDArray[np.uint8] = (made * 255.0).round().byte().numpy()
    return levels


decoded = functools.partial(made_by, way="decode")
interpolated = functools.partial(made_by, way="interpolate")


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
    assert made.get_frame(9).props.get("CVRSSource") == ("hidden" if stamp else None)


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


def sources(clip: Any) -> list[str]:
    """`CVRSSource` of each frame; "" where there is none."""
    return [frame.props.get("CVRSSource", "") for frame in clip.frames()]


def test_a_foreign_clip_is_interpolated_and_says_so(
    robust_model: Path, up: Callable[..., Any], warnings: list[str]
) -> None:
    plain = panned(20, *WIDE)[0::2]
    made = up(clip_of(plain, (15, 1)), fps=30)
    assert made.num_frames == 20
    got = frames_of(made, reversed(range(20)))
    np.testing.assert_array_equal(got[0::2], plain)
    np.testing.assert_array_equal(got[:8], interpolated(robust_model, plain[:5], 8))
    np.testing.assert_array_equal(got[8:16], interpolated(robust_model, plain[4:9], 8))
    np.testing.assert_array_equal(got[16:], interpolated(robust_model, plain[8:], 4))
    assert sources(made) == ["interpolated"] * 20
    assert len(warnings) == 1
    assert warnings[0].startswith("Upsample: nothing is hidden in frames ")
    assert "such frames are interpolated" in warnings[0]


def test_foreign_frames_keep_all_their_bits(up: Callable[..., Any]) -> None:
    plain = core.resize.Point(clip_of(panned(8, *WIDE)), format=vs.RGBS)
    plain = core.std.Expr(plain, "x 0.9 * 0.013 +")
    made = up(plain, factor_num=2)
    np.testing.assert_allclose(frames_of(made)[0::2], frames_of(plain), atol=1e-6)


def test_scene_changes_that_a_clip_tells_are_not_interpolated_across(
    up: Callable[..., Any],
) -> None:
    plain = clip_of(panned(12, *WIDE))
    whole = frames_of(up(plain, factor_num=2))

    def told(name: str, frame: int) -> Any:
        cut = core.std.SetFrameProps(plain[frame], **{name: 1})
        return up(plain[:frame] + cut + plain[frame + 1 :], factor_num=2)

    for name, frame in (("_SceneChangePrev", 3), ("_SceneChangeNext", 2)):  # inside a group
        got = frames_of(told(name, frame))
        np.testing.assert_array_equal(got[5], got[4])
        np.testing.assert_array_equal(np.delete(got, 5, 0), np.delete(whole, 5, 0))
    for name, frame in (("_SceneChangePrev", 4), ("_SceneChangeNext", 3)):  # behind one
        got = frames_of(told(name, frame))
        np.testing.assert_array_equal(got[7], got[6])
        np.testing.assert_array_equal(np.delete(got, 7, 0), np.delete(whole, 7, 0))


def test_nothing_of_a_scene_behind_a_group_is_used(
    robust_model: Path, down: Callable[..., Any], up: Callable[..., Any]
) -> None:
    low = down(clip_of(panned(16, *WIDE)))
    cut = core.std.SetFrameProps(low[4], _SceneChangePrev=1)
    got = frames_of(up(low[:4] + cut + low[5:]))
    np.testing.assert_array_equal(got[:8], decoded(robust_model, frames_of(low)[:4], 8))


def test_marked_frames_are_found_wherever_they_are(
    down: Callable[..., Any], up: Callable[..., Any], warnings: list[str]
) -> None:
    received = arrived(down(clip_of(panned(48, *WIDE))))
    whole = frames_of(up(received))
    assert sources(up(received)) == ["hidden"] * 48

    def restored(clip: Any) -> tuple[Any, list[str]]:
        made = up(clip)
        backwards = frames_of(made, reversed(range(made.num_frames)))
        np.testing.assert_array_equal(frames_of(up(clip)), backwards)
        return backwards, sources(made)

    # Behind a trim inside a group.
    got, told = restored(received[2:])
    assert told == ["partly"] * 4 + ["hidden"] * 40
    np.testing.assert_array_equal(got[4:], whole[8:])
    # Parts that were joined, in another order. Where one ends, another frame than was sent lies
    # behind its last group, and changes that group's last frames.
    got, told = restored(received[13:] + received[:8])
    assert told == ["partly"] * 6 + ["hidden"] * 32
    np.testing.assert_array_equal(got[6:18], whole[32:44])
    np.testing.assert_array_equal(got[22:34], whole[:12])
    # A frame that is missing, and one that is there twice.
    got, told = restored(received[:9] + received[10:])
    assert told == ["hidden"] * 16 + ["partly"] * 6 + ["hidden"] * 24
    np.testing.assert_array_equal(got[22:], whole[24:])
    got, told = restored(received[:10] + received[9:])
    assert told == ["hidden"] * 50
    np.testing.assert_array_equal(got[:20], whole[:20])
    np.testing.assert_array_equal(got[26:], whole[24:])
    assert warnings == []


def test_a_foreign_scene_in_a_marked_clip(
    down: Callable[..., Any], up: Callable[..., Any], warnings: list[str]
) -> None:
    received = arrived(down(clip_of(panned(32, *WIDE))))
    foreign = clip_of(panned(30, *WIDE)[22:])
    made = up(received + foreign, factor_num=2)
    assert sources(made) == ["hidden"] * 32 + ["interpolated"] * 16
    np.testing.assert_array_equal(frames_of(made)[32::2], frames_of(foreign))
    np.testing.assert_array_equal(frames_of(made)[:28], frames_of(up(received))[:28])
    assert len(warnings) == 1
    assert "frames 16 to 19 of the clip" in warnings[0]


def test_damaged_groups_are_interpolated_where_nothing_is_left(
    robust_model: Path, down: Callable[..., Any], up: Callable[..., Any], warnings: list[str]
) -> None:
    low = down(clip_of(panned(32, *WIDE)))
    plain = panned(32, *WIDE)[0::2]
    # One frame of the second group is another's; of the third all that are left tell nothing.
    mixed = low[:5] + clip_of(plain[5:6]) + low[6:8] + clip_of(plain[8:12]) + low[12:]
    mixed = core.std.RemoveFrameProps(mixed)
    made = up(mixed, factor_num=2)
    assert sources(made) == (
        ["hidden"] * 8 + ["partly"] * 8 + ["interpolated"] * 8 + ["hidden"] * 8
    )
    got = frames_of(made)
    np.testing.assert_array_equal(got[10], plain[5])
    np.testing.assert_array_equal(got[16:24:2], plain[8:12])
    received = frames_of(mixed)
    np.testing.assert_array_equal(got[8:10], decoded(robust_model, received[4:9], 8)[:2])
    np.testing.assert_array_equal(got[10:12], interpolated(robust_model, received[4:9], 8)[2:4])
    assert [frame.props.get("CVRSIntact") for frame in made.frames()][8:16] == [0] * 8
    assert len(warnings) == 1


def lying(path: Path, **lie: Any) -> Any:
    """A clip of 16 frames that hide nothing, whose marks say what is not so."""
    honest = Message(Fraction(2), 4, mark.model_id(checkpoint.load(path).checksum), 32)
    frames = panned(32, *WIDE)[0::2]
    mark.write(frames, replace(honest, **lie), 0)
    return clip_of(frames, (15, 1))


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"ratio": Fraction(32)}, "is made for a time factor of 2, got 32; "),
        ({"ratio": Fraction(1)}, "is made for a time factor of 2, got 1; "),
        ({"ratio": Fraction(31, 30) * Fraction(1001, 1000)}, "is made for a time factor of 2"),
        ({"model": 1023}, "the clip was made with model whose checksum begins otherwise"),
    ],
)
def test_a_mark_that_lies_is_refused(
    lie: dict[str, Any], message: str, robust_model: Path, up: Callable[..., Any]
) -> None:
    with pytest.raises(vs.Error, match=f"^Upsample: .*{message}"):
        up(lying(robust_model, **lie))


@pytest.mark.parametrize(
    "lie",
    [
        {"group_length": 256},
        {"group_length": 1},
        {"length": 1},
        {"length": 2**20 - 1},
        {"excess": (3, 3)},
    ],
)
def test_a_mark_that_lies_does_no_harm(
    lie: dict[str, Any], robust_model: Path, up: Callable[..., Any]
) -> None:
    made = up(lying(robust_model, **lie))
    assert made.num_frames == 32
    assert set(sources(made)) <= {"hidden", "partly"}


@pytest.mark.parametrize(
    "change",
    [
        lambda clip: core.std.Crop(clip, left=8),
        lambda clip: core.std.FlipHorizontal(clip),
        lambda clip: core.std.FlipVertical(clip),
        lambda clip: core.std.Turn180(clip),
        lambda clip: core.std.Invert(clip),
        lambda clip: core.resize.Bilinear(clip, 160, 96),
    ],
)
def test_what_marks_do_not_survive_is_interpolated(
    change: Callable[[Any], Any],
    down: Callable[..., Any],
    up: Callable[..., Any],
    warnings: list[str],
) -> None:
    changed = change(arrived(down(clip_of(panned(16, *WIDE)))))
    made = up(changed, factor_num=2)
    assert sources(made) == ["interpolated"] * 16
    np.testing.assert_array_equal(frames_of(made)[0::2], frames_of(changed))
    assert len(warnings) == 1


def test_another_speed_is_no_harm(down: Callable[..., Any], up: Callable[..., Any]) -> None:
    received = arrived(down(clip_of(panned(18, *WIDE))))
    for changed in (
        received.std.SelectEvery(3, [0, 1]),
        core.std.Interleave([received, received]),
        received.std.Reverse(),
    ):
        made = up(changed)
        told = sources(made)
        assert made.num_frames == 2 * changed.num_frames
        assert set(told) <= {"hidden", "partly", "interpolated"}
        assert "interpolated" not in told


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
