from __future__ import annotations

import collections
import copy
import json
import random
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY_CONV
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.checkpoints.untrusted import CheckpointError
from vs_cvrs.model import build
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.model.paper.swin import relative_position_index

pytestmark = pytest.mark.usefixtures("one_thread")

MIX: dict[str, Any] = {
    "block_num": 1,
    "down_opt": {"mid_channels": 4, "three_D_res_num": 2, "kernel_size": [3, 5, 5]},
    "up_opt": {
        "dim": 8,
        "three_D_res_num": 1,
        "depths": [2, 1],
        "num_heads": [2, 4],
        "window_size": [2, 3, 4],
        "fuse_channels": 4,
        "use_shortcut": True,
        "use_shuffle": True,
    },
}


def _model(architecture: str = "conv", options: dict[str, Any] = TINY_CONV) -> CvrsModel:
    torch.manual_seed(5)
    return build(architecture, copy.deepcopy(options))


def _write_folder(
    path: Path, model: CvrsModel, config: bool = True, index: bool = True
) -> dict[str, dict[str, Tensor]]:
    """Write a model as its authors do; gives the tensors of the two parts."""
    state = model.state_dict()
    rescaler = {k: v for k, v in state.items() if not k.startswith("inv_block.")}
    rescaler["upnet.relu.weight"] = torch.tensor([0.25])
    up = model.options["up_opt"]
    for name in [k for k in rescaler if k.endswith("relative_position_bias_table")]:
        window = tuple(up["window_size"])
        stored = relative_position_index(window, torch.device("cpu"))
        if index:
            rescaler[name.replace("bias_table", "index")] = stored
    inverter = {k: v for k, v in state.items() if k.startswith("inv_block.")}
    for name in [k for k in rescaler if k.startswith("downet.")]:
        inverter[name.replace("downet.", "downsample.")] = torch.zeros_like(rescaler[name])
    down = model.options["down_opt"]
    options = {
        "rescaler": {"down_opt": down, "up_opt": {"in_channels": 3, **up}, "quan_type": "ste"},
        "inverter": {"down_opt": down, "block_num": model.options["block_num"]},
    }
    parts = {"rescaler": rescaler, "inverter": inverter}
    for part, tensors in parts.items():
        (path / part).mkdir(parents=True, exist_ok=True)
        torch.save({"params": tensors}, path / part / "model.pth")
        if config:
            content: dict[str, Any] = {"network_g": {"opt": options[part], "type": "X"}}
            if part == "inverter":
                content["down_type"] = {"T": 2, "S": 4}
            (path / part / "config.yml").write_text(yaml.safe_dump(content))
    return parts


def _refused(path: Path) -> str:
    """The message of the error that loading must end with: one line, that names the file."""
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    message = str(caught.value)
    assert message.startswith("checkpoint ")
    assert str(path) in message
    assert "\n" not in message
    return message


# Our format


