"""A convolutional code with soft decoding.

Rate 1/3, constraint length 9, generators 557, 663 and 711 (octal; free distance 18: Larsen, IEEE
Trans. Inf. Theory 19, 1973), ended by eight zeros. The decoder is Viterbi's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["coded_length", "decode", "encode"]

_MEMORY = 8
_STATES = 1 << _MEMORY
_GENERATORS = (0o557, 0o663, 0o711)

Bits = npt.NDArray[np.uint8]
Signs = npt.NDArray[np.float32]
"""+1 for a bit that is 0, -1 for one that is 1; in between where it is less sure."""


def coded_length(bits: int) -> int:
    """How many coded bits stand for so many bits."""
    return len(_GENERATORS) * (bits + _MEMORY)


def encode(bits: Bits) -> Signs:
    """The coded bits of bits (0 and 1)."""
    made, state = [], 0
    for bit in (*bits.tolist(), *(0,) * _MEMORY):
        register = bit << _MEMORY | state
        made.append(_outputs()[register])
        state = register >> 1
    return np.concatenate(made)


def decode(received: Signs) -> Bits:
    """The bits whose coded bits correlate best with what was received.

    Args:
        received: `coded_length` values, of any scale.
    """
    steps = len(received) // len(_GENERATORS)
    # Registers that lead to a state: the bit that is newest in it, and either bit that left it.
    states = np.arange(_STATES)
    leading = states[:, None] << 1 | np.arange(2)
    before = leading & (_STATES - 1)
    branches = (received.reshape(steps, -1) @ _outputs().T)[:, leading]
    metric = np.full(_STATES, -np.inf, np.float32)
    metric[0] = 0.0
    came = np.empty((steps, _STATES), np.uint8)
    for step in range(steps):
        first, second = (metric[before] + branches[step]).T
        came[step] = second > first
        metric = np.maximum(first, second)
    bits, state = np.empty(steps, np.uint8), 0
    for step in reversed(range(steps)):
        bits[step] = state >> (_MEMORY - 1)
        state = int(before[state, came[step, state]])
    return bits[: steps - _MEMORY]


@functools.cache
def _outputs() -> npt.NDArray[Any]:
    """The coded bits of each register, as signs; the newest bit is the highest."""
    registers = np.arange(2 * _STATES)
    parities = [[int(r & g).bit_count() % 2 for g in _GENERATORS] for r in registers]
    return 1.0 - 2.0 * np.array(parities, np.float32)
