from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from vs_cvrs.model import motion
from vs_cvrs.model.base import round_to_bits
from vs_cvrs.model.light import residues
from vs_cvrs.model.light.blocks import Net, Shape
from vs_cvrs.model.light.residues import Draft, Rescaler, Rescalers
from vs_cvrs.model.light.time_net import Layout

pytestmark = pytest.mark.usefixtures("one_thread")

MODULI = (3, 5, 9)


@pytest.mark.parametrize("modulus", MODULI)
def test_residues_arrive_whatever_the_picture_is(modulus: int) -> None:
    torch.manual_seed(0)
    most = (modulus - 1) // 2
    plain = 0.1 + 0.8 * torch.rand(1, 3, 2, 40, 40)
    plain[..., :8] = 0.0
    plain[..., -8:] = 1.0
    sent = torch.randint(-most, most + 1, plain.shape)
    low = residues.hide(plain, sent.float(), modulus)
    levels = 255.0 * low
    assert torch.equal(levels.round(), round_to_bits(low, 8) * 255.0)
    coarse, found = residues.reveal(round_to_bits(low, 8), modulus)
    assert torch.equal(found.round().int(), sent.int())
    assert (found - sent).abs().max() < 1e-3
    assert torch.equal((255.0 * coarse).round().int() % modulus, torch.zeros_like(sent).int())
    inside = slice(8, -8)
    assert (levels - 255.0 * plain)[..., inside].abs().max() <= modulus / 2 + 1e-3
    assert (levels - 255.0 * plain).abs().max() <= modulus


def test_ten_bits_carry_quarters_of_levels() -> None:
    torch.manual_seed(1)
    plain = torch.rand(1, 3, 1, 32, 32) * 0.8 + 0.1
    sent = 2.37 * (2.0 * torch.rand(plain.shape) - 1.0)
    _, eight = residues.reveal(round_to_bits(residues.hide(plain, sent, 5), 8), 5)
    _, ten = residues.reveal(round_to_bits(residues.hide(plain, sent, 5), 10), 5)
    assert (eight - sent).abs().max() <= 0.5 + 1e-3
    assert (ten - sent).abs().max() <= 0.5 * 255 / 1023 + 1e-3


def test_a_sample_whose_own_residue_is_sent_stays_as_it_is() -> None:
    plain = torch.arange(256).reshape(1, 1, 1, 16, 16) / 255.0
    _, own = residues.reveal(plain, 7)
    assert torch.allclose(residues.hide(plain, own, 7), plain, atol=1e-6)


def test_within_its_limits_a_sample_keeps_its_coarse_level() -> None:
    low = torch.arange(256).reshape(1, 1, 1, 16, 16) / 255.0
    lowest, highest = residues.bounds(low, 7)
    coarse, _ = residues.reveal(low, 7)
    for end in (lowest, highest):
        assert torch.equal(residues.reveal(end, 7)[0], coarse)
    assert ((low >= lowest - 1e-6) & (low <= highest + 1e-6)).all()
    inside = (lowest > 0) & (highest < 1)
    assert torch.allclose((highest - lowest)[inside] * 255.0, torch.tensor(6.0), atol=1e-3)


def test_gradients_pass_from_low_rate_frames_to_residues_alone() -> None:
    plain = torch.full((1, 3, 1, 4, 4), 0.4, requires_grad=True)
    sent = torch.zeros(1, 3, 1, 4, 4, requires_grad=True)
    _, found = residues.reveal(residues.hide(plain, sent, 5), 5)
    found.sum().backward()  # type: ignore[no-untyped-call]
    assert sent.grad is not None
    assert torch.allclose(sent.grad, torch.ones_like(sent.grad))
    assert plain.grad is None


def bare(factor: int) -> Rescalers:
    """Nothing is learned: networks as they begin, and frames between by motion alone."""
    torch.manual_seed(3)
    net = Net(8, "")
    made = [Rescaler(factor, Shape(net, net, between, None, 9)).eval() for between in (None, net)]
    with torch.no_grad():
        for model in made:
            for name, parameter in model.named_parameters():
                if ".last." in name:
                    parameter.zero_()
    return Rescalers(*made)


