"""The networks around the IMSM: conv rescaler and mix rescaler (Zhang & Chen, CVPR 2025)."""

from __future__ import annotations

import abc
import math
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from vs_cvrs.model.base import CvrsModel, Size
from vs_cvrs.model.paper.blocks import (
    Conv3d,
    DenseBlock,
    ResidualBlock,
    dense_block_holds,
    depth_to_space,
    space_to_depth,
)
from vs_cvrs.model.paper.imsm import Imsm
from vs_cvrs.model.paper.sampler import Sampler
from vs_cvrs.model.paper.swin import MAX_WINDOW_CELLS, SwinStage, Window
from vs_cvrs.model.strips import in_strips, part_of, strip_size
from vs_cvrs.texts import shown

__all__ = ["ConvRescaler", "ConvUpNet", "DownNet", "MixRescaler", "MixUpNet"]

_DENSE_RADIUS = 4
"""How far a dense block sees in space."""

_FUSE_RADIUS = 1
"""How far a single 3x3x3 convolution sees."""

_MAX_CHANNELS = 4096
_MAX_COUNT = 256
_MAX_KERNEL = 15


class DownNet(nn.Module):
    """Frames to a latent: convolution, residual blocks, sampler.

    Args:
        mid_channels: width.
        three_d_res_num: residual blocks.
        kernel_size: of the first convolution, (frames, height, width).
    """

    def __init__(
        self, mid_channels: int, three_d_res_num: int, kernel_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        padding = (1, (kernel_size[1] - 1) // 2, (kernel_size[2] - 1) // 2)
        self.first_block = nn.Sequential(
            Conv3d(3, mid_channels, kernel_size, padding=padding), nn.PReLU()
        )
        self.feat_extractor = nn.Sequential(
            *(ResidualBlock(mid_channels) for _ in range(three_d_res_num))
        )
        self.down_head = Sampler(mid_channels)
        # Two 3x3x3 convolutions in each block; x, what comes of it, and a copy in another layout.
        # The sampler holds less.
        self._radius = max(kernel_size[1:]) // 2 + 2 * three_d_res_num
        self._held = 4 * mid_channels

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """(B, 3, T, H, W) to ``(B, 3, *size)``."""

        def chain(y: Tensor) -> Tensor:
            out: Tensor = self.feat_extractor(self.first_block(y))
            return out

        part = strip_size(x, self._radius, self._held)
        return self.down_head.sample_parts(
            lambda rows, columns: part_of(chain, (rows, columns), self._radius, 1, x),
            (x.shape[2], x.shape[3], x.shape[4]),
            size,
            part,
        )


class ConvUpNet(nn.Module):
    """Latent to frames: separable dense blocks at half the size, sampler.

    Args:
        mid_channels: width of the dense blocks; a multiple of 4.
        three_d_res_num: dense blocks.
        fuse_channels: width at the sampler.
    """

    def __init__(self, mid_channels: int, three_d_res_num: int, fuse_channels: int) -> None:
        super().__init__()
        self.first_block = _conv_prelu(3, mid_channels // 4)
        self.dense3d_backbone = _DenseBlocks(mid_channels, three_d_res_num, residual=True)
        self.fuse_channel_in = _conv_prelu(mid_channels, fuse_channels * 4)
        self.fuse_channel_out = _conv_prelu(mid_channels, fuse_channels * 4)
        self.head = Sampler(fuse_channels)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """(B, 3, t, h, w), h and w even, to ``(B, 3, *size)``."""
        first = _features(self.first_block, x, fold=2)
        last = self.dense3d_backbone(first)
        return _fused(self.fuse_channel_out, last, self.fuse_channel_in, first, self.head, size, 2)


class MixUpNet(nn.Module):
    """Latent to frames: separable dense blocks and Video Swin stages in turn, sampler.

    Args:
        dim: width; a multiple of 4 with ``use_shuffle`` and of every number of heads.
        three_d_res_num: dense blocks in each group.
        depths: attention blocks of each Swin stage; empty: one group of dense blocks alone.
        num_heads: attention heads of each Swin stage.
        window_size: (frames, height, width) of the attention windows.
        fuse_channels: width at the sampler.
        use_shortcut: residual dense blocks, and the layers' input joins their output.
        use_shuffle: the layers work at half the size.
    """

    def __init__(
        self,
        dim: int,
        three_d_res_num: int,
        depths: list[int],
        num_heads: list[int],
        window_size: Window,
        fuse_channels: int,
        *,
        use_shortcut: bool,
        use_shuffle: bool,
    ) -> None:
        super().__init__()
        self.use_shuffle = use_shuffle
        self.first_block = _conv_prelu(3, dim // 4 if use_shuffle else dim)
        layers: list[nn.Module] = []
        for depth, heads in zip(depths, num_heads, strict=True):
            layers.append(_DenseBlocks(dim, three_d_res_num, residual=use_shortcut))
            layers.append(SwinStage(dim, depth, heads, window_size))
        if not depths:
            layers.append(_DenseBlocks(dim, three_d_res_num, residual=use_shortcut))
        self.layers = nn.Sequential(*layers)
        fused = fuse_channels * 4 if use_shuffle else fuse_channels
        self.fuse_channel_in = _conv_prelu(dim, fused) if use_shortcut else None
        self.fuse_channel_out = _conv_prelu(dim, fused)
        self.head = Sampler(fuse_channels)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """(B, 3, t, h, w), h and w even where ``use_shuffle`` is set, to ``(B, 3, *size)``."""
        fold = 2 if self.use_shuffle else 1
        first = _features(self.first_block, x, fold)
        last = self.layers(first)
        return _fused(
            self.fuse_channel_out, last, self.fuse_channel_in, first, self.head, size, fold
        )


def _features(convolution: nn.Sequential, x: Tensor, fold: int) -> Tensor:
    """What an up network's layers work on: a convolution's output, space folded into depth."""

    def chain(y: Tensor) -> Tensor:
        y = convolution(y)
        return space_to_depth(y) if fold == 2 else y

    width = _width(convolution)
    return in_strips(chain, x, _FUSE_RADIUS, 3 * width, multiple=fold)


def _fused(
    of_last: nn.Sequential,
    last: Tensor,
    of_first: nn.Sequential | None,
    first: Tensor,
    head: Sampler,
    size: Size,
    fold: int,
) -> Tensor:
    """The end of an up network: the layers' output and perhaps their input, to frames.

    What the two convolutions give is by far the widest of all, so it is never held as a whole.
    """

    def chain(y: Tensor, x: Tensor) -> Tensor:
        out: Tensor = of_last(y)
        if of_first is not None:
            out = out + of_first(x)
        return depth_to_space(out) if fold == 2 else out

    def part(rows: slice, columns: slice) -> Tensor:
        # Of the folded positions that hold these rows and columns.
        folded = [slice(p.start // fold, -(-p.stop // fold)) for p in (rows, columns)]
        out = part_of(chain, (folded[0], folded[1]), _FUSE_RADIUS, 1, last, first)
        high, wide = (
            slice(p.start - f.start * fold, p.stop - f.start * fold)
            for p, f in zip((rows, columns), folded, strict=True)
        )
        return out[..., high, wide]

    _, _, t, h, w = last.shape
    rows, columns = strip_size(last, _FUSE_RADIUS, 4 * _width(of_last))
    return head.sample_parts(part, (t, h * fold, w * fold), size, (rows * fold, columns * fold))


def _conv_prelu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(Conv3d(in_channels, out_channels, 3, padding=1), nn.PReLU())


def _width(convolution: nn.Sequential) -> int:
    """Channels that a `_conv_prelu` gives."""
    first = convolution[0]
    assert isinstance(first, Conv3d)
    return first.out_channels


class _DenseBlocks(nn.Sequential):
    """Separable dense blocks, one after the other."""

    def __init__(self, channels: int, count: int, *, residual: bool) -> None:
        super().__init__(
            *(
                DenseBlock(channels, channels, separable=True, residual=residual)
                for _ in range(count)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = in_strips(block, x, _DENSE_RADIUS, dense_block_holds(x.shape[1]))
        return x


class _Rescaler(CvrsModel):
    """Down network, IMSM and an up network; the attributes' names are those of checkpoints."""

    downet: DownNet
    inv_block: Imsm
    upnet: nn.Module

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        top = _Options(options, f"{self.architecture} model")
        down = top.group("down_opt")
        kernel_size = down.triple("kernel_size", _MAX_KERNEL)
        if not kernel_size[1] % 2 or not kernel_size[2] % 2:
            allowed = "odd in height and width"
            raise ValueError(down.complaint("kernel_size", list(kernel_size), allowed))
        self.downet = DownNet(
            down.number("mid_channels", 1, _MAX_CHANNELS),
            down.number("three_D_res_num", 0, _MAX_COUNT),
            kernel_size,
        )
        self.inv_block = Imsm(top.number("block_num", 1, _MAX_COUNT))
        self.upnet = self._up_network(top.group("up_opt"))

    @staticmethod
    @abc.abstractmethod
    def _up_network(options: _Options) -> nn.Module: ...

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Self:
        """Build the model, untrained.

        Args:
            options: ``block_num``, ``down_opt`` and ``up_opt`` as in the authors' configuration;
                ``up_opt`` holds the arguments of the up network.

        Raises:
            ValueError: an option is missing or does not fit; names it.
        """
        return cls(options)

    def imsm_parameters(self) -> list[nn.Parameter]:
        return list(self.inv_block.parameters())

    def downsample(self, high: Tensor, size: Size) -> Tensor:
        out: Tensor = self.downet(high, size)
        return out

    def embed(self, latent: Tensor) -> Tensor:
        out: Tensor = self.inv_block(latent)
        return out

    def extract(self, low: Tensor) -> Tensor:
        return self.inv_block.inverse(low)

    def upsample(self, latent: Tensor, size: Size) -> Tensor:
        out: Tensor = self.upnet(latent, size)
        return out


class ConvRescaler(_Rescaler):
    """The convolutional rescaler: time 2x, space 1x in the paper (11.7 M parameters)."""

    architecture: ClassVar[str] = "conv"

    @staticmethod
    def _up_network(options: _Options) -> ConvUpNet:
        width = options.number("mid_channels", 4, _MAX_CHANNELS)
        if width % 4:
            raise ValueError(options.complaint("mid_channels", width, "a multiple of 4"))
        return ConvUpNet(
            width,
            options.number("three_D_res_num", 0, _MAX_COUNT),
            options.number("fuse_channels", 1, _MAX_CHANNELS),
        )


class MixRescaler(_Rescaler):
    """The rescaler with window attention: other scale pairs in the paper (17.4 M for 2x/4x)."""

    architecture: ClassVar[str] = "mix"
    clamp_latent: ClassVar[bool] = False
    clamp_output: ClassVar[bool] = False

    @staticmethod
    def _up_network(options: _Options) -> MixUpNet:
        dim = options.number("dim", 1, _MAX_CHANNELS)
        use_shuffle = options.flag("use_shuffle")
        depths = options.numbers("depths", _MAX_COUNT)
        num_heads = options.numbers("num_heads", _MAX_CHANNELS)
        if use_shuffle and dim % 4:
            raise ValueError(options.complaint("dim", dim, "a multiple of 4 with use_shuffle"))
        if len(num_heads) != len(depths):
            raise ValueError(
                options.complaint("num_heads", num_heads, "as many numbers as depths has")
            )
        if any(dim % heads for heads in num_heads):
            raise ValueError(options.complaint("num_heads", num_heads, f"divisors of dim {dim}"))
        window = options.triple("window_size", MAX_WINDOW_CELLS) if depths else (1, 1, 1)
        if math.prod(window) > MAX_WINDOW_CELLS:
            allowed = f"a window of at most {MAX_WINDOW_CELLS} cells"
            raise ValueError(options.complaint("window_size", window, allowed))
        return MixUpNet(
            dim,
            options.number("three_D_res_num", 0, _MAX_COUNT),
            depths,
            num_heads,
            window,
            options.number("fuse_channels", 1, _MAX_CHANNELS),
            use_shortcut=options.flag("use_shortcut"),
            use_shuffle=use_shuffle,
        )


class _Options:
    """Checked access to a mapping of options that came from a file or from a user."""

    def __init__(self, values: object, owner: str) -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{owner}: the options must be a mapping, got {shown(values)}")
        self._values = values
        self._owner = owner

    def complaint(self, name: str, value: object, allowed: str) -> str:
        return f"{self._owner}: option {name} must be {allowed}, got {shown(value)}"

    def group(self, name: str) -> _Options:
        return _Options(self._get(name), f"{self._owner} {name}")

    def number(self, name: str, least: int, most: int) -> int:
        value = self._get(name)
        if not _is_whole(value, least, most):
            raise ValueError(self.complaint(name, value, f"a whole number in {least}..{most}"))
        return int(value)

    def numbers(self, name: str, most: int) -> list[int]:
        value = self._get(name)
        if not (
            isinstance(value, list)
            and len(value) <= _MAX_COUNT
            and all(_is_whole(item, 1, most) for item in value)
        ):
            allowed = f"a list of at most {_MAX_COUNT} whole numbers in 1..{most}"
            raise ValueError(self.complaint(name, value, allowed))
        return list(value)

    def triple(self, name: str, most: int) -> tuple[int, int, int]:
        value = self.numbers(name, most)
        if len(value) != 3:
            raise ValueError(self.complaint(name, value, "(frames, height, width)"))
        return value[0], value[1], value[2]

    def flag(self, name: str) -> bool:
        value = self._get(name)
        if not isinstance(value, bool):
            raise ValueError(self.complaint(name, value, "true or false"))
        return value

    def _get(self, name: str) -> Any:
        if name not in self._values:
            raise ValueError(f"{self._owner}: option {name} is missing")
        return self._values[name]


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
