"""Many threads, clips, models and cores at once: nothing hangs, and no frame is another's.

Every script runs in a process of its own, under a watchdog: what hangs in VapourSynth or at the end
of an interpreter could not be ended from inside.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

RunPython = Callable[[str], str]

CHAINS = """
import doubles, random, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np

core.num_threads = {threads}
sources = [clip_of(pictures(50, seed=seed)) for seed in (1, 2)]
models = {models!r}

def chains():
    made = []
    for source in sources:
        for model in models:
            low = core.cvrs.Downsample(source, fps=15, model=model)
            made += [low, core.cvrs.Upsample(low, model=model)]
    return made

wanted = [frames_of(clip) for clip in chains()]
assert len({{frames.tobytes() for frames in wanted}}) == len(wanted) == 8
jobs = [(c, n) for c in range(8) for n in range(len(wanted[c]))] * 2
random.Random(3).shuffle(jobs)

def wrong(clips, check):
    with ThreadPoolExecutor(16) as pool:
        good = list(pool.map(check, jobs))
    return good.count(False)
"""

DIRECT = """
fresh = chains()

def check(job):
    clip, n = job
    # Half of them wait in the thread that asks, half are asked for without waiting.
    frame = fresh[clip].get_frame(n) if n % 2 else fresh[clip].get_frame_async(n).result()
    return bool((array_of(frame) == wanted[clip][n]).all())
"""

INSIDE_FRAME_EVAL = """
fresh = chains()

def within(clip, other):
    def pick(n):
        # Waits in a thread of VapourSynth's, for a frame that other threads of its must make.
        n = n * 7 % len(wanted[other])
        assert (array_of(fresh[other].get_frame(n)) == wanted[other][n]).all()
        return clip
    return core.std.FrameEval(clip, pick)

evaluated = [within(clip, (i + 3) % 8) for i, clip in enumerate(fresh)]

def check(job):
    clip, n = job
    return bool((array_of(evaluated[clip].get_frame(n)) == wanted[clip][n]).all())
"""

MADE_INSIDE_FRAME_EVAL = """
def remake(index):
    # A filter for every frame, made in a thread of VapourSynth's while others are at work.
    return core.std.FrameEval(fresh[index], lambda n: chains()[index])

fresh = chains()
jobs = jobs[:150]
evaluated = [remake(index) for index in range(8)]

def check(job):
    clip, n = job
    return bool((array_of(evaluated[clip].get_frame(n)) == wanted[clip][n]).all())
"""

USES = {
    "sixteen threads": DIRECT,
    "get_frame inside FrameEval": INSIDE_FRAME_EVAL,
    "filters made inside FrameEval": MADE_INSIDE_FRAME_EVAL,
}


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("use", USES)
def test_every_frame_is_right(
    use: str, threads: int, nearest_model: Path, tiny_model: Path, run_python: RunPython
) -> None:
    models = [str(nearest_model), str(tiny_model)]
    script = (CHAINS + USES[use]).format(threads=threads, models=models)
    assert run_python(script + "\nprint(wrong(fresh, check), 'wrong')") == "0 wrong\n"


PREVIEWER = """
import doubles, gc, resources, threading
import numpy as np

class Policy(vs.EnvironmentPolicy):
    # What a previewer registers: one environment, and so one core, for each time a script is run.
    def on_policy_registered(self, api):
        self.api, self.current, self.alive = api, threading.local(), set()
    def on_policy_cleared(self):
        self.alive.clear()
    def get_current_environment(self):
        return getattr(self.current, "environment", None)
    def set_environment(self, environment):
        before, self.current.environment = self.get_current_environment(), environment
        return before
    def is_alive(self, environment):
        return environment in self.alive

policy = Policy()
vs.register_policy(policy)

SCRIPT = '''
import vapoursynth as vs
from clips import *
low = core.cvrs.Downsample(clip_of(pictures(24)).std.Loop(10), fps=15, model={model!r})
core.cvrs.Upsample(low, model={model!r}).set_output()
'''

def show(n):
    # Runs the script; one frame that is waited for, and many that are not.
    exec(compile(SCRIPT, "script.vpy", "exec"), {{"__name__": "__vapoursynth__"}})
    clip = vs.get_output(0).clip
    shown = array_of(clip.get_frame(n))
    return shown, [clip.get_frame_async(k) for k in range(0, 240, 9)]

def held():
    gc.collect()
    return resources.threads(), resources.files(), resources.kilobytes()
"""

RELOADS = {
    "a core for each": """
def reload(n):
    data = policy.api.create_environment(0)
    policy.alive.add(data)
    with policy.api.wrap_environment(data).use():
        shown, coming = show(n)
        if n % 2:
            coming[-1].result()
        del coming
    policy.alive.discard(data)
    policy.api.destroy_environment(data)
    return shown
""",
    "one core": """
data = policy.api.create_environment(0)
policy.alive.add(data)
def reload(n):
    with policy.api.wrap_environment(data).use():
        shown, coming = show(n)
        vs.clear_outputs()
    return shown
""",
}

# VapourSynth aborts where Python code of a script (clip_of has some) is at work when Python ends,
# so a previewer destroys its environments before that.
END = """
for environment in list(policy.alive):
    policy.alive.discard(environment)
    policy.api.destroy_environment(environment)
"""


@pytest.mark.parametrize("kind", RELOADS)
def test_a_script_reloaded_fifty_times(kind: str, tiny_model: Path, run_python: RunPython) -> None:
    script = PREVIEWER.format(model=str(tiny_model)) + RELOADS[kind]
    said = run_python(
        script
        + """
first = [reload(n) for n in range(5)]
assert len({frame.tobytes() for frame in first}) == 5
before = held()
for n in range(50):
    np.testing.assert_array_equal(reload(n % 5), first[n % 5])
print(*before, *held())
"""
        + END
    )
    threads, files, memory, *after = (int(n) for n in said.split())
    print(f"\n50 reloads: {after[2] - memory:+} kB of {memory >> 10} MiB")
    assert after[1] <= files
    assert after[0] <= threads + 3
    assert after[2] < 1.05 * memory


def test_a_core_that_nobody_destroys(tiny_model: Path, run_python: RunPython) -> None:
    """At the end of Python, with frames in flight; nothing but our filters runs Python code."""
    script = PREVIEWER.replace(
        "clip_of(pictures(24))", "core.std.BlankClip(None, 64, 48, vs.RGB24, 24, 30)"
    )
    said = run_python(
        script.format(model=str(tiny_model))
        + """
data = policy.api.create_environment(0)
policy.alive.add(data)
with policy.api.wrap_environment(data).use():
    shown, coming = show(3)
print("end")
"""
    )
    assert said == "end\n"