@pytest.mark.parametrize("factor", residues.FACTORS)
@pytest.mark.parametrize("low", [4, 2, 3, 1])
def test_details_go_into_residues_and_come_back(factor: int, low: int) -> None:
    """Where networks begin, much more comes back than by enlarging alone."""
    layout = Layout.of(4, low)
    model = bare(factor)
    side = 16 * factor
    rise = torch.linspace(-1.0, 1.0, factor) * 3.0 / 255.0  # within each low-rate pixel
    x = (0.5 + rise.repeat(16)).expand(1, 3, 4, side, side).contiguous()
    with torch.inference_mode():
        sent = round_to_bits(model.down(x, (16, 16), layout), 8)
        back = model.up(sent, (side, side), layout)
        coarse, _ = residues.reveal(sent, 9)
        without = model.up(coarse, (side, side), layout)
    assert sent.shape == (1, 3, len(layout.counts), 16, 16)
    assert back.shape == x.shape
    assert (back - x).square().mean() < 0.5 * (without - x).square().mean()


def drifting(frames: int, pixels: float) -> torch.Tensor:
    """A smooth picture that moves to the right, (1, 3, frames, 64, 96)."""
    torch.manual_seed(4)
    wide = F.interpolate(torch.rand(1, 3, 10, 16), (64, 128), mode="bicubic").clamp(0.0, 1.0)
    clip = []
    for n in range(frames):
        view = torch.tensor([[[0.75, 0.0, -n * pixels / 64.0], [0.0, 1.0, 0.0]]])
        grid = F.affine_grid(view, [1, 3, 64, 96], align_corners=False)
        clip.append(F.grid_sample(wide, grid, align_corners=False))
    return torch.stack(clip, dim=2)


def psnr(made: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(-10.0 * (made - wanted)[..., 16:-16].square().mean().log10())


@pytest.mark.parametrize("factor", residues.FACTORS)
@pytest.mark.parametrize(("low", "count"), [(3, 6), (2, 6), (2, 8), (3, 4)])
def test_frames_that_are_left_out_are_where_motion_takes_them(
    factor: int, low: int, count: int
) -> None:
    x = drifting(count, 1.5)
    layout = Layout.of(count, low)
    model = bare(factor)
    size = 64 // factor, 96 // factor
    with torch.inference_mode():
        back = model.up(round_to_bits(model.down(x, size, layout), 8), (64, 96), layout)
    ends = layout.owned(low - 1)[0]
    for index, frame in enumerate(layout.carried):
        shown = max(owned for j in range(low) if (owned := layout.owned(j)[0]) <= frame)
        if frame == shown:
            continue
        moved, repeated = (
            psnr(back[:, :, k : k + 1], x[:, :, frame : frame + 1])
            for k in (index, layout.carried.index(shown))
        )
        # Behind the last one, half of it stands still.
        assert moved > repeated + (3.0 if frame > ends else 5.0)


def test_nothing_is_mixed_across_a_cut() -> None:
    x = torch.cat((drifting(2, 0.0), 0.6 * drifting(2, 0.0).flip(-1, -2) + 0.4), dim=2)
    layout = Layout.of(4, 2)
    with torch.inference_mode():
        model = bare(2)
        low = model.down(x, (32, 48), layout)
        back = model.up(low, (64, 96), layout)
    assert torch.equal(back[:, :, 1], back[:, :, 0])
    assert torch.equal(back[:, :, 3], back[:, :, 2])


def three_sides(before: torch.Tensor, after: torch.Tensor, cut: list[bool]) -> residues._Sides:
    """Of three frames between two that stand still, (B, 3, 1, 16, 16)."""
    before, after = (x.expand(-1, -1, 3, -1, -1) for x in (before, after))
    rest = torch.zeros(3 * len(cut), 2, 16, 16)
    flags = torch.tensor(cut).view(-1, 1, 1, 1, 1).expand(-1, -1, 3, -1, -1)
    places = (0.25, 0.5, 0.75)
    still = before, before, before, places, before, after, rest, rest
    return residues._Sides(*still, flags, torch.zeros_like(flags))


def test_frames_behind_a_cut_are_those_nearer_to_the_next_scene() -> None:
    torch.manual_seed(5)
    before, after = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 3, 1, 16, 16)
    sides = three_sides(before, after, [True, False])
    frames = torch.cat((before, 0.8 * after + 0.2 * before, after), dim=2)
    assert sides.behind_cut(frames).tolist() == [2, 0]
    # What lies before a frame of the earlier scene is of that too.
    frames = torch.cat((after, before, after), dim=2)
    assert sides.behind_cut(frames).tolist() == [1, 0]
    turned = sides.turned(torch.tensor([1, 0]))
    assert turned.behind.flatten().tolist() == [False, False, True, False, False, False]
    for made in (turned.earlier, turned.later, turned.mixed):
        assert torch.equal(made[0, :, 2:], after[0])
        assert torch.equal(made[0, :, :2], before[0].expand(-1, 2, -1, -1))
        assert torch.equal(made[1:], sides.mixed[1:])