@pytest.mark.parametrize(("architecture", "options"), [("conv", TINY_CONV), ("mix", MIX)])
def test_round_trip(tmp_path: Path, architecture: str, options: dict[str, Any]) -> None:
    model = _model(architecture, options)
    model.time_factor, model.space_factor, model.group_length = Fraction(5, 2), None, 7
    checkpoint.save(tmp_path / "m.safetensors", model, {"steps": 3})
    loaded = checkpoint.load(tmp_path / "m.safetensors")
    assert loaded.info == {"steps": 3}
    assert loaded.checksum == checkpoint.checksum(model)
    assert not loaded.model.training
    assert loaded.model.options == options
    assert loaded.model.time_factor == Fraction(5, 2)
    assert loaded.model.space_factor is None
    assert loaded.model.group_length == 7
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor), name
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_loading_leaves_random_numbers_alone(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m.safetensors", _model(), {})
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    checkpoint.load(tmp_path / "m.safetensors")
    assert torch.equal(torch.rand(3), expected)


def test_others_may_read_what_is_saved(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    checkpoint.save(tmp_path / "m.safetensors", _model(), {})
    assert (tmp_path / "m.safetensors").stat().st_mode == plain.stat().st_mode


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    model = _model()
    checkpoint.save(tmp_path / "full.safetensors", model, {})
    checkpoint.save(tmp_path / "half.safetensors", model, {}, half=True)
    full, half = (tmp_path / f"{name}.safetensors" for name in ("full", "half"))
    assert half.stat().st_size < 0.55 * full.stat().st_size
    loaded = checkpoint.load(half)
    assert loaded.checksum != checkpoint.checksum(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor.half().float()), name


@pytest.mark.parametrize(("value", "half"), [(float("nan"), False), (1e6, True)])
def test_what_cannot_be_stored_is_not(tmp_path: Path, value: float, half: bool) -> None:
    model = _model()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value
    with pytest.raises(ValueError, match=r"downet\.first_block\.0\.weight is not finite"):
        checkpoint.save(tmp_path / "m.safetensors", model, {}, half=half)
    assert list(tmp_path.iterdir()) == []


def _drop(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def _edit(path: Path, change: Callable[[dict[str, Tensor], dict[str, str]], None]) -> Path:
    checkpoint.save(path, _model(), {})
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    change(tensors, metadata)
    save_file(tensors, path, metadata)
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "not a vs-cvrs model"),
        ({"format_version": "2"}, "format version 2; only 1 is known"),
        ({"architecture": "vae"}, "unknown model architecture 'vae'"),
        ({"options": "[1]"}, "must be a JSON object"),
        ({"options": "{"}, "not JSON"),
        ({"options": "[" * 100_000}, "not JSON"),
        ({"options": "{}"}, "option down_opt is missing"),
        ({"training": " " * (1 << 21)}, "too long"),
        ({"time_factor": "1e999999999"}, "time_factor must be a ratio"),
        ({"time_factor": "1/0"}, "time_factor must be a ratio"),
        ({"space_factor": "1/2"}, "space_factor must be a ratio"),
        ({"group_length": "0"}, "group_length must be 1 to 256"),
        ({"group_length": "nine"}, "group_length must be 1 to 256"),
    ],
)
def test_metadata_that_do_not_fit(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    path = _edit(tmp_path / "m.safetensors", lambda _, metadata: metadata.update(changes))
    assert said in _refused(path)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    name = "inv_block.operations.1.F.conv1.weight"
    path = tmp_path / "m.safetensors"

    def replaced(value: Tensor) -> str:
        return _refused(_edit(path, lambda tensors, _: tensors.update({name: value})))

    shape = (32, 9, 3, 3, 3)
    assert f"tensor {name} holds NaN" in replaced(torch.full(shape, float("nan")))
    assert f"tensor {name} must hold floats, not int64" in replaced(torch.ones(shape).long())
    assert f"tensor {name} must have the shape {shape}" in replaced(torch.ones(3))
    assert f"tensor {name} is missing" in _refused(_edit(path, lambda t, _: _drop(t, name)))
    extra = {"spare\n": torch.ones(1)}
    assert "spare" in _refused(_edit(path, lambda t, _: t.update(extra)))


def test_options_larger_than_the_file_take_no_memory(tmp_path: Path) -> None:
    huge = copy.deepcopy(TINY_CONV)
    huge["up_opt"]["mid_channels"] = 4096
    huge["up_opt"]["three_D_res_num"] = 256
    path = _edit(tmp_path / "m.safetensors", lambda _, m: m.update(options=json.dumps(huge)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "missing" in _refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 18


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"abc",
        struct.pack("<Q", 1 << 62) + b"{}",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 99) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        struct.pack("<Q", 66)
        + b'{"a":{"dtype":"F32","shape":[1073741824],"data_offsets":[0,4096]}}'
        + bytes(4096),
    ],
)
def test_files_that_are_no_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    _refused(path)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such file or folder" in _refused(tmp_path / "absent")
    assert "model.pth" in _refused(tmp_path)


# The authors' layout


