"""What vs-cvrs doctor says of installations whose parts do not belong together."""

from __future__ import annotations

import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import vapoursynth

import vs_cvrs
from vs_cvrs.cli import doctor, installation
from vs_cvrs.cli.installation import AdviceError

SITE = Path(vs_cvrs.__file__).parents[1]


def test_the_plugin_here_and_one_of_another_python(tmp_path: Path) -> None:
    assert installation.plugin() == ".".join(vs_cvrs.__version__.split(".")[:2])
    other = "_core.cpython-39-x86_64-linux-gnu.so"
    (tmp_path / other).touch()
    (tmp_path / "_core.pyi").touch()
    again = r"-m pip install --ignore-installed --no-deps vs-cvrs$"
    with pytest.raises(AdviceError, match=rf"there is only {other}: .*{again}"):
        installation.check_build(tmp_path)
    (tmp_path / other).unlink()
    with pytest.raises(AdviceError, match=f"compiled half is absent: .*{again}"):
        installation.check_build(tmp_path)
    (tmp_path / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}").touch()
    installation.check_build(tmp_path)


def test_vapoursynth_in_another_folder() -> None:
    user = Path(site.getusersitepackages())
    both = "--ignore-installed --no-deps vapoursynth vs-cvrs$"
    with pytest.raises(AdviceError, match=f"beside itself only: .* pip install --user {both}"):
        installation.check_place(SITE / "vapoursynth", user / "vs_cvrs")
    with pytest.raises(AdviceError, match=f"beside itself only: .* pip install {both}"):
        installation.check_place(SITE / "vapoursynth", Path("/opt/vs_cvrs"))
    installation.check_place(SITE / "vapoursynth", SITE / "vs_cvrs")


def test_a_plugin_that_does_not_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The other VapourSynth's manifest names a file that is no library."""
    plugins = tmp_path / "vapoursynth" / "plugins" / "cvrs"
    plugins.mkdir(parents=True)
    monkeypatch.setattr(installation, "_package_folder", lambda name: tmp_path / name)
    assert installation._why_not() == f"there is no {plugins / 'manifest.vs'}"
    (plugins / "manifest.vs").write_text("[VapourSynth Manifest V1]\nbroken\n")
    (plugins / "broken.so").write_text("no library")
    assert "broken.so" in installation._why_not()


def test_vspipe_of_this_python(
    monkeypatch: pytest.MonkeyPatch, vapoursynth_env: dict[str, str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", vapoursynth_env["XDG_CONFIG_HOME"])
    assert Path(installation.vspipe()).name.startswith("vspipe")
    # A VapourSynth that was never told which Python to take says so, and so do we, with the line.
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(AdviceError) as caught:
        installation.vspipe()
    line = str(caught.value).rpartition(": ")[2]
    assert line == f"{sys.executable} -m vapoursynth config"
    subprocess.run(line, shell=True, check=True, capture_output=True, env=os.environ)
    installation.vspipe()


def test_a_vspipe_of_another_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "vspipe"
    other.write_text("#!/bin/sh\necho prefix /opt/other >&2\necho plugin True >&2\n")
    other.chmod(0o755)
    monkeypatch.setattr(installation, "find_vspipe", lambda: str(other))
    with pytest.raises(
        AdviceError, match=r"runs the Python in /opt/other, not this one: .* config"
    ):
        installation.vspipe()


def test_doctor_tells_of_a_broken_part(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installation, "_package_folder", lambda name: Path("/elsewhere") / name)
    assert doctor.doctor() == 1
    said = capsys.readouterr().out
    assert "missing cvrs plugin" in said
    assert "VapourSynth in /elsewhere, which looks for plugins beside itself only" in said
    assert vapoursynth.core.cvrs.version.minor >= 1