def test_a_cut_that_the_receiver_is_told_of_keeps_scenes_apart() -> None:
    torch.manual_seed(6)
    before, after = torch.rand(2, 3, 1, 16, 16), torch.rand(2, 3, 1, 16, 16)
    sides = three_sides(before, after, [False, False])._replace(
        later=after.expand(-1, -1, 3, -1, -1)
    )
    apart = sides.apart(torch.tensor([True, False]), before)
    assert apart.cut.flatten().tolist() == [True] * 3 + [False] * 3
    assert torch.equal(apart.later[0], before[0].expand(-1, 3, -1, -1))
    assert torch.equal(apart.later[1], sides.later[1])


def test_motion_is_bent_behind_the_last_low_rate_frame_too() -> None:
    x, layout = drifting(4, 1.5), Layout.of(4, 2)
    shown = [x[:, :, 0:1], x[:, :, 2:3]]
    sides = residues._sides_of(shown, layout, 1, residues.motions(shown, layout)[1])
    bend = torch.ones(1, 4, 64, 96)
    for made, side in zip(sides.bent(bend), (sides.earlier, sides.later), strict=True):
        assert not torch.equal(made, side)


@pytest.mark.parametrize("factor", residues.FACTORS)
@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_frames_are_of_the_scene_that_they_are_of(factor: int, cut: int) -> None:
    """Four frames for each low-rate frame, and a cut before one of those left out."""
    torch.manual_seed(10)
    side = 40 * factor
    first, second = (
        F.interpolate(torch.rand(1, 3, 10, 10), (side, side), mode="bicubic").clamp(0.0, 1.0)
        for _ in range(2)
    )
    first, second = 0.5 * first, 0.5 + 0.5 * second
    x = torch.stack([first if n < cut else second for n in range(8)], dim=2)
    layout = Layout.of(8, 2)
    model = bare(factor)
    with torch.inference_mode():
        back = model.up(round_to_bits(model.down(x, (40, 40), layout), 8), (side, side), layout)
    for n in range(8):
        assert psnr(back[:, :, n], x[:, :, n]) > 25.0, n


def test_bent_motion_takes_each_side_from_elsewhere() -> None:
    x = drifting(3, 2.0)
    before, middle, after = (x[:, :, n : n + 1].expand(2, -1, -1, -1, -1) for n in range(3))
    cut = torch.tensor([False, True]).view(2, 1, 1, 1, 1)
    rest = torch.zeros(2, 2, 64, 96)
    sides = residues._Sides(before, after, middle, (0.5,), before, after, rest, rest, cut, ~cut)
    bend = torch.zeros(2, 4, 64, 96)
    bend[:, 0], bend[:, 2] = -2.0, 2.0  # what moves right by two pixels stood to the left before
    for made, side in zip(sides.bent(bend), (before, after), strict=True):
        assert psnr(made[:1], middle[:1]) > psnr(side[:1], middle[:1]) + 15.0
        assert torch.equal(made[1], side[1])


def test_a_network_begins_without_bends() -> None:
    torch.manual_seed(6)
    model = Rescaler(4, Shape(Net(8, ""), Net(8, ""), Net(8, "h"), None, 9))
    assert model.between is not None
    bends = 4 * 2 * 2
    assert model.between.last.out_channels == 3 * 16 + 16 + bends
    assert not model.between.last.weight[-bends:].any()
    assert model.between.last.weight[:-bends].any()
    assert not model.between.skip.weight[-bends:].any()


def test_a_correction_begins_as_none_and_is_told_what_the_receiver_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(7)
    net = Net(8, "")
    without = bare(4)
    shared = Rescaler(4, Shape(net, net, net, net, 9)).eval()
    assert shared.correction is not None
    told = without.shared.state_dict()
    shared.load_state_dict({**shared.state_dict(), **told})
    model = Rescalers(without.alone, shared)
    x, layout = drifting(5, 1.5), Layout.of(5, 3)
    assert layout.counts == (2, 1, 2)
    size, around = (16, 24), (64, 96)
    seen = []
    corrected = shared.corrected

    def looked_at(draft: Draft, errors: list[torch.Tensor], high: tuple[int, int]) -> torch.Tensor:
        seen.append(errors)
        return corrected(draft, errors, high)

    monkeypatch.setattr(shared, "corrected", looked_at)
    with torch.inference_mode():
        low = model.down(x, size, layout)
        assert torch.equal(low, without.down(x, size, layout))
        back = model.up(round_to_bits(low, 8), around, layout)
    for first, errors in zip((0, 3), seen, strict=True):
        wanted = (x - back)[:, :, first : first + 2]
        assert torch.allclose(torch.cat(errors, dim=2), wanted, atol=1e-5)


