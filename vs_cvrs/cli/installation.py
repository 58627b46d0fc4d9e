"""Whether the parts of an installation belong together: which Python, which folder, which build."""

from __future__ import annotations

import importlib.util
import shlex
import site
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from vs_cvrs import __version__
from vs_cvrs.programs.vspipe import find_vspipe

__all__ = ["AdviceError", "plugin", "pytorch_for_cpus", "vspipe"]

_PACKAGE = Path(__file__).parents[1]
_SECONDS = 120

_PROBE = """
import sys
import vapoursynth as vs
print("prefix", sys.prefix, file=sys.stderr)
print("plugin", hasattr(vs.core, "cvrs"), file=sys.stderr)
vs.core.std.BlankClip(length=1).set_output()
"""


class AdviceError(Exception):
    """Something is wrong; the message says what, and the line to type."""


def plugin() -> str:
    """The plugin's version, as VapourSynth in this Python finds it.

    Raises:
        AdviceError: it does not find it, or finds another one.
    """
    check_place(_package_folder("vapoursynth"), _PACKAGE)
    check_build(_PACKAGE)
    import vapoursynth as vs

    if not hasattr(vs.core, "cvrs"):
        raise AdviceError(f"VapourSynth does not load it ({_why_not()}); {_again('vs-cvrs')}")
    found = vs.core.cvrs.version
    text = f"{found.major}.{found.minor}"
    if not __version__.startswith(f"{text}."):
        raise AdviceError(
            f"VapourSynth loads version {text} from {vs.core.cvrs.plugin_path}, and this is "
            f"{__version__}: remove that one"
        )
    return text


def check_place(vapoursynth: Path, package: Path) -> None:
    """Raise AdviceError where VapourSynth looks for plugins in another folder than ours."""
    if vapoursynth.parent == package.parent:
        return
    user = site.getusersitepackages() in map(str, (vapoursynth.parent, package.parent))
    raise AdviceError(
        f"vs-cvrs is in {package.parent} and VapourSynth in {vapoursynth.parent}, which looks for "
        f"plugins beside itself only: {_again('vapoursynth vs-cvrs', user)}"
    )


def check_build(package: Path) -> None:
    """Raise AdviceError where the compiled half is absent or was made for another Python."""
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    if (package / f"_core{suffix}").exists():
        return
    # Several Pythons may share a folder, and pip leaves behind what it did not write.
    others = sorted(file.name for file in package.glob("_core.*") if file.suffix != ".pyi")
    there = f"there is only {', '.join(others)}" if others else "its compiled half is absent"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise AdviceError(f"this is Python {version}, and {there}: {_again('vs-cvrs')}")


def vspipe() -> str:
    """The path of a vspipe that runs scripts in this Python, with the plugin.

    Raises:
        AdviceError: it does not run, or runs another Python.
        FileNotFoundError: there is none.
    """
    path = find_vspipe()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "probe.vpy"
        script.write_text(_PROBE, encoding="utf-8")
        done = subprocess.run(
            [path, "--info", str(script)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=_SECONDS,
        )
    facts = dict(line.split(" ", 1) for line in done.stderr.splitlines() if " " in line)
    config = f"{_python()} -m vapoursynth config"
    if done.returncode != 0 or "prefix" not in facts:
        said = (done.stderr.strip().splitlines() or ["nothing"])[0]
        raise AdviceError(f"{path} runs no script (it says: {said}): {config}")
    if Path(facts["prefix"]).resolve() != Path(sys.prefix).resolve():
        raise AdviceError(f"{path} runs the Python in {facts['prefix']}, not this one: {config}")
    if facts["plugin"] != "True":
        raise AdviceError(f"{path} finds no cvrs plugin: {_again('vapoursynth vs-cvrs')}")
    return path


def pytorch_for_cpus() -> str:
    """The line that brings PyTorch without CUDA, where that is another package."""
    index = "https://download.pytorch.org/whl/cpu"
    return f"{_python()} -m pip install --force-reinstall torch --index-url {index}"


def _package_folder(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise AdviceError(f"{_python()} -m pip install {name}")
    return Path(spec.origin).parent


def _why_not() -> str:
    """What VapourSynth says when it is told to load the plugin."""
    import vapoursynth as vs

    manifest = _package_folder("vapoursynth") / "plugins" / "cvrs" / "manifest.vs"
    if not manifest.exists():
        return f"there is no {manifest}"
    stem = manifest.read_text(encoding="utf-8").splitlines()[-1]
    native = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
    library = (manifest.parent / (stem + native)).resolve()
    try:
        vs.core.std.LoadPlugin(str(library))
    except vs.Error as error:
        return str(error).splitlines()[0]
    return f"{manifest} was not read"


def _again(packages: str, user: bool = False) -> str:
    words = "--user " if user else ""
    return f"{_python()} -m pip install {words}--ignore-installed --no-deps {packages}"


def _python() -> str:
    return shlex.quote(sys.executable)
