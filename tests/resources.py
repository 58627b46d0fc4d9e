"""What a process holds, as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path


def kilobytes(field: str = "VmRSS", process: int | str = "self") -> int:
    """A field of /proc/PID/status: VmRSS, VmHWM (its peak), VmPeak (of the address space)."""
    found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found is not None, field
    return int(found[1])


def threads(process: int | str = "self") -> int:
    return len(list(Path(f"/proc/{process}/task").iterdir()))


def files(process: int | str = "self") -> int:
    """Open file descriptors."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))
