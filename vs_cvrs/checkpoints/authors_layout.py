"""Checkpoint folders in the layout of the paper's authors.

    NAME/inverter/{config.yml, model.pth}    NAME/rescaler/{config.yml, model.pth}

The rescaler holds the down and the up network, the inverter the IMSM and a copy of the down network
that is not used. The YAML files are optional where the tensors' shapes tell the options.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vs_cvrs.checkpoints.untrusted import CheckpointError, read_pth, read_yaml
from vs_cvrs.model.paper.swin import MAX_WINDOW_CELLS, Window, relative_position_index
from vs_cvrs.texts import shown

__all__ = ["AuthorsFolder", "read_folder"]

_UNUSED = "upnet.relu.weight"
_TABLE = "attn.relative_position_bias_table"
_INDEX = "attn.relative_position_index"


@dataclass(frozen=True)
class AuthorsFolder:
    """What such a folder holds.

    Attributes:
        architecture: "conv" or "mix".
        options: for `vs_cvrs.model.build`.
        tensors: the weights, by the models' parameter names.
        info: what the configuration says of the model's training: ``down_type``.
    """

    architecture: str
    options: dict[str, Any]
    tensors: dict[str, Tensor]
    info: dict[str, Any]


def read_folder(path: Path) -> AuthorsFolder:
    """Read a folder and find out the model's options.

    Raises:
        CheckpointError: a file is missing or unreadable, the options cannot be told, or the
            configuration contradicts the tensors.
    """
    rescaler = _Part(path / "rescaler")
    inverter = _Part(path / "inverter")
    mix = any(name.startswith("upnet.layers.") for name in rescaler.tensors)
    options: dict[str, Any] = {
        "block_num": inverter.agreed(
            "block_num", inverter.count(r"inv_block\.operations\.") // 2, inverter.config
        ),
        "down_opt": _down_options(rescaler),
        "up_opt": _mix_options(rescaler) if mix else _conv_options(rescaler),
    }
    tensors = {
        name: tensor
        for name, tensor in rescaler.tensors.items()
        if name != _UNUSED and not name.endswith(_INDEX)
    }
    if mix and not options["up_opt"]["use_shortcut"]:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("upnet.fuse_channel_in.")}
    for name, tensor in inverter.tensors.items():
        if not name.startswith("downsample."):
            if name in tensors:
                raise CheckpointError(path, f"tensor {shown(name)} is in both of its parts")
            tensors[name] = tensor
    down_type = inverter.top.get("down_type", rescaler.top.get("down_type"))
    info = {"down_type": down_type} if _is_down_type(down_type) else {}
    return AuthorsFolder("mix" if mix else "conv", options, tensors, info)


class _Part:
    """One of the two subfolders: its tensors and what its configuration says, if it has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors = read_pth(path / "model.pth")
        self.top: Mapping[str, Any] = {}
        if (path / "config.yml").exists():
            self.top = read_yaml(path / "config.yml")
        self.config = _mapping(_mapping(self.top, "network_g"), "opt")

    def shape(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self.tensors:
            raise CheckpointError(self.path, f"tensor {name} is missing")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != rank:
            raise CheckpointError(self.path, f"tensor {name} must have {rank} axes, got {shape}")
        return shape

    def count(self, prefix: str) -> int:
        """How many different numbers follow a prefix (a pattern) in the tensors' names."""
        matches = (re.match(prefix + r"(\d{1,6})\.", name) for name in self.tensors)
        return len({m[1] for m in matches if m})

    def agreed[T](self, name: str, told: T, config: Mapping[str, Any]) -> T:
        """An option that the tensors tell; the configuration must not say otherwise."""
        said = config.get(name, told)
        if said != told:
            raise CheckpointError(
                self.path,
                f"config.yml says {name} {shown(said)}, but the tensors say {told}",
            )
        return told


def _down_options(part: _Part) -> dict[str, Any]:
    config = _mapping(part.config, "down_opt")
    first = part.shape("downet.first_block.0.weight", 5)
    return {
        "mid_channels": part.agreed("mid_channels", first[0], config),
        "three_D_res_num": part.agreed(
            "three_D_res_num", part.count(r"downet\.feat_extractor\."), config
        ),
        "kernel_size": part.agreed("kernel_size", list(first[2:]), config),
    }


def _conv_options(part: _Part) -> dict[str, Any]:
    config = _mapping(part.config, "up_opt")
    fused = part.shape("upnet.fuse_channel_out.0.weight", 5)
    part.agreed("in_channels", part.shape("upnet.first_block.0.weight", 5)[1], config)
    return {
        "mid_channels": part.agreed("mid_channels", fused[1], config),
        "three_D_res_num": part.agreed(
            "three_D_res_num", part.count(r"upnet\.dense3d_backbone\."), config
        ),
        "fuse_channels": part.agreed("fuse_channels", fused[0] // 4, config),
    }


def _mix_options(part: _Part) -> dict[str, Any]:
    config = _mapping(part.config, "up_opt")
    first = part.shape("upnet.first_block.0.weight", 5)
    fused = part.shape("upnet.fuse_channel_out.0.weight", 5)
    part.agreed("in_channels", first[1], config)
    dim = part.agreed("dim", fused[1], config)
    use_shuffle = part.agreed("use_shuffle", first[0] != dim, config)
    depths: list[int] = []
    while depth := part.count(rf"upnet\.layers\.{2 * len(depths) + 1}\.blocks\."):
        depths.append(depth)
    num_heads = [
        part.shape(f"upnet.layers.{2 * k + 1}.blocks.0.{_TABLE}", 2)[1] for k in range(len(depths))
    ]
    # The convolution of the shortcut tells whether there is one; where an unused one may have been
    # stored, only the configuration knows.
    shortcut = config.get("use_shortcut", "upnet.fuse_channel_in.0.weight" in part.tensors)
    options = {
        "dim": dim,
        "three_D_res_num": part.agreed(
            "three_D_res_num", part.count(r"upnet\.layers\.0\."), config
        ),
        "depths": part.agreed("depths", depths, config),
        "num_heads": part.agreed("num_heads", num_heads, config),
        "fuse_channels": part.agreed(
            "fuse_channels", fused[0] // 4 if use_shuffle else fused[0], config
        ),
        "use_shortcut": shortcut,
        "use_shuffle": use_shuffle,
    }
    if depths:
        options["window_size"] = list(_window(part, config.get("window_size")))
    return options


def _window(part: _Part, said: object) -> Window:
    """The attention windows' size, from the stored index of relative positions or as said."""
    rows = part.shape(f"upnet.layers.1.blocks.0.{_TABLE}", 2)[0]
    indexes = {name: t for name, t in part.tensors.items() if name.endswith(_INDEX)}
    if said is not None:
        candidates = [_as_window(part, said)]
    elif indexes:
        cells = next(iter(indexes.values())).shape[0]
        candidates = [w for w in _windows(cells) if math.prod(2 * n - 1 for n in w) == rows]
    else:
        # A window of (a, b, c) has a table of (2a - 1)(2b - 1)(2c - 1) rows.
        odd = [w for w in _windows(rows) if all(n % 2 for n in w)]
        candidates = [((a + 1) // 2, (b + 1) // 2, (c + 1) // 2) for a, b, c in odd]
        if len(candidates) > 1:
            raise CheckpointError(
                part.path,
                "window_size cannot be told from the tensors; put config.yml next to model.pth",
            )
    for window in candidates:
        index = relative_position_index(window, torch.device("cpu"))
        if all(t.dtype == torch.int64 and torch.equal(t, index) for t in indexes.values()):
            return window
    raise CheckpointError(part.path, "the relative_position_index tensors fit no window_size")


def _windows(cells: int) -> list[Window]:
    """All windows of so many cells."""
    if cells > MAX_WINDOW_CELLS:
        return []
    sides = [n for n in range(1, cells + 1) if cells % n == 0]
    pairs = itertools.product(sides, sides)
    return [(a, b, cells // (a * b)) for a, b in pairs if cells % (a * b) == 0]


def _as_window(part: _Part, said: object) -> Window:
    if (
        isinstance(said, list)
        and len(said) == 3
        and all(type(n) is int and 1 <= n <= MAX_WINDOW_CELLS for n in said)
        and math.prod(said) <= MAX_WINDOW_CELLS
    ):
        return said[0], said[1], said[2]
    raise CheckpointError(
        part.path,
        f"config.yml must give window_size as (frames, height, width) of at most "
        f"{MAX_WINDOW_CELLS} cells, got {shown(said)}",
    )


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = values.get(name)
    return inner if isinstance(inner, dict) else {}


def _is_down_type(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(k, str) and type(v) in (int, float) for k, v in value.items()
    )
