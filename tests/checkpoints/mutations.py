"""A program that loads checkpoints with lies in them, thousands, and watches what that does.

    python mutations.py FOLDER COUNT

It runs by itself because what it looks for would end the tests too: a crash, code out of a file, or
memory beyond all limits. It prints what loading ended in, as JSON.
"""

from __future__ import annotations

import collections
import copy
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import resources
import torch
import yaml
from conftest import TINY_CONV, TINY_LITE

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.checkpoints.untrusted import CheckpointError
from vs_cvrs.model import build

HEADROOM = 3 << 30  # of address space; a lie that gets past everything ends here

INTEGERS = [-1, 0, 1, 2, 3, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63, 2**64, 10**40]
VALUES: list[Any] = [None, True, "", "F32", "a" * 10_000, 1.5, 1e999, [], {}, [[[[]]]], *INTEGERS]
DTYPES = ["F64", "F32", "F16", "BF16", "I64", "I8", "U8", "BOOL", "F8_E4M3", "C64", "F4", "f32", ""]

# What must never happen while a file is read. The names are those of Python's audit events.
FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen"),
    *("os.remove", "os.rename", "os.putenv", "os.mkdir", "socket.connect", "ctypes.dlopen"),
    *("exec", "compile", "code.__new__", "pickle.find_class"),
)

Random = random.Random
State = dict[str, torch.Tensor]


