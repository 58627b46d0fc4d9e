"""``vs-cvrs doctor``: what is there, and one line of advice for each thing that is missing."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from vs_cvrs import __version__
from vs_cvrs.carrier.lossless import CODECS, COLOURS, DEPTHS, Carrier
from vs_cvrs.cli import installation
from vs_cvrs.programs.ffmpeg import find_ffmpeg

__all__ = ["Check", "checks", "doctor"]


@dataclass(frozen=True)
class Check:
    """One thing that is there or not; without ``needed`` it is only good to have."""

    name: str
    found: str
    advice: str
    needed: bool = True


def doctor() -> int:
    """Print the checks; exit code 1 when something needed is missing."""
    missing = False
    for check in checks():
        mark = "ok" if check.found else ("missing" if check.needed else "absent")
        print(f"{mark:8}{check.name:30}{check.found or check.advice}")
        missing = missing or (check.needed and not check.found)
    return int(missing)


def checks() -> Iterator[Check]:
    """All checks, one after the other."""
    fine = sys.version_info >= (3, 12)
    yield Check("Python", platform.python_version() if fine else "", "install Python 3.12 or newer")
    yield Check("vs-cvrs", __version__, "")
    yield Check("VapourSynth", _try(_vapoursynth), "pip install vapoursynth")
    yield _looked("cvrs plugin", installation.plugin)
    yield Check("BestSource", _try(_bestsource), "pip install vapoursynth-bestsource")
    yield _looked("vspipe", installation.vspipe, needed=False)
    yield Check("PyTorch", _package("torch"), "pip install torch")
    yield Check("bundled models", _try(_models), "install vs-cvrs again")
    yield Check(
        "CUDA",
        _try(_cuda),
        _without_cuda(),
        needed=False,
    )
    yield Check(
        "CuPy",
        _try(_cupy),
        "for a GPU: pip install cupy-cuda13x (or cupy-cuda12x)",
        needed=False,
    )
    yield Check("ffmpeg", _try(_ffmpeg), "install ffmpeg, or: pip install imageio-ffmpeg")
    for carrier in _carriers():
        yield Check(
            f"encoder {carrier.codec}, {carrier.colours}, {carrier.bits} bits",
            _try(functools.partial(_encoder, carrier)),
            f"this ffmpeg cannot encode {carrier.pixel_format} with {carrier.encoder}; the one in "
            "imageio-ffmpeg can",
            needed=carrier == Carrier(CODECS[0]),
        )
    yield Check(
        "matplotlib",
        _package("matplotlib"),
        "for compare --png: pip install matplotlib",
        needed=False,
    )


def _looked(name: str, look: Callable[[], str], needed: bool = True) -> Check:
    """A check that says itself what is wrong."""
    try:
        return Check(name, look(), "", needed)
    except Exception as error:
        return Check(name, "", (str(error) or type(error).__name__).splitlines()[0], needed)


def _try(look: Callable[[], str]) -> str:
    """What ``look`` finds; empty where it fails, for whatever reason: that is what is asked."""
    try:
        return look()
    except Exception:
        return ""


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _vapoursynth() -> str:
    import vapoursynth as vs

    return f"R{vs.core.core_version.release_major}"


def _bestsource() -> str:
    import vapoursynth as vs

    return f"R{vs.core.bs.version.major}"


def _models() -> str:
    from vs_cvrs.checkpoints import zoo

    return ", ".join(zoo.names())


def _cuda() -> str:
    if importlib.util.find_spec("torch") is None:
        return ""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""


def _without_cuda() -> str:
    """What to know where there is no GPU."""
    text = "no NVIDIA GPU that PyTorch can use; everything works on the CPU, more slowly"
    if _package("nvidia-cublas") or _package("nvidia-cublas-cu12"):
        text += f"; most of this PyTorch is for GPUs, without it: {installation.pytorch_for_cpus()}"
    return text


def _cupy() -> str:
    from vs_cvrs.runtime.transfer import cupy_version

    return cupy_version() or ""


def _ffmpeg() -> str:
    path = find_ffmpeg()
    done = subprocess.run([path, "-version"], capture_output=True, check=True)
    return f"{done.stdout.split()[2].decode()} ({path})"


def _carriers() -> Iterator[Carrier]:
    for codec, colours, bits in itertools.product(CODECS, COLOURS, DEPTHS):
        with contextlib.suppress(ValueError):
            yield Carrier(codec, colours, bits)


def _encoder(carrier: Carrier) -> str:
    """Encode two frames: a listed encoder may still lack the format."""
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "color=s=64x64:d=0.1"]
    command += [*carrier.options(keyframes=4, preset="ultrafast"), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    # A pixel format that an encoder lacks is replaced, with a warning.
    return "" if b"ncompatible" in done.stderr else carrier.pixel_format
