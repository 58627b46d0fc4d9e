"""A fragile stamp in each low-rate frame: what restores the clip, and whether the frame is intact.

A few hundred samples, spread over the frame, carry a bit each in their lowest bit: a payload
(`Stamp`) and a hash over the payload and over every other bit of the frame. A frame whose hash
fits arrived bit by bit as it was sent; re-encoding, scaling or any other change of a single level
in a single sample breaks it, and one frame in 2^64 that was never stamped passes. The stamp
protects against accidents, not against forgery: its key is here for all to read.

Half of the lowest bits happen to be right already. The others move by one level: in 8 bits a
mean squared error of 224 / samples, which is 80.0 dB PSNR at 448x256 and 92.6 dB at 1920x1080.

A frame of fewer than `MIN_SAMPLES` samples (16x12 has them, 12x12 does not) carries no stamp;
nothing is known of its state.

Version 2 says of each group how it was sent and how well it comes back (`Sent`). Version 3 tells
groups apart by a hash of their frames, so that frames of two clips of one kind are never taken for
one group. Stamps of earlier versions, which do not, are read as before.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import math
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "EXACT",
    "MIN_SAMPLES",
    "STAMP_VERSION",
    "Mode",
    "Sent",
    "Stamp",
    "fits",
    "psnr_of",
    "quality_of",
    "read",
    "read_all",
    "write",
]

STAMP_VERSION = 3

_PAYLOADS = {
    1: struct.Struct(">B IIII HH I H I 8s"),
    2: struct.Struct(">B IIII HH I H I 8s BBBBB"),
    3: struct.Struct(">B IIII HH I H I 8s BBBBB 4s"),
}
_HASH_BYTES = 8
_GROUP_BYTES = 4
_DIGEST_BYTES = 32
_KEY = b"vs-cvrs stamp"
_SAMPLE_TYPES = (np.uint8, np.uint16)
_BITS = {version: 8 * (payload.size + _HASH_BYTES) for version, payload in _PAYLOADS.items()}

MIN_SAMPLES = _BITS[STAMP_VERSION]
"""Samples (width * height * 3) that a frame needs to carry a stamp: one for each bit."""

_AT_ONCE = 2**17
"""Samples whose own bits are cleared at once: what is made of them stays in a core's cache."""

_WORTH_THREADS = 2**20
"""Bytes of a frame from which on frames are hashed at the same time, each in its own thread."""

EXACT = 255
"""The quality of frames that come back as they were."""

Frame = npt.NDArray[Any]
"""(3, height, width), planar RGB, C-contiguous: uint8, or uint16 for samples of more bits."""


class Mode(enum.IntEnum):
    """What the low-rate frames of a group are."""

    HIDDEN = 0
    """They hide the frames that were removed."""
    INTERPOLATED = 1
    """They hide nothing; the receiver blends neighbours for the frames between them."""
    EARLIER = 2
    """They hide nothing; the receiver repeats the earlier neighbour."""
    LATER = 3
    """They hide nothing; the receiver repeats the later neighbour."""


@dataclass(frozen=True)
class Sent:
    """How a group was sent, and how well it comes back.

    Attributes:
        quality: of all its restored frames, PSNR in steps of half a dB (`quality_of`); 0: unknown.
        quality_removed: of the frames that no low-rate frame shows, likewise.
        mode: what its low-rate frames are.
        black, white: the levels of 8 bits that the source's 0 and 255 became before its motion was
            hidden; what is restored is stretched back.
    """

    quality: int = 0
    quality_removed: int = 0
    mode: Mode = Mode.HIDDEN
    black: int = 0
    white: int = 255


def quality_of(psnr: float) -> int:
    """A PSNR in dB in whole steps of half a dB, rounded down: 1 to 254, and `EXACT`."""
    return EXACT if psnr == math.inf else math.floor(min(max(2 * psnr, 1), EXACT - 1))


def psnr_of(quality: int) -> float | None:
    """The PSNR in dB that a quality stands for; infinite for `EXACT`, None where it is unknown."""
    return None if quality == 0 else math.inf if quality == EXACT else quality / 2


