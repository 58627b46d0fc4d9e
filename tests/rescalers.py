"""Small variants of the paper's models, one for each of their options."""

from __future__ import annotations

from typing import Any

DOWN = {"mid_channels": 4, "three_D_res_num": 1, "kernel_size": [3, 5, 5]}

CONV: dict[str, Any] = {
    "block_num": 1,
    "down_opt": DOWN,
    "up_opt": {"mid_channels": 8, "three_D_res_num": 1, "fuse_channels": 4},
}


def mix(**changes: Any) -> dict[str, Any]:
    up = {
        "dim": 8,
        "three_D_res_num": 1,
        "depths": [2],
        "num_heads": [2],
        "window_size": [2, 4, 4],
        "fuse_channels": 4,
        "use_shortcut": True,
        "use_shuffle": True,
    }
    return {"block_num": 1, "down_opt": DOWN, "up_opt": up | changes}


VARIANTS = [
    ("conv", CONV),
    ("mix", mix()),
    ("mix", mix(use_shuffle=False, dim=6)),
    ("mix", mix(use_shortcut=False)),
    ("mix", mix(depths=[], num_heads=[])),
    ("mix", mix(depths=[1, 3], num_heads=[1, 4])),
]
