"""Reading files that anybody may have made: nothing is executed, nothing large is believed.

Every function raises `CheckpointError` for whatever a file may hold.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import safe_open
from torch import Tensor

from vs_cvrs.texts import shown

__all__ = [
    "MAX_FILE_BYTES",
    "CheckpointError",
    "check_weights",
    "parse_json",
    "read_pth",
    "read_safetensors",
    "read_yaml",
]

MAX_FILE_BYTES = 1 << 29
"""Largest checkpoint that is read. What is loaded of it takes at most twice that, in float32."""

_MAX_PICKLE_BYTES = 1 << 24
_MAX_HEADER_BYTES = 1 << 23
_MAX_TEXT_BYTES = 1 << 20
_MAX_YAML_BYTES = 1 << 16
_MAX_YAML_BRACKETS = 256
_MAX_PICKLE_OPERATIONS = 1 << 20
_MAX_PROBLEM = 400

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)

_PICKLE_GLOBALS = frozenset(
    [
        "collections OrderedDict",
        "torch._utils _rebuild_parameter",
        "torch._utils _rebuild_tensor_v2",
        *(
            f"torch {kind}Storage"
            for kind in ("BFloat16", "Double", "Float", "Half", "Int", "Long")
        ),
    ]
)
"""All that a pickled state dict of plain tensors refers to."""

_PICKLE_REFUSED = frozenset(
    ["STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"]
)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence that says why."""

    def __init__(self, path: Path, problem: str) -> None:
        # Whoever reports a problem may quote the file.
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in problem[:_MAX_PROBLEM])
        super().__init__(f"checkpoint {path}: {text}{'...' * (len(problem) > _MAX_PROBLEM)}")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file."""
    size = _file_size(path)
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if size < 8 or header > min(size - 8, _MAX_HEADER_BYTES):
        raise CheckpointError(path, "not a safetensors file, or a truncated one")
    try:
        with safe_open(path, framework="pt") as file:
            # The library has held the sizes in the header against the size of the file.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except Exception as error:  # the library names no classes for what a file can do to it
        raise CheckpointError(path, f"not a readable safetensors file ({_first(error)})") from error
    return tensors, metadata


def read_pth(path: Path) -> dict[str, Tensor]:
    """The state dict that `torch.save` has stored under "params", without running its pickle."""
    size = _file_size(path)
    _check_archive(path, size)
    try:
        # Mapped, a storage cannot be larger than the file, whatever the pickle says of it.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # hostile bytes raise nearly anything
        raise CheckpointError(path, f"not a readable PyTorch file ({_first(error)})") from error
    state = content.get("params") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise CheckpointError(path, 'holds no "params", the state dict of a model')
    total = 0
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(path, '"params" holds something else than named tensors')
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(path, f"tensor {shown(name)} is not a plain tensor")
        total += tensor.numel() * tensor.element_size()
    if total > size:
        raise CheckpointError(path, "its tensors claim to be larger than the file")
    return dict(state)


def _check_archive(path: Path, size: int) -> None:
    """Refuse what weights_only would still believe: compressed bombs, and unusual callables."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            stored = all(
                e.compress_type == zipfile.ZIP_STORED and e.file_size == e.compress_size
                for e in entries
            )
            pickles = [e for e in entries if e.filename.endswith("/data.pkl")]
            if not stored or sum(e.file_size for e in entries) > size or len(pickles) != 1:
                raise CheckpointError(path, "not laid out as torch.save does it")
            if pickles[0].file_size > _MAX_PICKLE_BYTES:
                raise CheckpointError(path, "describes more tensors than any model has")
            pickled = archive.read(pickles[0])
    except CheckpointError:
        raise
    except zipfile.BadZipFile as error:
        problem = f"truncated, or not in the zip format of torch.save ({_first(error)})"
        raise CheckpointError(path, problem) from error
    except Exception as error:
        raise CheckpointError(path, f"not a readable PyTorch file ({_first(error)})") from error
    refused = _refused_in(path, pickled)
    if refused is not None:
        raise CheckpointError(path, f"holds more than tensors ({refused}) and is not loaded")


def _refused_in(path: Path, pickled: bytes) -> str | None:
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(pickled)):
            if count > _MAX_PICKLE_OPERATIONS:
                return "too many operations"
            if operation.name in _PICKLE_REFUSED:
                return f"pickle operation {operation.name}"
            if operation.name == "GLOBAL" and argument not in _PICKLE_GLOBALS:
                return shown(argument)
    except Exception as error:
        raise CheckpointError(path, f"not a readable PyTorch file ({_first(error)})") from error
    return None


def read_yaml(path: Path) -> dict[str, Any]:
    """A small YAML file that holds a mapping."""
    text = _text(path)
    try:
        _check_tokens(path, text)
        content = yaml.safe_load(text)
    except CheckpointError:
        raise
    except Exception as error:  # besides YAMLError, bad scalars raise ValueError, IndexError, ...
        raise CheckpointError(path, f"not readable as YAML ({_first(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, "must hold a YAML mapping")
    return content


def _check_tokens(path: Path, text: str) -> None:
    """Refuse what takes a parser far more time or memory than the text is long."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.FlowSequenceStartToken | yaml.FlowMappingStartToken):
            depth += 1
        if depth > _MAX_YAML_BRACKETS:
            raise CheckpointError(path, "has more brackets than any configuration")
        # Merge keys copy what they merge, again and again when nested.
        if isinstance(token, yaml.ScalarToken) and token.value == "<<":
            raise CheckpointError(path, "uses YAML merge keys, which are not read")


def parse_json(path: Path, name: str, text: str) -> dict[str, Any]:
    """A JSON object from a file's metadata."""
    if len(text) > _MAX_TEXT_BYTES:
        raise CheckpointError(path, f"{name} in its metadata is too long")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(path, f"{name} in its metadata is not JSON") from error
    if not isinstance(content, dict):
        raise CheckpointError(path, f"{name} in its metadata must be a JSON object")
    return content


def check_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Weights are floating-point numbers, all of them finite."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(path, f"tensor {shown(name)} must hold floats, not {kind}")
        if not torch.isfinite(tensor).all():
            raise CheckpointError(path, f"tensor {shown(name)} holds NaN or infinite weights")


def _text(path: Path) -> str:
    if _file_size(path) > _MAX_YAML_BYTES:
        raise CheckpointError(path, f"is larger than {_MAX_YAML_BYTES} bytes")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(path, f"not readable as text ({_first(error)})") from error


def _file_size(path: Path) -> int:
    try:
        size = path.stat().st_size
        regular = path.is_file()
    except (OSError, ValueError) as error:
        raise CheckpointError(path, f"not readable ({_first(error)})") from error
    if not regular:
        raise CheckpointError(path, "not a file")
    if size > MAX_FILE_BYTES:
        limit = MAX_FILE_BYTES >> 20
        raise CheckpointError(path, f"is {size >> 20} MiB large; at most {limit} MiB are read")
    return size


def _first(error: BaseException) -> str:
    """The first line of an error's message, short enough for a sentence."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    lines = text.strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
