"""vs-cvrs doctor in environments as pip leaves them: what is missing, and the lines to type."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
COPIED = {"vs-cvrs", "vapoursynth"}  # VapourSynth looks for plugins beside itself
LINE = re.compile(r"(ok|missing|absent) +(\S.{0,28}?) {2,}(.*)")


def needs(name: str, found: set[str]) -> set[str]:
    """What pip brings along with a package, itself included, without extras."""
    if name not in found:
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                needs(wanted.name.lower(), found)
    return found


def copies(site: Path, names: set[str]) -> None:
    """Bring packages of this environment into another folder for packages."""
    for name in names:
        package = importlib.metadata.distribution(name)
        files = [file for file in package.files or () if ".." not in file.parts]
        if name in COPIED:
            for file in files:
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(package.locate_file(file)), site / file)
        else:
            for top in {file.parts[0] for file in files} - {"__pycache__"}:
                if not (site / top).exists():
                    (site / top).symlink_to(str(package.locate_file(top)))


@pytest.fixture(scope="module")
def installed() -> set[str]:
    return needs("vs-cvrs", set())


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory, installed: set[str]) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=os.name != "nt")
    copies(folder / "lib" / PYTHON / "site-packages", installed)
    vspipe = folder / "bin" / "vspipe"
    vspipe.write_text(f"#!{folder}/bin/python\nfrom vapoursynth import vspipe\nvspipe()\n")
    vspipe.chmod(0o755)
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A user who has nothing: no programs on PATH, no settings."""
    (tmp_path / "home").mkdir()
    home = str(tmp_path / "home")
    return {"HOME": home, "PATH": home, "OMP_NUM_THREADS": "1", "PYTHONNOUSERSITE": "1"}


def ask(python: Path | str, env: dict[str, str]) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code of doctor, and by the name of each check how it ended and what is said."""
    done = subprocess.run(
        [python, "-m", "vs_cvrs", "doctor"],
        env=env,
        cwd=env["HOME"],  # not in the sources
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    lines = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    assert all(lines), done.stdout + done.stderr
    return done.returncode, {line[2]: (line[1], line[3]) for line in lines if line}


def test_all_that_pip_does_not_bring(bare: Path, env: dict[str, str]) -> None:
    code, said = ask(bare / "bin" / "python", env)
    assert code == 1
    assert said["BestSource"] == ("missing", "pip install vapoursynth-bestsource")
    assert said["ffmpeg"] == ("missing", "install ffmpeg, or: pip install imageio-ffmpeg")
    assert said["CuPy"][0] == "absent"
    assert "pip install cupy-cuda13x" in said["CuPy"][1]
    assert said["matplotlib"] == ("absent", "for compare --png: pip install matplotlib")
    assert said["vspipe"][0] == "absent"
    line = said["vspipe"][1].rpartition(": ")[2]
    assert line == f"{bare}/bin/python -m vapoursynth config"
    there = {name for name, (mark, _) in said.items() if mark == "ok"}
    assert {"Python", "vs-cvrs", "VapourSynth", "cvrs plugin", "PyTorch", "bundled models"} <= there
    # The line that it says does what it says.
    subprocess.run(line, shell=True, env=env | {"PATH": os.defpath}, check=True, timeout=60)
    again = "from vs_cvrs.cli import installation; print(installation.vspipe())"
    words = [str(bare / "bin" / "python"), "-c", again]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == f"{bare}/bin/vspipe"


@pytest.fixture
def left_behind(bare: Path) -> Iterator[str]:
    """The plugin as another Python left it, in the place of this Python's."""
    (module,) = (bare / "lib" / PYTHON / "site-packages" / "vs_cvrs").glob("_core.*.so")
    other = module.with_name("_core.cpython-39-x86_64-linux-gnu.so")
    module.rename(other)
    yield other.name
    other.rename(module)


def test_a_plugin_of_another_python(bare: Path, env: dict[str, str], left_behind: str) -> None:
    code, said = ask(bare / "bin" / "python", env)
    assert code == 1
    mark, text = said["cvrs plugin"]
    assert mark == "missing"
    assert f"there is only {left_behind}" in text
    again = "-m pip install --ignore-installed --no-deps vs-cvrs"
    assert text.endswith(f": {bare}/bin/python {again}")


def test_a_users_own_folder_and_that_of_all(
    env: dict[str, str], installed: set[str], tmp_path: Path
) -> None:
    """VapourSynth is where all users find it, vs-cvrs in the user's own folder."""
    python = Path(sys.base_prefix) / "bin" / PYTHON
    if not python.exists():
        pytest.skip(f"no {python}")
    everyone = tmp_path / "everyone"
    everyone.mkdir()
    copies(everyone, installed - {"vs-cvrs"})
    own = tmp_path / "home" / ".local" / "lib" / PYTHON / "site-packages"
    own.mkdir(parents=True)
    copies(own, {"vs-cvrs"})
    del env["PYTHONNOUSERSITE"]
    code, said = ask(python, env | {"PYTHONPATH": str(everyone)})
    assert code == 1
    mark, text = said["cvrs plugin"]
    assert mark == "missing"
    assert f"vs-cvrs is in {own} and VapourSynth in {everyone}" in text
    assert text.endswith("-m pip install --user --ignore-installed --no-deps vapoursynth vs-cvrs")
