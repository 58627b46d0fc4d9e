"""Layers that the light models share: residual blocks, and networks of them.

Feature tensors are (batch * low-rate frames, channels, height, width), channels last in memory.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vs_cvrs.model.light.folding import shift_time, shifted_rows, unfolded
from vs_cvrs.model.light.fused import SLOPE, activated, added
from vs_cvrs.model.light.tiles import features_like, tiles, worth_tiling

__all__ = [
    "Blocks",
    "CoarseBlock",
    "Net",
    "ResidualBlock",
    "Shape",
    "Trunk",
    "activated3",
    "blocks_reach",
    "check_blocks",
    "conv3",
    "run_blocks",
]

_RESIDUAL_INIT = 0.1

_MODULI = range(3, 32, 2)
_WIDTHS = range(8, 1025)


def conv3(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """3x3 convolution, He initialisation times ``gain``, zero bias."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_normal_(conv.weight, a=SLOPE)
    with torch.no_grad():
        conv.weight.mul_(gain)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def activated3(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``activate(conv(x))`` for a `conv3`."""
    return activated(x, conv.weight, conv.bias, padding=1)


class ResidualBlock(nn.Module):
    """x + conv(act(conv(shift_time(x)))), both 3x3. Without gradients it may overwrite x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = conv3(width, width)
        self.conv2 = conv3(width, width, _RESIDUAL_INIT)

    @torch.no_grad()
    def change_nothing(self) -> None:
        """Begin as if there were no such block; it learns as others do."""
        nn.init.zeros_(self.conv2.weight)
        assert self.conv2.bias is not None
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        return added(self.conv2, activated3(self.conv1, shift_time(x, groups)), x)

    def in_tiles(self, x: Tensor, spare: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """`forward`, and what is spare then. Overwrites ``spare``, a tensor like ``x``."""
        for frame, rows, around, inner in tiles(x, 2):
            y = self.conv2(activated3(self.conv1, shifted_rows(x, groups, frame, around)))
            torch.add(x[frame, :, rows], y[0, :, inner], out=spare[frame, :, rows])
        return spare, x


class CoarseBlock(nn.Module):
    """A residual block at half the trunk's size and twice its width: reach for larger motion.

    ``reduce`` and ``expand`` are 1x1 convolutions on 2x2 pixels folded into channels in the order
    (dy, dx, c). They are computed without folding: as a 2x2 convolution of stride 2, and by adding
    to a view of the features. Without gradients it may overwrite x.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(4 * width, 2 * width, 1)
        self.conv = conv3(2 * width, 2 * width)
        self.expand = nn.Conv2d(2 * width, 4 * width, 1)
        with torch.no_grad():
            self.expand.weight.mul_(_RESIDUAL_INIT)

    @torch.no_grad()
    def change_nothing(self) -> None:
        """See `ResidualBlock.change_nothing`."""
        nn.init.zeros_(self.expand.weight)
        assert self.expand.bias is not None
        nn.init.zeros_(self.expand.bias)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        n, c, h, w = x.shape
        y = self.expand(activated3(self.conv, shift_time(self._reduced(x), groups)))
        y = y.permute(0, 2, 3, 1).reshape(n, h // 2, w // 2, 2, 2, c)
        x = x.contiguous(memory_format=torch.channels_last)
        if not torch.is_grad_enabled():
            unfolded(x).add_(y)
            return x
        out: Tensor = (unfolded(x) + y).transpose(2, 3).reshape(n, h, w, c)
        return out.permute(0, 3, 1, 2)

    def in_tiles(self, x: Tensor, spare: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """`forward` in place, and what is spare then. Overwrites ``spare``, a tensor like ``x``."""
        n, c, h, w = x.shape
        memory = spare.permute(0, 2, 3, 1).reshape(-1)[: x.numel() // 2]
        coarse = memory.view(n, h // 2, w // 2, 2 * c).permute(0, 3, 1, 2)
        for frame, rows, _, _ in tiles(x, 0):
            half = slice(rows.start // 2, rows.stop // 2)
            coarse[frame, :, half] = self._reduced(x[frame : frame + 1, :, rows])[0]
        for frame, rows, around, inner in tiles(coarse, 1):
            y = activated3(self.conv, shifted_rows(coarse, groups, frame, around))
            y = self.expand(y[:, :, inner]).permute(0, 2, 3, 1)
            target = x[frame : frame + 1, :, 2 * rows.start : 2 * rows.stop]
            unfolded(target).add_(y.reshape(1, -1, w // 2, 2, 2, c))
        return x, spare

    def _reduced(self, x: Tensor) -> Tensor:
        kernel = self.reduce.weight.reshape(-1, 2, 2, x.shape[1]).permute(0, 3, 1, 2)
        return activated(x, kernel, self.reduce.bias, stride=2)


_BLOCKS: dict[str, type[ResidualBlock | CoarseBlock]] = {"h": ResidualBlock, "q": CoarseBlock}


class Blocks(nn.Module):
    """Residual blocks of ``width`` channels, a letter each: "h" as they are, "q" at half the size.

    Attributes:
        reach: how far they see, in pixels of the features.
    """

    def __init__(self, width: int, letters: str) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_BLOCKS[kind](width) for kind in letters)
        self.reach = blocks_reach(0, letters)

    def forward(self, x: Tensor, groups: int) -> Tensor:
        return run_blocks(self.blocks, x, groups)


def check_blocks(name: str, letters: str) -> None:
    """Raises ValueError, naming the option, for letters that are no blocks."""
    if not set(letters) <= set(_BLOCKS) or len(letters) > 64:
        raise ValueError(f"{name} must be up to 64 letters of 'h', 'q', got {letters!r}")


class Net(NamedTuple):
    """A network's width, and its blocks, a letter each, see `Blocks`."""

    width: int
    blocks: str

    @classmethod
    def parse(cls, name: str, text: object) -> Net:
        """Raises ValueError, naming the option, where ``text`` is none."""
        found = re.fullmatch(r"(\d{1,4})([a-z]*)", str(text))
        if found is None or int(found[1]) not in _WIDTHS:
            raise ValueError(
                f"{name} must be a width of 8 to 1024 with its blocks, as in '40hhhh', got {text!r}"
            )
        check_blocks(name, found[2])
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.width}{self.blocks}"


class Shape(NamedTuple):
    """Networks that hide something in levels, as in "32hhh 48hhhh mod 5".

    Attributes:
        down: the sender's.
        up: the receiver's.
        between: the receiver's for frames that are left out, if there can be such.
        correction: the sender's that knows what the receiver makes, if there is one.
        modulus: of the levels that they hide in.
    """

    down: Net
    up: Net
    between: Net | None
    correction: Net | None
    modulus: int

    @classmethod
    def parse(cls, name: str, text: object, between: bool = False) -> Shape:
        """Raises ValueError, naming the option, where ``text`` is none."""
        least = 3 if between else 2
        found = re.fullmatch(r"((?:\d{1,4}[a-z]* )+)mod (\d{1,2})", str(text))
        nets = [
            Net(int(width), letters)
            for width, letters in re.findall(r"(\d+)([a-z]*)", found[1] if found else "")
        ]
        modulus = int(found[2]) if found else 0
        if (
            len(nets) not in (least, least + 1)
            or not all(net.width in _WIDTHS for net in nets)
            or modulus not in _MODULI
        ):
            example = "48hhh 80hhhh 64hh mod 9" if between else "32hhh 48hhhh mod 5"
            raise ValueError(
                f"{name} must be {'three or four' if between else 'two or three'} widths of 8 to "
                "1024 with their blocks and an odd modulus of 3 to 31, as in "
                f"{example!r}, got {text!r}"
            )
        for net in nets:
            check_blocks(name, net.blocks)
        return cls(
            nets[0],
            nets[1],
            nets[2] if between else None,
            nets[least] if len(nets) > least else None,
            modulus,
        )


def blocks_reach(reach: int, letters: str) -> int:
    """How far blocks see that are followed by layers that see ``reach`` far."""
    for kind in reversed(letters):
        # What is in a quarter-size pixel sees all that is in its neighbours.
        reach = reach + 2 if kind == "h" else reach + reach % 2 + 2
    return reach


def run_blocks(blocks: nn.ModuleList, x: Tensor, groups: int) -> Tensor:
    """Blocks one after the other; may overwrite ``x`` where no gradients are wanted."""
    if not worth_tiling(x, x.shape[1]):
        for block in blocks:
            x = block(x, groups)
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    spare = torch.empty_like(x)
    for block in blocks:
        assert isinstance(block, (ResidualBlock, CoarseBlock))
        x, spare = block.in_tiles(x, spare, groups)
    return x


class Trunk(nn.Module):
    """A linear skip plus what residual blocks of ``width`` channels add to it.

    The skip carries the picture and runs in float32 whatever type the convolutions run in: half
    precision would cost a picture more than hiding does. The first convolution sees what is hidden
    in the picture's last bits and runs in float32 too; in bfloat16 it would cost 0.04 dB of
    restored frames at 43 dB. Without ``exact`` it runs as the others do, for what is hidden more
    strongly than in last bits.

    Args:
        inputs, outputs: channels of the folded picture.
        width: channels of the features.
        blocks: a letter each, see `Blocks`.
        exact: keep the first convolution in float32.
        fold: rows and columns of the picture that are folded into channels.

    Attributes:
        radius: how far it sees, in pixels of the picture.
        held: values held at once per pixel of the picture and low-rate frame, about.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        blocks: str,
        exact: bool = True,
        fold: int = 2,
    ) -> None:
        super().__init__()
        self.exact = exact
        self.first = conv3(inputs, width)
        self.blocks = nn.ModuleList(_BLOCKS[kind](width) for kind in blocks)
        self.last = conv3(width, outputs, _RESIDUAL_INIT)
        self.skip = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.radius = fold * (blocks_reach(1, blocks) + 1)
        # Features twice (the rest is tiles); what goes in and out, folded too.
        self.held = 2 * (width + inputs + outputs) // fold**2

    def forward(self, x: Tensor, groups: int) -> Tensor:
        device = x.device.type
        if worth_tiling(x, self.first.out_channels):
            return self.in_tiles(x, groups)
        features = self._begun(x)
        if torch.is_autocast_enabled(device):
            features = features.to(torch.get_autocast_dtype(device))
        made: Tensor = self.last(run_blocks(self.blocks, features, groups))
        with torch.autocast(device, enabled=False):
            if device != "cpu" or torch.is_grad_enabled():
                out: Tensor = self.skip(x)
                return out.add_(made)
            made = made.to(x.dtype, memory_format=torch.channels_last)
            self._add_skip(x, made)
            return made

    def _begun(self, x: Tensor) -> Tensor:
        """The first features."""
        device = x.device.type
        reduced = torch.is_autocast_enabled(device) and not self.exact
        with torch.autocast(device, enabled=reduced):
            return activated3(self.first, x)

    def in_tiles(self, x: Tensor, groups: int) -> Tensor:
        """`forward` with little memory and without gradients."""
        reduced = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if reduced else x.dtype
        features = features_like(x, self.first.out_channels, dtype)
        for frame, rows, around, inner in tiles(features, 1):
            features[frame, :, rows] = self._begun(x[frame : frame + 1, :, around])[0, :, inner]
        features = run_blocks(self.blocks, features, groups)
        out = features_like(x, self.last.out_channels, x.dtype)
        for frame, rows, around, inner in tiles(features, 1):
            out[frame, :, rows] = self.last(features[frame : frame + 1, :, around])[0, :, inner]
            with torch.autocast("cpu", enabled=False):
                self._add_skip(x[frame : frame + 1, :, rows], out[frame : frame + 1, :, rows])
        return out

    def _add_skip(self, x: Tensor, target: Tensor) -> None:
        """Add ``skip(x)`` to ``target``, channels last: where one matrix product does it all."""
        source = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        sums = target.permute(0, 2, 3, 1).view(-1, target.shape[1])
        sums.addmm_(source, self.skip.weight.flatten(1).t())
