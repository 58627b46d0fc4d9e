"""What is built and installed: the sources, and the package where it can only be read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import commands
import pytest
import vapoursynth as vs
from places import ROOT

import vs_cvrs

PACKAGE = Path(vs_cvrs.__file__).parent

ROUND_TRIP = """
from vs_cvrs.checkpoints import zoo

model = zoo.resolve("lite", 2, 1)
low = core.cvrs.Downsample(clip_of(pictures(8)), fps=15)
assert low.get_frame(0).props["CVRSModel"] == "lite"
core.cvrs.Upsample(low).get_frame(3).close()
"""


def run(env: dict[str, str], *words: object, code: int = 0) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        env=env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_package_and_its_weights_in_an_archive(
    write_script: Callable[[str], Path], vapoursynth_env: dict[str, str], tmp_path: Path
) -> None:
    """The compiled half stays a file, as Python loads none from an archive."""
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in PACKAGE.rglob("*"):
            if path.suffix in (".py", ".safetensors"):
                file.write(path, path.relative_to(PACKAGE.parent))
    begin = f"import sys; sys.path.insert(0, {str(archive)!r})\n"
    end = """
import vs_cvrs
assert ".zip" in vs_cvrs.__file__
print(model)
"""
    script = write_script(begin + ROUND_TRIP + end)
    unpacked = Path(run(vapoursynth_env, sys.executable, script).strip())
    assert unpacked.name == "lite.safetensors"
    assert not unpacked.exists()  # what was unpacked ends with the process


def test_an_installation_that_is_only_read(
    write_script: Callable[[str], Path], vapoursynth_env: dict[str, str]
) -> None:
    place = PACKAGE.parent
    before = commands.apart(
        f"mount --bind {place} {place}", f"mount -o remount,bind,ro {place} {place}"
    )
    script = write_script(
        "import os\n"
        f"assert os.statvfs({str(PACKAGE)!r}).f_flag & os.ST_RDONLY\n"
        f"{ROUND_TRIP}\nprint(model)"
    )
    said = run(vapoursynth_env, *before, sys.executable, script)
    assert Path(said.strip()) == PACKAGE / "weights" / "lite.safetensors"


LOADED = """
import sys, time
import vapoursynth as vs

class Policy(vs.EnvironmentPolicy):
    # One core, without the plugins that VapourSynth finds by itself.
    def on_policy_registered(self, api):
        self.environment = api.create_environment(vs.CoreCreationFlags.DISABLE_AUTO_LOADING)
    def on_policy_cleared(self):
        pass
    def get_current_environment(self):
        return self.environment
    def set_environment(self, environment):
        return self.environment
    def is_alive(self, environment):
        return True

vs.register_policy(Policy())
core = vs.core
core.std.BlankClip(length=1).get_frame(0).close()
assert not hasattr(core, "cvrs")
before = set(sys.modules)
begin = time.process_time()
core.std.LoadPlugin({path!r})
print(time.process_time() - begin)
assert core.cvrs.Downsample
print(*(set(sys.modules) - before))
"""


def test_a_script_that_does_not_use_the_plugin_does_not_pay_for_it(
    vapoursynth_env: dict[str, str],
) -> None:
    path = vs.core.cvrs.plugin_path
    script = LOADED.format(path=os.fspath(path))
    seconds = []
    for _ in range(3):
        took, _, modules = run(vapoursynth_env, sys.executable, "-c", script).partition("\n")
        seconds.append(float(took))
        assert not {"torch", "numpy", "vs_cvrs"} & set(modules.split())
    print(f"\nloading the plugin takes {min(seconds) * 1000:.1f} ms of processor time")
    assert min(seconds) < 0.05


def test_the_first_frame_does_not_wait_for_what_it_does_not_need(
    run_python: Callable[[str], str],
) -> None:
    """PyTorch's compiler and what it brings take as long to import as all the rest."""
    said = run_python(
        f"{ROUND_TRIP}\nimport sys\n"
        "core.cvrs.Downsample(low, fps=10, model='lite-any').get_frame(0)\n"
        "core.cvrs.Downsample(clip_of(pictures(8)), fps=15, model='robust')\n"
        "print(*({'torch._dynamo', 'torch._inductor', 'sympy', 'triton'} & set(sys.modules)))"
    )
    assert not said.split()


def test_the_sources_are_whole_and_packed_alike_twice(tmp_path: Path) -> None:
    pack = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if files.returncode:
        pytest.skip("needs a checkout")
    tracked = {name for name in files.stdout.split("\0") if (ROOT / name).is_file()}
    made = []
    for number in range(2):
        # Another folder, and other times of the files.
        tree, out = tmp_path / f"tree-{number}", tmp_path / f"out-{number}"
        for name in tracked:
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
        env = os.environ | {"SOURCE_DATE_EPOCH": "1700000000"}
        subprocess.run(
            [sys.executable, "-c", pack, str(out)], cwd=tree, env=env, check=True, timeout=120
        )
        (archive,) = out.iterdir()
        assert archive.name == f"vs_cvrs-{vs_cvrs.__version__}.tar.gz"
        made.append(archive)
    assert made[0].read_bytes() == made[1].read_bytes()
    with tarfile.open(made[0]) as file:
        packed = {name.partition("/")[2] for name in file.getnames()}
    needed = {name for name in tracked if name.startswith(("vs_cvrs/", "csrc/", "tests/"))}
    assert needed | {"pyproject.toml", "README.md", "LICENSE"} <= packed
    assert not any(name.startswith((".ci/", "build/", "out/")) for name in packed)
