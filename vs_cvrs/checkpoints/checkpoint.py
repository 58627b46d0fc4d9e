"""Models in files: our single-file format, and the folders of the paper's authors.

Our format is a safetensors file, float32 or float16, with these metadata (all text):

    format          "vs-cvrs"
    format_version  "1"
    architecture    a key of `vs_cvrs.model.ARCHITECTURES`
    options         JSON object: what the architecture's ``from_options`` takes
    time_factor     "2", "5/2", or "" for any: the ratio of rates that the model was made for
    space_factor    the same for sizes
    group_length    low-rate frames in a group in training
    training        JSON object: how the model was made

Checkpoints are untrusted input: whatever a file holds, nothing of it is run, and loading ends with
a model or with a `CheckpointError`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vs_cvrs.checkpoints.authors_layout import read_folder
from vs_cvrs.checkpoints.untrusted import (
    CheckpointError,
    check_weights,
    parse_json,
    read_safetensors,
)
from vs_cvrs.model import build
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.texts import shown
from vs_cvrs.timeline import MAX_GROUP_LENGTH

__all__ = ["FORMAT_VERSION", "CheckpointError", "LoadedModel", "load", "save"]

FORMAT_VERSION = "1"

_FORMAT = "vs-cvrs"
_DRAWING = ("kaiming_uniform_", "normal_", "uniform_")
_MAKING = (torch.empty, torch.zeros, torch.ones)
_SMALL = 1 << 16


@dataclass(frozen=True)
class LoadedModel:
    """A model from a file.

    Attributes:
        model: in evaluation mode, float32, on the CPU.
        checksum: 16 hexadecimal digits that tell its weights from others.
        info: how the model was made, as given to `save`; of an authors' folder, its ``down_type``.
    """

    model: CvrsModel
    checksum: str
    info: dict[str, Any]


def load(path: Path) -> LoadedModel:
    """Load a model.

    Args:
        path: a file in our format or a folder in the authors' layout.

    Raises:
        CheckpointError: there is nothing at ``path``, or nothing that is a model.
    """
    if path.is_dir():
        folder = read_folder(path)
        model = _assemble(path, folder.architecture, folder.options, folder.tensors)
        return LoadedModel(model, checksum(model), folder.info)
    if not path.is_file():
        raise CheckpointError(path, "no such file or folder")
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(path, "not a vs-cvrs model: its metadata do not say so")
    version = metadata.get("format_version", "")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            path, f"has format version {shown(version)}; only {FORMAT_VERSION} is known"
        )
    options = parse_json(path, "options", metadata.get("options", ""))
    info = parse_json(path, "training", metadata.get("training", "{}"))
    time_factor = _factor(path, metadata, "time_factor")
    space_factor = _factor(path, metadata, "space_factor")
    length = metadata.get("group_length", "")
    if not re.fullmatch(r"[0-9]{1,4}", length) or not 1 <= int(length) <= MAX_GROUP_LENGTH:
        raise CheckpointError(
            path, f"group_length must be 1 to {MAX_GROUP_LENGTH}, got {shown(length)}"
        )
    model = _assemble(path, metadata.get("architecture", ""), options, tensors)
    model.time_factor, model.space_factor = time_factor, space_factor
    model.group_length = int(length)
    return LoadedModel(model, checksum(model), info)


def save(path: Path, model: CvrsModel, info: Mapping[str, Any], half: bool = False) -> None:
    """Save a model in our format; the file appears whole or not at all.

    Args:
        path: of the file, by custom NAME.safetensors.
        model: its weights and what it says of itself.
        info: how it was made; JSON values.
        half: store float16, half the size; loading gives float32 again.

    Raises:
        ValueError: a weight is not finite, or too large for float16.
    """
    tensors = {}
    for name, tensor in model.state_dict().items():
        stored = tensor.detach().cpu().to(torch.float16 if half else torch.float32).contiguous()
        if not torch.isfinite(stored).all():
            reason = " in float16" if half else ""
            raise ValueError(f"checkpoint {path}: tensor {name} is not finite{reason}")
        tensors[name] = stored
    metadata = {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "options": json.dumps(model.options),
        "time_factor": "" if model.time_factor is None else str(model.time_factor),
        "space_factor": "" if model.space_factor is None else str(model.space_factor),
        "group_length": str(model.group_length),
        "training": json.dumps(dict(info)),
    }
    partial = path.with_name(path.name + ".partial")
    # Not by the library itself, whose files nobody else may read.
    partial.write_bytes(to_bytes(tensors, metadata))
    partial.replace(path)


def checksum(model: CvrsModel) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all weights, as float32, and their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().astype("<f4", copy=False).tobytes())
    return digest.hexdigest()[:16]


class _Undrawn(TorchFunctionMode):
    """Layers do not draw the weights that a file's replace; that takes time, and random numbers.

    Args:
        hollow: weights have shapes but no memory, whatever size they are. Unlike under
            ``torch.device("meta")``, small constants have theirs: with these, PyTorch would import
            its compiler, which takes longer than all the rest of loading.
    """

    def __init__(self, hollow: bool = False) -> None:
        super().__init__()
        self.hollow = hollow

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWING:
            return args[0] if args else kwargs["tensor"]
        if self.hollow and func in _MAKING:
            made = func(*args, **{**kwargs, "device": "meta"})
            if func is torch.empty or made.numel() > _SMALL:
                return made
        return func(*args, **kwargs)


def _assemble(
    path: Path, architecture: str, options: dict[str, Any], tensors: dict[str, Tensor]
) -> CvrsModel:
    try:
        # First without memory: the options may ask for more of it than the file has weights.
        with _Undrawn(hollow=True):
            expected = build(architecture, options).state_dict()
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(path, f"does not describe a model: {error}") from error
    for name in sorted(expected.keys() - tensors.keys()):
        raise CheckpointError(
            path, f"tensor {name} is missing: damaged, or made by another version of vs-cvrs"
        )
    for name in sorted(tensors.keys() - expected.keys()):
        raise CheckpointError(path, f"tensor {shown(name)} belongs to no part of the model")
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                path,
                f"tensor {name} must have the shape {tuple(tensor.shape)}, "
                f"got {tuple(tensors[name].shape)}",
            )
    check_weights(path, tensors)
    with _Undrawn():
        model = build(architecture, options)
    model.load_state_dict(tensors)
    return model.eval()


def _factor(path: Path, metadata: Mapping[str, str], name: str) -> Fraction | None:
    text = metadata.get(name, "")
    if text == "":
        return None
    if re.fullmatch(r"[0-9]{1,6}(/0*[1-9][0-9]{0,5})?", text):
        value = Fraction(text)
        if value >= 1:
            return value
    raise CheckpointError(path, f"{name} must be a ratio of at least 1, got {shown(text)}")