@dataclass(frozen=True)
class Stamp:
    """What a low-rate frame tells of its clip.

    Attributes:
        ratio: high rate over low rate.
        rate: high rate in frames per second, None where it was unknown.
        width, height: of the high-rate frames.
        length: frames of the high-rate clip.
        group_length: low-rate frames in a whole group.
        index: the frame's number in the low-rate clip that Downsample made.
        checksum: of the model's weights, 16 hexadecimal digits.
        sent: what is known of the frame's group.
        group: a hash of all low-rate frames of the frame's group; empty where it is not known.
    """

    ratio: Fraction
    rate: Fraction | None
    width: int
    height: int
    length: int
    group_length: int
    index: int
    checksum: str
    sent: Sent = Sent()
    group: bytes = b""

    def pack(self) -> bytes:
        """The payload. Raises ValueError for values beyond its fields."""
        high = self.ratio if self.rate is None else self.rate
        low = None if self.rate is None else self.rate / self.ratio
        try:
            return _PAYLOADS[STAMP_VERSION].pack(
                STAMP_VERSION,
                high.numerator,
                high.denominator,
                low.numerator if low else 0,
                low.denominator if low else 0,
                self.width,
                self.height,
                self.length,
                self.group_length,
                self.index,
                bytes.fromhex(self.checksum).ljust(8, b"\0"),
                self.sent.quality,
                self.sent.quality_removed,
                self.sent.mode,
                self.sent.black,
                self.sent.white,
                self.group,
            )
        except struct.error as error:
            raise ValueError(f"stamp: a value does not fit ({error}): {self}") from error

    @classmethod
    def unpack(cls, payload: bytes) -> Stamp | None:
        """None for a payload that no version can have made."""
        fields = _PAYLOADS[payload[0]].unpack(payload)
        high_num, high_den, low_num, low_den, width, height, length, group_length, index = fields[
            1:10
        ]
        if not all((high_num, high_den, width, height, length, group_length)):
            return None
        known = low_num > 0 and low_den > 0
        high = Fraction(high_num, high_den)
        ratio = high / Fraction(low_num, low_den) if known else high
        if ratio < 1:
            return None
        sent = Sent()
        if len(fields) > 11:
            quality, quality_removed, mode, black, white = fields[11:16]
            if mode not in set(Mode) or black >= white:
                return None
            sent = Sent(quality, quality_removed, Mode(mode), black, white)
        rate = high if known else None
        checksum = fields[10].hex()
        group = b"".join(fields[16:])
        if not any(group):
            group = b""
        return cls(ratio, rate, width, height, length, group_length, index, checksum, sent, group)

    def same_clip(self, other: Stamp) -> bool:
        """Whether two stamps tell of the same clip, whatever frame and group they are of."""
        mine, others = (replace(s, index=0, sent=Sent(), group=b"") for s in (self, other))
        return mine == others


def fits(width: int, height: int) -> bool:
    """Whether frames of this size can carry a stamp."""
    return 3 * width * height >= MIN_SAMPLES


def write(frames: npt.NDArray[Any], stamp: Stamp) -> None:
    """Stamp the frames of a group, in place.

    Args:
        frames: all low-rate frames of the group, each a `Frame`. Stamps that they have do not
            count.
        stamp: of the first of them. Its ``group`` is found out here.

    Raises:
        ValueError: the frames are too small (`fits`), are not of the form that `Frame` says, or a
            value of the stamp is too large for its field.
    """

    def cleared(frame: Frame) -> bytes:
        samples = _samples(frame)
        places = _places(samples.size, STAMP_VERSION)
        if places is None:
            raise ValueError(f"stamp: a frame needs {MIN_SAMPLES} samples, got {samples.size}")
        samples[places] &= _all_but_lowest(frame)
        return _digest(frame)

    digests = _of_each(cleared, frames)
    group = _keyed(b"".join(digests), _GROUP_BYTES)
    for index, (frame, digest) in enumerate(zip(frames, digests, strict=True), stamp.index):
        payload = replace(stamp, index=index, group=group).pack()
        samples = _samples(frame)
        message = payload + _keyed(payload + digest, _HASH_BYTES)
        samples[_places(samples.size, STAMP_VERSION)] |= np.unpackbits(
            np.frombuffer(message, np.uint8)
        )