def damaged(content: bytes, chance: Random) -> bytes:
    """Bits turned over, bytes replaced, taken out, put in, doubled; or the end cut off."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        i = chance.randrange(len(data) + 1)
        match chance.randrange(7):
            case 0 | 1 if i < len(data):
                data[i] ^= 1 << chance.randrange(8)
            case 2 if i < len(data):
                data[i] = chance.choice((0, 0xFF, 0x7F, 0x80, chance.randrange(256)))
            case 3:
                del data[i : i + chance.choice((1, 2, 8, 100))]
            case 4:
                data[i:i] = chance.randbytes(chance.choice((1, 4, 50)))
            case 5:
                data[i:i] = data[i : i + chance.choice((4, 30, 300))]
            case 6 if chance.random() < 0.3:
                del data[i:]
        if not data:
            break
    return bytes(data)


def lied(value: Any, chance: Random) -> Any:
    """A JSON value with something else somewhere in it."""
    value = copy.deepcopy(value)
    holder, key = _somewhere([value], chance)
    old = holder[key]
    match chance.randrange(6):
        case 0 if isinstance(holder, dict):
            del holder[key]
        case 1 if isinstance(holder, list) and holder is not value:
            holder.insert(key, old)
        case 2 if isinstance(old, str):
            holder[key] = damaged(old.encode(), chance).decode("utf-8", "replace")
        case 3 if isinstance(old, int):
            holder[key] = old + chance.choice((-4, -1, 1, 4, 1 << 20, 1 << 33, -old - 4))
        case _:
            holder[key] = chance.choice(VALUES)
    return value


def _somewhere(holder: Any, chance: Random) -> tuple[Any, Any]:
    """A container within nested ones, and a key or index in it."""
    key = chance.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
    inner = holder[key]
    if isinstance(inner, dict | list) and inner and chance.random() < 0.9:
        return _somewhere(inner, chance)
    return holder, key


def mutated_safetensors(content: bytes, chance: Random) -> bytes:
    length = struct.unpack("<Q", content[:8])[0]
    text, weights = content[8 : 8 + length], content[8 + length :]
    kind = chance.randrange(8)
    if kind == 0:
        return damaged(content[: 8 + length], chance) + weights
    if kind == 1:
        return damaged(content, chance)
    if kind == 2:
        lies = (length + chance.choice((-9, -1, 1, 9)), *(n % 2**64 for n in INTEGERS))
        return struct.pack("<Q", chance.choice(lies)) + content[8:]
    header = json.loads(text)
    if kind == 3:
        name = chance.choice([n for n in header if n != "__metadata__"])
        header[name]["dtype"] = chance.choice(DTYPES)
    elif kind == 4:
        metadata = header["__metadata__"]
        name = chance.choice(sorted(metadata))
        if metadata[name].startswith("{") and chance.random() < 0.9:
            metadata[name] = json.dumps(lied(json.loads(metadata[name]), chance))
        else:
            metadata[name] = chance.choice(["", "[" * 99_999, str(chance.choice(VALUES))[:10_000]])
    else:
        for _ in range(chance.choice((1, 1, 2))):
            header = lied(header, chance)
    text = json.dumps(header).encode()
    if chance.random() < 0.05:
        text = text.replace(b"{", chance.choice((b"{" * 100_000, b"\xff{", b"[{")), 1)
    if chance.random() < 0.05:  # the same name twice
        text = text[:-1] + b"," + text[1:]
    return struct.pack("<Q", len(text)) + text + weights


class Payload:
    """What a hostile pickle would call."""

    def __init__(self, call: Callable[..., object], *words: object) -> None:
        self.call, self.words = call, words

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.words


def hostile_pickles(mark: Path) -> list[bytes]:
    """Pickles that make a file when they are run, by every operation that can call something."""
    command = f"touch {mark}"
    python = f"open({str(mark)!r}, 'w')"
    found = [
        pickle.dumps({"params": {"a": Payload(call, word)}}, protocol)
        for protocol in (0, 1, 2, 4)
        for call, word in (
            (os.system, command),
            (exec, python),
            (eval, python),
            (os.mkdir, str(mark)),
        )
    ]
    quoted = command.encode()
    return [
        *found,
        b"(S'" + quoted + b"'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'" + quoted + b"'\no.",  # OBJ
        b"cposix\nsystem\n(S'" + quoted + b"'\ntR.",
        b"\x80\x02cos\nsystem\nX"
        + struct.pack("<I", len(quoted))
        + quoted
        + b"\x85\x81.",  # NEWOBJ
        b"ctorch.hub\nload\n(S'" + quoted + b"'\ntR.",
        b"c__builtin__\ngetattr\n(cos\nS'system'\ntR(S'" + quoted + b"'\ntR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\n(S'" + quoted + b"'\ntRtR.",
    ]


def mutated_pth(content: bytes, hostile: list[bytes], chance: Random) -> bytes:
    kind = chance.randrange(8)
    if kind == 0:
        return damaged(content, chance)
    if kind == 1:  # the archive's directory is at the end
        cut = len(content) - 3000
        return content[:cut] + damaged(content[cut:], chance)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    pickled = next(i for i, (name, _) in enumerate(entries) if name.endswith("/data.pkl"))
    name, code = entries[pickled]
    if kind == 2:
        code = chance.choice(hostile)
        code = damaged(code, chance) if chance.random() < 0.5 else code
    elif kind == 3:  # a call in the middle of an honest pickle
        i = chance.randrange(2, len(code))
        code = code[:i] + chance.choice(hostile)[:-1].removeprefix(b"\x80\x02") + b"0" + code[i:]
    elif kind == 4:  # other numbers, of the same and of more bytes: sizes, strides, offsets, keys
        places = [i for i, byte in enumerate(code) if byte in b"KM"]
        for i in chance.sample(places, min(len(places), chance.choice((1, 1, 3)))):
            number = chance.choice(
                (b"K\xff", b"M\xff\xff", b"J\xff\xff\xff\x7f", b"J\xff\xff\xff\xff")
            )
            number = b"\x8a\x08" + b"\xff" * 7 + b"\x7f" if chance.random() < 0.2 else number
            code = code[:i] + number + code[i + 2 + (code[i] == ord("M")) :]
    else:
        code = damaged(code, chance)
    entries[pickled] = (name, code)
    if chance.random() < 0.1:
        entries.append(
            chance.choice([entries[0], ("../../outside", b"x"), ("/etc/x", b""), (name, code)])
        )
    packed = io.BytesIO()
    compression = zipfile.ZIP_DEFLATED if chance.random() < 0.05 else zipfile.ZIP_STORED
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for filename, data in entries:
            archive.writestr(zipfile.ZipInfo(filename), data, compression)
    return packed.getvalue()


def mutated_yaml(text: str, mark: Path, chance: Random) -> bytes:
    match chance.randrange(4):
        case 0:
            return damaged(text.encode(), chance)
        case 1:
            lines = text.splitlines()
            i = chance.randrange(len(lines))
            tags = ("object/apply:os.system", "object/new:os.system", "name:os.system", "module:os")
            lines[i] = (
                lines[i].partition(":")[0] + f": !!python/{chance.choice(tags)} [touch {mark}]"
            )
            return "\n".join(lines).encode()
        case 2:
            bomb = "a: &a [x, x]\n" + "".join(
                f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]\n"
                for i in range(chance.randrange(1, 20))
            )
            return (bomb + text.replace("4", "*b", 1)).encode()
        case _:
            return yaml.safe_dump(lied(yaml.safe_load(text), chance)).encode()


def _importing() -> bool:
    """Whether Python is importing something of its own, as PyTorch does when first needed."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap_external>":
            return True
        frame = frame.f_back
    return False


