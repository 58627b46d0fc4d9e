"""The plugin as its users run it: vspipe, plain python, and their ends."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clips
import numpy as np
import pytest
from clips import clip_of, core, frames_of, pictures
from watched import run

Env = dict[str, str]
WriteScript = Callable[[str], Path]


def planes(raw: bytes, like: clips.Array) -> clips.Array:
    """vspipe's raw RGB24: planes in the order G, B, R."""
    gbr = np.frombuffer(raw, np.uint8).reshape(-1, *like.shape[1:])
    return gbr[:, [2, 0, 1]]


RATIOS = [(2, 1), (5, 4), (5, 2), (1001, 800), (1, 1)]
ALL_RATIOS = """
def chain(num, den, model):
    low = core.cvrs.Downsample(
        clip_of(pictures(21)), factor_num=num, factor_den=den, model=model
    )
    return core.std.AssumeFPS(core.cvrs.Upsample(low, model=model), fpsnum=30)
"""


def test_linear_output_equals_random_access(
    conv_model: Path, write_script: WriteScript, vapoursynth_env: Env
) -> None:
    model = str(conv_model)
    script = write_script(
        f"{ALL_RATIOS}\nchains = [chain(*r, {model!r}) for r in {RATIOS}]\n"
        "core.std.StackVertical(chains).set_output()"
    )
    code, raw, log = run(["vspipe", str(script), "-"], vapoursynth_env)
    assert code == 0, log
    assert "Output 21 frames" in log
    names: dict[str, Any] = dict(vars(clips))
    exec(ALL_RATIOS, names)
    backwards = [frames_of(names["chain"](*r, model), range(20, -1, -1)) for r in RATIOS]
    stacked = np.concatenate(backwards, axis=2)
    np.testing.assert_array_equal(planes(raw, stacked), stacked)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 101])
def test_clips_of_any_length(count: int, conv_model: Path) -> None:
    model = str(conv_model)
    low = core.cvrs.Downsample(clip_of(pictures(count)), fps=15, model=model)
    blind = core.std.RemoveFrameProps(low)
    high = core.cvrs.Upsample(blind, fps=30, length=count, model=model)
    made = frames_of(high)
    assert made.shape == (count, 3, 24, 32)
    np.testing.assert_array_equal(frames_of(core.cvrs.Upsample(low)), made)


LONG = """
low = core.cvrs.Downsample(clip_of(pictures(8, 64, 48)).std.Loop(100), fps=15, model={0!r})
core.cvrs.Upsample(low, model={0!r}).set_output()
"""


def test_a_reader_that_leaves_early(
    conv_model: Path, write_script: WriteScript, vapoursynth_env: Env
) -> None:
    script = write_script(LONG.format(str(conv_model)))
    pipe = f"vspipe {script} - | head -c 100000 | sha256sum; echo ${{PIPESTATUS[@]}}"
    code, out, log = run(pipe, vapoursynth_env)
    assert code == 0, log
    digest, _, status = out.decode().partition("  -\n")
    _, raw, _ = run(["vspipe", "--end", "15", str(script), "-"], vapoursynth_env)
    assert digest == hashlib.sha256(raw[:100000]).hexdigest()
    # vspipe itself dies of the closed pipe, as it does without any plugin: 141 is SIGPIPE, 243 is
    # what its Python launcher makes of that. Anything else would be ours.
    assert status.split()[0] in ("0", "141", "243"), log


def test_an_error_in_a_frame_ends_vspipe(
    write_script: WriteScript, conv_model: Path, vapoursynth_env: Env
) -> None:
    script = write_script(
        f"""
from vs_cvrs.runtime.session import Session
def fail(self, *args, **kwargs):
    raise RuntimeError("device lost")
Session.encode = fail
core.cvrs.Downsample(clip_of(pictures(8)), fps=15, model={str(conv_model)!r}).set_output()
"""
    )
    code, _, log = run(["vspipe", str(script), "."], vapoursynth_env)
    assert code == 1
    assert "Downsample: device lost" in log


@pytest.mark.parametrize("order", [1, 2])
def test_interlaced_frames_are_refused(
    order: int, write_script: WriteScript, conv_model: Path, vapoursynth_env: Env
) -> None:
    body = f"""
first, last = core.std.SetFieldBased(clip_of(pictures(4)), 0), clip_of(pictures(4))
clip = first + core.std.SetFieldBased(last, {order})
{{}}
low = core.cvrs.Downsample(clip, fps=15, gop=1, model={str(conv_model)!r})
core.cvrs.Upsample(low, model={str(conv_model)!r}).set_output()
"""
    # One frame at a time: of several groups that fail any may be the first.
    command = ["vspipe", "--requests", "1", str(write_script(body.format(""))), "."]
    code, _, log = run(command, vapoursynth_env)
    assert code == 1
    assert (
        f"Downsample: frame 4 of the clip is interlaced (_FieldBased {order}); deinterlace it "
        "(BWDIF, QTGMC) or undo its telecine (VIVTC) first, or where it is progressive all the "
        "same, say so with std.SetFieldBased(clip, 0)"
    ) in log
    script = write_script(body.format("clip = core.std.SetFieldBased(clip, 0)"))
    code, _, log = run(["vspipe", str(script), "."], vapoursynth_env)
    assert code == 0, log
    assert "Output 8 frames" in log


ENDS = {
    "live filters": "high.get_frame(5)",
    "frames in flight": "kept = [high.get_frame_async(n) for n in range(0, 800, 7)]",
    "some frames done": (
        "kept = [high.get_frame_async(n) for n in range(0, 800, 7)]\nkept[3].result()"
    ),
    "the core freed first": (
        "frame = high.get_frame(5)\n"
        "del frame, high, low, core, clips.core\n"
        "vs.clear_outputs()\n"
        "import gc; gc.collect()"
    ),
    "the core let go with frames in flight": (
        "kept = [high.get_frame_async(n) for n in range(0, 800, 7)]\n"
        "del kept, high, low, core, clips.core\n"
        "vs.clear_outputs()\n"
        "import gc; gc.collect()"
    ),
    "threads that wait for frames": (
        "import threading, time\n"
        "def wait():\n"
        "    for n in range(0, 800): high.get_frame(n)\n"
        "for _ in range(16): threading.Thread(target=wait, daemon=True).start()\n"
        "time.sleep(0.1)"
    ),
    "busy daemon threads": (
        "import threading, time\n"
        "def work():\n"
        "    try:\n"
        "        while True:\n"
        "            for n in range(0, 800, 8): high.get_frame(n)\n"
        "    except Exception: pass\n"
        "for _ in range(4): threading.Thread(target=work, daemon=True).start()\n"
        "time.sleep(0.3)"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_python_ends_cleanly(
    end: str, conv_model: Path, write_script: WriteScript, vapoursynth_env: Env
) -> None:
    script = write_script(
        f"""
import clips
low = core.cvrs.Downsample(clip_of(pictures(8)).std.Loop(100), fps=15, model={str(conv_model)!r})
high = core.cvrs.Upsample(low)
{ENDS[end]}
print("end")
"""
    )
    code, out, log = run([sys.executable, str(script)], vapoursynth_env)
    assert (code, out) == (0, b"end\n"), log


def test_vspipe_ends_cleanly_after_python_code_of_the_script(
    conv_model: Path, write_script: WriteScript, vapoursynth_env: Env
) -> None:
    script = write_script(LONG.format(str(conv_model)) + "\ncore.cvrs.Version()")
    code, _, log = run(["vspipe", "--start", "3", "--end", "20", str(script), "."], vapoursynth_env)
    assert code == 0, log
    assert "Output 18 frames" in log
