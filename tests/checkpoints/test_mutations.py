"""Checkpoints with lies in them, ten thousand: see `mutations`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import mutations
import pytest
import watched
from places import ROOT

COUNT = 10_000
MOST_MEMORY = 1024  # MiB


@pytest.mark.timeout(1000)
def test_nothing_but_errors_comes_of_lies(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", mutations.__file__, str(tmp_path), str(COUNT)]
    env = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    code, out, log = watched.run(command, env, seconds=900)
    assert code == 0, log[-3000:]
    found = json.loads(out)
    print(f"\n{found}")
    assert sum(found["ended"].values()) == COUNT
    for kind in ("m.safetensors", "model.pth", "config.yml"):
        # Most lies are found out; some change nothing that matters, as another learning rate.
        assert found["ended"][f"{kind} refused"] > found["ended"][f"{kind} loaded"] / 2 > 0
    assert found["grown"] < MOST_MEMORY
