#!/usr/bin/env python3
"""Hold the models against recorded tensors of every stage.

    python scripts/check_parity.py CASE_DIR...

A case is a folder with a checkpoint in the authors' layout (rescaler/, inverter/), case.json, which
gives down_size, up_size and other_size as (frames, height, width), and tensors.safetensors. Prints
a line per tensor and ends with 1 where one is further off than 1e-4, with 2 where a case cannot be
read.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.model.base import CvrsModel, Size, round_to_8bit

TOLERANCE = 1e-4


def stages(
    model: CvrsModel, tensors: dict[str, Tensor], sizes: dict[str, Size]
) -> dict[str, Callable[[], Tensor]]:
    """What the model gives at every stage, each from the recorded result of the stage before."""

    def low() -> Tensor:
        latent = tensors["latent"]
        return model.embed(latent.clamp(0.0, 1.0) if model.clamp_latent else latent)

    def back() -> Tensor:
        return tensors["latent_back_unclamped"].clamp(0.0, 1.0)

    return {
        "latent": lambda: model.downsample(tensors["hr"], sizes["down_size"]),
        "lr_unclamped": low,
        # Rounding makes 1/255 of an error of 1e-6 now and then: not from our own frames.
        "lr_8bit": lambda: round_to_8bit(tensors["lr_unclamped"]),
        "latent_back_unclamped": lambda: model.extract(tensors["lr_8bit"]),
        "hr_out_unclamped": lambda: model.upsample(back(), sizes["up_size"]),
        "hr_out_other_size": lambda: model.upsample(back(), sizes["other_size"]),
    }


def check_case(folder: Path) -> bool:
    """Print a line for each recorded tensor; tell whether all are within the tolerance."""
    model = checkpoint.load(folder).model
    tensors = load_file(folder / "tensors.safetensors")
    case = json.loads((folder / "case.json").read_text("utf-8"))
    sizes: dict[str, Size] = {k: tuple(v) for k, v in case.items() if k.endswith("_size")}
    good = True
    with torch.inference_mode():
        for name, make in stages(model, tensors, sizes).items():
            if name not in tensors:
                continue
            made, wanted = make(), tensors[name]
            same = made.shape == wanted.shape
            error = (made - wanted).abs().max().item() if same else float("inf")
            close = error <= TOLERANCE  # not so for NaN
            shape = "x".join(map(str, made.shape))
            verdict = "ok" if close else "OFF"
            print(f"{folder.name:<16} {name:<22} {shape:<18} {error:9.2e}  {verdict}")
            good &= close
    return good


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", nargs="+", type=Path, metavar="CASE_DIR", help="folder of a case")
    results = []
    for folder in parser.parse_args().case:
        try:
            results.append(check_case(folder))
        except KeyError as error:
            print(f"check_parity: {folder} has no {error}", file=sys.stderr)
            return 2
        except (OSError, ValueError, SafetensorError) as error:
            print(f"check_parity: {folder}: {error}", file=sys.stderr)
            return 2
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