def read(frame: Frame) -> Stamp | None:
    """The stamp of a frame that is exactly as `write` left it; None for any other frame.

    Raises:
        ValueError: the frame is not of the form that `Frame` says.
    """
    samples = _samples(frame)
    for version, layout in _PAYLOADS.items():
        places = _places(samples.size, version)
        # The first byte spares most foreign frames the hash.
        if places is None or _lowest_bits(samples[places[:8]])[0] != version:
            continue
        message = _lowest_bits(samples[places])
        payload, stated = message[: layout.size], message[layout.size :]
        if _hash(frame, places, payload, version) == stated:
            return Stamp.unpack(payload)
    return None


def read_all(frames: Sequence[Frame]) -> list[Stamp | None]:
    """What `read` says of each of the frames, which are all of one size. Raises as it does."""
    return _of_each(read, frames)


def _of_each[T](work: Callable[[Frame], T], frames: Sequence[Frame] | npt.NDArray[Any]) -> list[T]:
    if len(frames) < 2 or frames[0].nbytes < _WORTH_THREADS:
        return [work(frame) for frame in frames]
    # Hashing lets go of the GIL. Threads that last would be missing in a process that was forked.
    with ThreadPoolExecutor(min(len(frames), os.cpu_count() or 1)) as threads:
        return list(threads.map(work, frames))


def _samples(frame: Frame) -> npt.NDArray[Any]:
    if frame.dtype not in _SAMPLE_TYPES or frame.ndim != 3 or not frame.flags.c_contiguous:
        raise ValueError(
            f"stamp: a frame must be contiguous (3, height, width) of uint8 or uint16, "
            f"got {frame.dtype} of shape {frame.shape}"
        )
    return frame.reshape(-1)


def _lowest_bits(samples: npt.NDArray[Any]) -> bytes:
    return np.packbits((samples & 1).astype(np.uint8)).tobytes()


def _all_but_lowest(frame: Frame) -> np.integer[Any]:
    mask: np.integer[Any] = frame.dtype.type(np.iinfo(frame.dtype).max - 1)
    return mask


@functools.lru_cache(maxsize=16)
def _places(samples: int, version: int) -> npt.NDArray[np.int64] | None:
    """Where the bits are: one place in each of as many equal stretches of the samples.

    PCG64's raw numbers are the same in every version of NumPy.
    """
    bits = _BITS[version]
    if samples < bits:
        return None
    edges = np.arange(bits + 1, dtype=np.int64) * samples // bits
    random = np.random.PCG64(samples).random_raw(bits)
    within = random % np.diff(edges).astype(np.uint64)
    places: npt.NDArray[np.int64] = edges[:-1] + within.astype(np.int64)
    places.flags.writeable = False
    return places


def _hash(frame: Frame, places: npt.NDArray[np.int64], payload: bytes, version: int) -> bytes:
    """Of the payload and the frame, the stamp's own bits, which are at ``places``, cleared."""
    if version >= 3:
        return _keyed(payload + _digest(frame, places), _HASH_BYTES)
    state = hashlib.blake2b(payload, digest_size=_HASH_BYTES, key=_KEY)
    _add(state, frame, places)
    return state.digest()


def _digest(frame: Frame, places: npt.NDArray[np.int64] | None = None) -> bytes:
    """Of a frame alone, so that the group's hash and its own need it once."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    _add(state, frame, places)
    return state.digest()


def _add(state: hashlib.blake2b, frame: Frame, places: npt.NDArray[np.int64] | None = None) -> None:
    """Hash a frame's shape and its samples, the lowest bits of those at ``places`` cleared."""
    state.update(struct.pack(">II", *frame.shape[1:]))
    # Of one order of bytes wherever it is computed. Samples of another depth hash differently.
    order = frame.dtype.newbyteorder("<")
    if places is None:
        state.update(frame.astype(order, copy=False).data)
        return
    samples = frame.reshape(-1)
    for begin in range(0, samples.size, _AT_ONCE):
        part = samples[begin : begin + _AT_ONCE].astype(order)
        first, end = np.searchsorted(places, (begin, begin + part.size))
        part[places[first:end] - begin] &= _all_but_lowest(frame)
        state.update(part.data)


def _keyed(message: bytes, size: int) -> bytes:
    return hashlib.blake2b(message, digest_size=size, key=_KEY).digest()