@pytest.mark.parametrize("config", [True, False])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("conv", TINY_CONV),
        ("mix", MIX),
        ("mix", MIX | {"up_opt": MIX["up_opt"] | {"use_shuffle": False}}),
        ("mix", MIX | {"up_opt": MIX["up_opt"] | {"use_shortcut": False}}),
        ("mix", MIX | {"up_opt": MIX["up_opt"] | {"window_size": [3, 2, 4]}}),
        (
            "mix",
            MIX
            | {
                "up_opt": {
                    k: [] if k in ("depths", "num_heads") else v
                    for k, v in MIX["up_opt"].items()
                    if k != "window_size"
                }
            },
        ),
    ],
)
def test_folder(tmp_path: Path, architecture: str, options: dict[str, Any], config: bool) -> None:
    model = _model(architecture, options)
    _write_folder(tmp_path, model, config)
    loaded = checkpoint.load(tmp_path)
    assert loaded.model.architecture == architecture
    assert loaded.model.options == options
    assert loaded.checksum == checkpoint.checksum(model)
    assert loaded.info == ({"down_type": {"T": 2, "S": 4}} if config else {})


def test_unused_shortcut_convolution_is_left_out(tmp_path: Path) -> None:
    model = _model("mix", MIX)
    _write_folder(tmp_path, model)
    path = tmp_path / "rescaler" / "config.yml"
    path.write_text(path.read_text().replace("use_shortcut: true", "use_shortcut: false"))
    assert checkpoint.load(tmp_path).model.options["up_opt"]["use_shortcut"] is False


def test_window_size_needs_the_index_or_the_configuration(tmp_path: Path) -> None:
    model = _model("mix", MIX)
    _write_folder(tmp_path, model, config=True, index=False)
    assert checkpoint.load(tmp_path).checksum == checkpoint.checksum(model)
    (tmp_path / "rescaler" / "config.yml").unlink()
    assert "window_size cannot be told from the tensors" in _refused(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mid_channels: 8", "mid_channels: 16", "says mid_channels 16, but the tensors say 8"),
        ("in_channels: 3", "in_channels: 1", "says in_channels 1"),
        ("network_g:", "network_g: !!python/object/apply:os.system [true] #", "not readable"),
        ("network_g:", "<<:", "merge keys"),
        ("network_g:", "network_g: [" + "[" * 50_000, "more brackets"),
        ("network_g:", "network_g: !!int ''  #", "not readable as YAML"),
    ],
)
def test_configuration_that_does_not_fit(tmp_path: Path, old: str, new: str, said: str) -> None:
    _write_folder(tmp_path, _model())
    path = tmp_path / "rescaler" / "config.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert said in _refused(tmp_path)


def test_small_text_for_a_huge_structure(tmp_path: Path) -> None:
    _write_folder(tmp_path, _model("mix", MIX))
    path = tmp_path / "rescaler" / "config.yml"
    levels = ["a0: &a0 [" + "0, " * 8 + "0]"]
    levels += [f"a{i}: &a{i} [" + f"*a{i - 1}, " * 8 + f"*a{i - 1}]" for i in range(1, 30)]
    for name, value in (("use_shortcut", "true"), ("use_shuffle", "true"), ("dim", "8")):
        text = yaml.safe_dump(yaml.safe_load((tmp_path / "rescaler/config.yml").read_text()))
        changed = text.replace(f"{name}: {value}", f"{name}: *a29")
        assert changed != text
        path.write_text("\n".join(levels) + "\n" + changed)
        assert "length 9" in _refused(tmp_path)
        path.write_text(text)


def test_index_that_fits_no_window(tmp_path: Path) -> None:
    parts = _write_folder(tmp_path, _model("mix", MIX), config=False)
    name = "upnet.layers.3.blocks.0.attn.relative_position_index"
    parts["rescaler"][name] = parts["rescaler"][name].flip(0)
    torch.save({"params": parts["rescaler"]}, tmp_path / "rescaler" / "model.pth")
    assert "fit no window_size" in _refused(tmp_path)


class _Malice:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    "content",
    [
        {"params": {"a": _Malice()}},
        {"params": collections.OrderedDict(a=bytearray(9))},
        {"params": {"a": torch.zeros(3).to_sparse()}},
        {"params": {"a": torch.zeros(1).expand(1 << 30, 1 << 10)}},
        {"params": {"a": torch.nn.Linear(2, 2)}},
        {"params": {1: torch.zeros(1)}},
        {"params": [1]},
        {"weights": {}},
        [1],
    ],
)
def test_pickles_that_are_no_state_dict(tmp_path: Path, content: object) -> None:
    _write_folder(tmp_path, _model())
    torch.save(content, tmp_path / "rescaler" / "model.pth")
    _refused(tmp_path)