class Guard:
    """Remembers forbidden events while a file is read."""

    def __init__(self) -> None:
        self.reading = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.reading and event in FORBIDDEN and not _importing():
            self.seen.append(f"{event} {arguments!r:.200}")

    def load(self, path: Path) -> str:
        """Load a checkpoint; the message of its error, empty for none."""
        self.reading = True
        try:
            checkpoint.load(path)
        except CheckpointError as error:
            return str(error)
        finally:
            self.reading = False
        return ""


def write_folder(folder: Path) -> None:
    """A small model in the authors' layout."""
    model = build("conv", TINY_CONV)
    state = model.state_dict()
    parts: dict[str, tuple[State, dict[str, Any]]] = {
        "rescaler": (
            {k: v for k, v in state.items() if not k.startswith("inv_block.")},
            {key: TINY_CONV[key] for key in ("down_opt", "up_opt")},
        ),
        "inverter": (
            {k: v for k, v in state.items() if k.startswith("inv_block.")},
            {"block_num": 1, "down_opt": TINY_CONV["down_opt"]},
        ),
    }
    for name, (tensors, options) in parts.items():
        (folder / name).mkdir(parents=True)
        torch.save({"params": tensors}, folder / name / "model.pth")
        config = {"network_g": {"opt": options, "type": "X"}, "down_type": {"T": 2, "S": 4}}
        (folder / name / "config.yml").write_text(yaml.safe_dump(config))


def _check_that_it_would_show(guard: Guard, hostile: list[bytes], mark: Path) -> None:
    guard.reading = True
    pickle.loads(hostile[0])
    guard.reading = False
    assert guard.seen, "nothing watches"
    assert mark.exists(), "what is called hostile does nothing"
    mark.unlink()


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    chance = Random(4)
    mark = folder / "mark"
    single = folder / "m.safetensors"
    checkpoint.save(single, build("lite", TINY_LITE), {"steps": 3})
    authors = folder / "authors"
    write_folder(authors)
    hostile = hostile_pickles(mark)
    guard = Guard()
    _check_that_it_would_show(guard, hostile, mark)
    for path in (single, authors):
        assert guard.load(path) == ""
    guard.seen.clear()  # modules that are imported when first needed
    files = {
        single: single.read_bytes(),
        **{p: p.read_bytes() for p in sorted(authors.glob("*/*")) if p.stat().st_size < 1 << 20},
    }
    size = resources.kilobytes("VmSize") << 10
    resource.setrlimit(resource.RLIMIT_AS, (size + HEADROOM, size + HEADROOM))
    before = resources.kilobytes("VmPeak")
    ended: collections.Counter[str] = collections.Counter()
    for n in range(count):
        # A folder takes many times as long.
        suffix = (".pth" if n % 20 else ".yml") if n % 4 == 0 else ".safetensors"
        path = chance.choice([p for p in files if p.suffix == suffix])
        content = files[path]
        if path == single:
            changed = mutated_safetensors(content, chance)
        elif path.suffix == ".pth":
            changed = mutated_pth(content, hostile, chance)
        else:
            changed = mutated_yaml(content.decode(), mark, chance)
        path.write_bytes(changed)
        message = guard.load(path if path == single else authors)
        path.write_bytes(content)
        assert message.isprintable(), ascii(message[:500])
        assert len(message) < 500 + len(str(path)), message[:500]
        ended[f"{path.name} {'refused' if message else 'loaded'}"] += 1
        if guard.seen or mark.exists():
            sys.exit(f"code was run: {guard.seen} {message}")
    peak = resources.kilobytes("VmPeak")
    print(json.dumps({"ended": ended, "grown": (peak - before) >> 10}))


if __name__ == "__main__":
    main()