def test_a_correction_changes_what_is_sent_and_not_how_it_is_read() -> None:
    torch.manual_seed(8)
    net = Net(8, "h")
    model = Rescaler(2, Shape(net, net, net, net, 9)).eval()
    assert model.correction is not None
    groups = Rescalers(bare(2).alone, model)
    x, layout = drifting(4, 1.5), Layout.of(4, 2)
    low = groups.down(x, (32, 48), layout)
    with torch.no_grad():
        model.correction.last.weight.normal_(std=0.3)
    other = groups.down(x, (32, 48), layout)
    plain, _ = residues.reveal(low, 9)
    coarse, _ = residues.reveal(other, 9)
    assert not torch.equal(low, other)
    assert ((plain - coarse).abs() > 1e-3).float().mean() < 0.5  # next to the same plain reduction
    other.square().mean().backward()  # type: ignore[no-untyped-call]
    for part in (model.correction.last, model.correction.first, model.down.last):
        assert part.weight.grad is not None
        assert part.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.up.parameters())


def test_a_rough_frame_takes_detail_from_the_next_one() -> None:
    x = drifting(2, 2.0)
    rough = F.avg_pool2d(x[0].transpose(0, 1), 5, 1, 2, count_include_pad=False)
    rough = rough.transpose(0, 1)[None, :, :1] + 0.03
    behind = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool)
    sharp, same = (
        residues.Rough(rough, x[:, :, 1:], flags) for flags in (behind, torch.zeros_like(behind))
    )
    made, *others = residues.aligned([sharp, same, sharp])
    assert torch.equal(others[0], rough)
    assert torch.equal(others[1], made)
    assert psnr(made, x[:, :, :1]) > psnr(rough, x[:, :, :1]) + 3.0


def test_motion_of_a_group_is_searched_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def counted(*args: torch.Tensor) -> torch.Tensor:
        found.append(motion.searched(*args))
        return found[-1]

    monkeypatch.setattr(residues, "searched", counted)
    x, layout = drifting(7, 1.5), Layout.of(7, 3)
    shown = [x[:, :, owned[0] : owned[0] + 1] for owned in map(layout.owned, range(3))]
    each = residues.motions(shown, layout)
    assert [len(found[0])] == [sum(len(part) for part in each if part is not None)] == [4]
    for low, part in enumerate(each):
        first, second, places = layout.around(low) or (0, 0, ())
        for n, place in enumerate(places):
            alone = motion.bilateral_motion(
                shown[first][:, :, 0], shown[second][:, :, 0], torch.tensor([place])
            )
            assert part is not None
            assert torch.equal(part[n : n + 1], alone)
    with torch.inference_mode():
        model = bare(2)
        model.up(model.down(x, (32, 48), layout), (64, 96), layout)
    assert len(found) == 3


def test_a_low_rate_frame_alone_is_repeated() -> None:
    x, layout = drifting(3, 1.0), Layout.of(3, 1)
    with torch.inference_mode():
        model = bare(4)
        back = model.up(model.down(x, (16, 24), layout), (64, 96), layout)
    assert torch.equal(back, back[:, :, :1].expand_as(back))


@pytest.mark.parametrize(
    "text", ["32hhh", "32hhh 48hhhh", "32hhh 48hhhh mod 4", "4h 8h mod 5", "8 8 8 8 mod 5", 3]
)
def test_a_shape_that_is_none_is_named(text: object) -> None:
    with pytest.raises(
        ValueError, match="alone_half must be two or three widths of 8 to 1024 with their"
    ):
        Shape.parse("alone_half", text)


@pytest.mark.parametrize("text", ["32hhh 48hhhh mod 5", "8 8 8 8 8 mod 5", "8 8 8 mod 4"])
def test_a_shape_of_three_that_is_none_is_named(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"x must be three or four widths .*'48hhh 80hhhh 64hh mod 9', got"
    ):
        Shape.parse("x", text, between=True)


def test_a_shape_is_read() -> None:
    assert Shape.parse("x", "32hq 48 mod 31") == ((32, "hq"), (48, ""), None, None, 31)
    corrected = Shape.parse("x", "8h 16 24q 8 mod 3", True)
    assert corrected == ((8, "h"), (16, ""), (24, "q"), (8, ""), 3)
    assert Shape.parse("x", "8h 16 24q mod 3") == ((8, "h"), (16, ""), None, (24, "q"), 3)
    assert Shape.parse("x", "8h 16 24q mod 3", True) == ((8, "h"), (16, ""), (24, "q"), None, 3)
    with pytest.raises(ValueError, match="x must be up to 64 letters of 'h', 'q', got 'z'"):
        Shape.parse("x", "32z 48 mod 5")