def _repack(path: Path, change: Callable[[bytes], bytes], compression: int) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [(e.filename, archive.read(e)) for e in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, change(content) if name.endswith("data.pkl") else content)


def test_storages_that_claim_more_than_there_is(tmp_path: Path) -> None:
    _write_folder(tmp_path, _model())
    path = tmp_path / "rescaler" / "model.pth"
    # The first tensor's (4, 3, 3, 3, 3) becomes (255, 3, 3, 3, 3), as does its storage.
    count, rows = (struct.pack("<BH", ord("M"), n) for n in (324, 255 * 81))
    grown = b"(K\xffK\x03K\x03K\x03K\x03t"
    _repack(
        path,
        lambda content: content.replace(count, rows).replace(b"(K\x04" + grown[3:], grown),
        zipfile.ZIP_STORED,
    )
    _refused(tmp_path)


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    _write_folder(tmp_path, _model())
    path = tmp_path / "rescaler" / "model.pth"
    _repack(path, lambda content: content + bytes(1 << 20), zipfile.ZIP_DEFLATED)
    assert "not laid out as torch.save does it" in _refused(tmp_path)


def test_truncated_pth(tmp_path: Path) -> None:
    _write_folder(tmp_path, _model())
    path = tmp_path / "inverter" / "model.pth"
    path.write_bytes(path.read_bytes()[:-4000])
    assert "truncated" in _refused(tmp_path)
    path.unlink()
    assert "No such file" in _refused(tmp_path)


# Damage of any kind


def _damaged(content: bytes, chance: random.Random, start: int, stop: int) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        i = chance.randrange(start, min(stop, len(data)))
        kind = chance.random()
        if kind < 0.7:
            data[i] = chance.randrange(256)
        elif kind < 0.8:
            del data[i : i + chance.choice((1, 2, 50))]
        elif kind < 0.9:
            data[i:i] = chance.randbytes(chance.choice((1, 3, 8)))
        else:
            del data[i + 1 :]
        if len(data) <= start + 1:
            break
    return bytes(data)


def _only_checkpoint_errors(path: Path) -> bool:
    """Tell whether loading was refused; any other error ends the test."""
    message = ""
    try:
        checkpoint.load(path)
    except CheckpointError as error:
        message = str(error)
    assert "\n" not in message
    return message != ""


def test_damaged_safetensors_never_raise_anything_else(tmp_path: Path) -> None:
    chance = random.Random(1)
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, _model(), {})
    content = path.read_bytes()
    header = struct.unpack("<Q", content[:8])[0] + 8
    refused = 0
    for _ in range(80):
        path.write_bytes(_damaged(content, chance, 0, header))
        refused += _only_checkpoint_errors(path)
    assert refused > 40


def test_damaged_pth_never_raise_anything_else(tmp_path: Path) -> None:
    chance = random.Random(2)
    _write_folder(tmp_path, _model())
    path = tmp_path / "rescaler" / "model.pth"
    content = path.read_bytes()
    refused = 0
    for i in range(80):
        if i % 2:  # the archive's directory is at the end
            path.write_bytes(_damaged(content, chance, len(content) - 6000, len(content)))
        else:  # with checksums that fit
            path.write_bytes(content)
            _repack(path, lambda p: _damaged(p, chance, 0, len(p)), zipfile.ZIP_STORED)
        refused += _only_checkpoint_errors(tmp_path)
    assert refused > 40


def test_sizes_in_a_header_allocate_nothing(tmp_path: Path) -> None:
    """In a process of its own with a limit on memory, in which one lie would end the test."""
    path = tmp_path / "m.safetensors"
    lie = {"dtype": "F32", "shape": [1 << 30, 4], "data_offsets": [0, 1 << 34]}
    header = json.dumps({"a": lie, "__metadata__": {"format": "vs-cvrs"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(100))
    code = (
        "import resource, sys, pathlib\n"
        "from vs_cvrs.checkpoints import checkpoint\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n    checkpoint.load(pathlib.Path(sys.argv[1]))\n"
        "except checkpoint.CheckpointError as error:\n    print(error)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used\n"
        "sys.exit(grown > 1 << 17)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "not a readable safetensors file" in done.stdout
