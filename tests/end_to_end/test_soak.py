"""What is held stays the same however long the filters work and however often they are made."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import resources

FRAMES = 20_000
SETTLED = 1_000  # frames after which nothing may grow any more
PIPE = 1 << 14

SOAK = """
import doubles, os
from pathlib import Path
Path({pid!r}).write_text(str(os.getpid()))
{setting}
source = core.std.BlankClip(
    format=vs.RGB24, width=64, height=48, length={length}, fpsnum=30, color=[10, 20, 30]
)
model = {{"model": {model!r}, "stamp": 0}}
clip = core.cvrs.Downsample(source, fps=15, **model)
if {upsample}:
    clip = core.cvrs.Upsample(clip, **model)
clip.set_output()
"""


def _wait_until_full(pipe: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until the writer is ahead of us by all that a pipe holds, or has ended."""
    waiting = bytearray(4)
    while True:
        fcntl.ioctl(pipe, termios.FIONREAD, waiting)
        if struct.unpack("i", waiting)[0] > PIPE - 4096 or process.poll() is not None:
            return
        time.sleep(0.0001)


def _read_slowly(process: subprocess.Popen[bytes], size: int) -> Iterator[bytes]:
    """Frames of vspipe, each taken when the next one is being waited with."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)
    frame = b""
    while True:
        _wait_until_full(pipe, process)
        part = os.read(pipe, size - len(frame))
        if not part:
            break
        frame += part
        if len(frame) == size:
            yield frame
            frame = b""
    assert frame == b""


@pytest.mark.parametrize("cache", [None, 8])
@pytest.mark.parametrize("upsample", [False, True])
def test_memory_is_flat_behind_a_slow_reader(
    cache: int | None,
    upsample: bool,
    nearest_model: Path,
    write_script: Callable[[str], Path],
    vapoursynth_env: dict[str, str],
    tmp_path: Path,
) -> None:
    pid = tmp_path / "pid"
    script = write_script(
        SOAK.format(
            pid=str(pid),
            setting="" if cache is None else f"core.max_cache_size = {cache}",
            length=FRAMES if upsample else 2 * FRAMES,
            model=str(nearest_model),
            upsample=upsample,
        )
    )
    # vspipe gives planes in the order G, B, R. What Downsample makes of it is the negative.
    shown = [20, 30, 10] if upsample else [235, 225, 245]
    wanted = b"".join(bytes([level]) * (64 * 48) for level in shown)
    held: list[int] = []
    process = subprocess.Popen(
        ["vspipe", str(script), "-"],
        env=vapoursynth_env | {"OMP_NUM_THREADS": "1"},  # quicker with frames this small
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        count = 0
        for frame in _read_slowly(process, len(wanted)):
            assert frame == wanted, f"frame {count}"
            count += 1
            if count % SETTLED == 0 and count < FRAMES:
                time.sleep(0.05)  # so that it runs as far ahead as it ever will
                held.append(resources.kilobytes(process=int(pid.read_text())))
    finally:
        process.kill()
        _, log = process.communicate()
    assert process.returncode == 0, log
    assert count == FRAMES
    growth = max(held) / held[0] - 1
    print(f"\nmemory grew by {growth:.2%} of {held[0] >> 10} MiB")
    assert growth < 0.05, held


CYCLES = """
import ctypes, doubles, gc, resources
source = core.std.BlankClip(format=vs.RGB24, width=160, height=120, length=40, fpsnum=30)

def held():
    gc.collect()
    # What is free inside the allocator's arenas is no leak, and comes and goes by megabytes.
    ctypes.CDLL(None).malloc_trim(0)
    return resources.threads(), resources.files(), len(gc.get_objects()), resources.kilobytes()

def cycle(n):
    # A limit of its own gives every cycle a session of its own: model, worker thread and all.
    model = {{"model": {model!r}, "max_memory": 64 + n}}
    low = core.cvrs.Downsample(source, fps=15, **model)
    high = core.cvrs.Upsample(low, **model)
    if n % 2:
        high.get_frame(n % 40).close()
        return
    for future in [high.get_frame_async(n) for n in range(0, 40, 8)][:1]:
        future.result().close()  # the others are in flight when the filters go

for n in range(40):
    cycle(n)
before = held()
for n in range({cycles}):
    cycle(n)
print(*before, *held())
"""


def test_filters_come_and_go(nearest_model: Path, run_python: Callable[[str], str]) -> None:
    # Threads that end late and what the allocator keeps come and go by some megabytes and objects
    # however many cycles there are; what leaks grows with them.
    cycles = 600
    script = CYCLES.format(model=str(nearest_model), cycles=cycles)
    said = [int(n) for n in run_python(script).split()]
    threads, files, objects, memory = (said[4 + i] - said[i] for i in range(4))
    print(f"\n{cycles} cycles: {threads:+} threads, {files:+} files, {objects:+} objects", end="")
    print(f", {memory:+} kB")
    assert files == 0
    assert threads < 10  # VapourSynth's own come and go with its load
    assert objects < cycles
    assert memory < cycles * 3 * 160 * 120 / 2**10  # less than a frame for each
