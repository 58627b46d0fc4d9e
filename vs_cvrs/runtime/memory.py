"""What memory is free, and whether an error means that it ran out."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

__all__ = [
    "MAX_MEMORY_RANGE",
    "default_memory",
    "free_memory",
    "is_out_of_memory",
]

MAX_MEMORY_RANGE = (64, 1 << 20)
"""What ``max_memory`` may be, in MiB."""


_CPU_MEMORY = 2048
"""MiB that are taken on a CPU where there is more. Larger strips would not be faster."""


# PyTorch's CPU allocator, the CUDA runtime and cuDNN say it in plain RuntimeErrors.
_MEMORY_SIGNS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def default_memory(device: torch.device) -> int:
    """Half of the free memory in MiB, and on CPUs no more than helps."""
    if device.type == "cuda":
        return max(MAX_MEMORY_RANGE[0], torch.cuda.mem_get_info(device)[0] // 2**21)
    return min(_CPU_MEMORY, max(MAX_MEMORY_RANGE[0], free_memory() // 2**21))


def free_memory() -> int:
    """Bytes of memory that can be taken: of the system's, and of a container's that limits it."""
    return min([_free_of_system(), *_free_of_container()])


def _free_of_container(groups: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """What is left of a limit on memory, of either version of Linux's control groups."""
    for folder, limit, taken, cached in (
        (groups, "memory.max", "memory.current", "inactive_file"),
        (
            groups / "memory",
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        ),
    ):
        try:
            # "max" is no limit. Cached files are given up when memory is wanted.
            left = int((folder / limit).read_text()) - int((folder / taken).read_text())
            statistics = (folder / "memory.stat").read_text().splitlines()
            files = [int(n) for key, n in map(str.split, statistics) if key == cached]
            return [max(0, left + sum(files))]
        except (OSError, ValueError):
            continue
    return []


def _free_of_system() -> int:
    try:
        # "MemAvailable: 123 kB", which counts what is only cached as free.
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
        return kilobytes << 10
    except (OSError, StopIteration):
        if sys.platform == "linux":
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        import psutil

        return int(psutil.virtual_memory().available)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of PyTorch, CuPy or NumPy means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True  # CuPy's is a MemoryError too
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _MEMORY_SIGNS)
