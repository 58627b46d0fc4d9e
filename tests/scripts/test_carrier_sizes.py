from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from places import ROOT


def test_carriers_are_measured_and_exact(tmp_path: Path, vapoursynth_env: dict[str, str]) -> None:
    file = tmp_path / "sizes.json"
    command = [sys.executable, str(ROOT / "scripts" / "carriers.py"), "drawn:1", "--frames", "4"]
    done = subprocess.run(
        [*command, "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=vapoursynth_env,
    )
    assert done.returncode == 0, done.stderr
    (sizes,) = json.loads(file.read_text()).values()
    assert not [title for title in sizes if "NOT EXACT" in title]
    assert {title.split(",")[0] for title in sizes} >= {"x264 rgb", "x265 rgb", "ffv1 rgb"}
    for codec in ("x264 rgb", "ffv1 rgb"):
        hidden, plain = (
            sizes[f"{codec}, keyframes 250{rest}"] for rest in ("", ", nothing hidden")
        )
        assert 0 < plain < hidden
