"""A previewer that people use: asks for frames at random and reads its script again and again.

It runs where VSPreview is installed beside the plugin, or in the Python that CVRS_PREVIEWER names.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import frames_of
from watched import run

PREVIEWER = os.environ.get("CVRS_PREVIEWER", sys.executable)

SCRIPT = """
low = core.cvrs.Downsample(clip_of(pictures(80, 64, 48)), fps=15, model={0!r})
low = core.std.RemoveFrameProps(low)
cut = low[3:21] + low[28:] + low[:9]
made = core.cvrs.Upsample(cut, model={0!r})
made.set_output()
"""


def test_random_seeks_and_reloads(
    conv_model: Path,
    write_script: Callable[[str], Path],
    vapoursynth_env: dict[str, str],
    tmp_path: Path,
) -> None:
    code, _, _ = run([PREVIEWER, "-c", "import vspreview"], vapoursynth_env)
    if code:
        pytest.skip("needs VSPreview: pip install vspreview")
    script = write_script(SCRIPT.format(str(conv_model)))
    names: dict[str, Any] = {}
    exec(script.read_text(), names)
    np.save(tmp_path / "expected.npy", frames_of(names["made"]))
    driver = Path(__file__).with_name("previewer.py")
    words = [PREVIEWER, str(driver), str(script), str(tmp_path / "expected.npy")]
    env = vapoursynth_env | {"QT_QPA_PLATFORM": "offscreen"}
    code, out, log = run(words, env, 280)
    assert code == 0, log
    assert out.decode().splitlines()[-1] == "126 pictures, 0 wrong", log
