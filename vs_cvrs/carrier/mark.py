"""A mark in low-rate frames that survives ordinary encoders: what restores the clip.

`Message` is the same in all frames of a clip; beside it, every frame carries its number in the clip
modulo a little less than 1024 (`Message.period`), which tells its group, and its place in it.

How it is carried: a frame is divided into cells (16 pixels wide at 1920x1080, 9 at 448x256, 6 at
176x144). The difference of luma between two cells side by side, averaged over pairs all over the
frame with random signs, is a projection; a projection carries a coded bit by being moved to the
nearest point of one of two lattices (spread-transform dither modulation: Chen and Wornell, IEEE
Trans. Inf. Theory 47, 2001). What the picture itself contributes does not disturb it, as it would a
pattern that is only added. Where a picture is flat, projections are moved a part of the way. Each
frame has 264 projections for the message, in a convolutional code (`trellis`), and 64 for its
number. What many frames say of the message is added up before it is decoded.

The reader takes from each frame a vector of a few hundred numbers (`read`), and from the vectors of
several frames the message (`find`) and the frames' numbers (`follow`). It knows of colours that
were taken for others on the way (BT.601 for BT.709, limited range for full), and tries them all.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from vs_cvrs.carrier import trellis
from vs_cvrs.carrier.levels import white_of
from vs_cvrs.timeline import MAX_GROUP_LENGTH

__all__ = [
    "COLOURS",
    "HASH_BITS",
    "MIN_AREA",
    "MIN_SIDE",
    "SEARCHED",
    "Evidence",
    "Found",
    "Message",
    "Place",
    "find",
    "fits",
    "follow",
    "guess",
    "index_near",
    "match",
    "model_id",
    "read",
    "write",
]

MARK_VERSION = 1

MIN_AREA = 160 * 90
"""Pixels that a frame needs to carry a mark."""
MIN_SIDE = 64
"""Width and height that a frame needs to carry a mark."""

_LUMA = np.array([0.2126, 0.7152, 0.0722])

_MODEL_BITS = 10
_FIELDS = (2, _MODEL_BITS, 5, 5, 2, 8, 2, 2, 20)
"""Bits of: version, model, ratio (numerator, denominator, times 1001/1000), group length, excess of
width and height, length. The first six say how to restore a group, whatever clip it is of."""
_PULLDOWN = (Fraction(1), Fraction(1001, 1000), Fraction(1000, 1001))
_PAYLOAD_BYTES = sum(_FIELDS) // 8
HASH_BITS = 24
"""Bits of the hash that a message ends with."""
_KEY = b"vs-cvrs mark"

_NUMBERS = 1024
_MESSAGE_DIMENSIONS = trellis.coded_length(8 * _PAYLOAD_BYTES + HASH_BITS)
_NUMBER_DIMENSIONS = 64
# Coded bits depend on those before them alone, and behind them all come some that are known.
_GROUPING_DIMENSIONS = trellis.coded_length(sum(_FIELDS[:6])) - trellis.coded_length(0)
_DIMENSIONS = _MESSAGE_DIMENSIONS + _NUMBER_DIMENSIONS

_CELL = 9.0
"""Pixels that a cell is wide, where a frame has fewer than `_MAX_PAIRS` for each projection."""
_MAX_PAIRS = 12

_INERTIA = 0.3
"""How much of its last displacement a projection keeps: less flicker where nothing moves."""
_ROUNDS = 4

_MESSAGE_CERTAINTY, _NUMBER_CERTAINTY = 0.4, 0.8
"""Concentrations of the von Mises distributions of phases that `follow` reckons with."""
_REPEATED, _DROPPED, _JUMP, _ABSENT = 30.0, 30.0, 40.0, 30.0
"""What it costs, in nats, to take a frame for the one before again, for the one after the next, for
any other, and for one without a mark."""

SEARCHED = 32
"""Frames at the start of a clip that are looked at for marks."""

COLOURS = 9
"""Ideas that the reader has of the frames' colours."""

_FOREIGN = (0.582, 0.012)
"""Mean and standard deviation of `Found.likeness` on clips without a mark."""
_ENOUGH = 56.0
"""Bits of surprise from which on a mark is believed."""
_WINDOWS = (8, 32, 128)

_SURE, _DOUBTED = 35.0, -10.0
"""Nats by which a group must be likelier marked than not to be taken for it: where nobody says that
its clip is, and where somebody does. Of 32 groups of four films each, 448x256, the marked ones had
19 to 165 at CRF 18 to 28 (x264), -19 to 53 at CRF 32, those without a mark -79 to -18. Frames of a
picture that stands still say the same four times over: 35 is one in 10^9 of them by chance."""

_OTHER = 15.0
"""Nats by which frames must rather be another model's to be taken for that."""

Frames = npt.NDArray[Any]
"""(count, 3, height, width), planar RGB: uint8, or uint16 for 10 bits."""

Evidence = npt.NDArray[np.float32]
"""(3, projections): what a frame's red, green and blue planes say, in steps of the lattices."""


@dataclass(frozen=True)
class Message:
    """What is the same in all low-rate frames of a clip.

    Attributes:
        ratio: high rate over low rate: n/d, times 1, 1001/1000 or 1000/1001, n and d up to 32.
        group_length: low-rate frames in a whole group, 1 to 256.
        model: some bits of the model's checksum (`model_id`).
        length: frames of the high-rate clip, None where it is not known, or more than 2^20 - 1.
        excess: columns and rows, 0 to 3, that low-rate frames have more than the high-rate ones.
    """

    ratio: Fraction
    group_length: int
    model: int
    length: int | None = None
    excess: tuple[int, int] = (0, 0)

    @property
    def period(self) -> int:
        """Frames are numbered modulo this; a multiple of the group length."""
        return _NUMBERS // self.group_length * self.group_length

    def pack(self) -> bytes:
        """The payload. Raises ValueError for values beyond its fields."""
        length = self.length if self.length is not None else 0
        if length >= 1 << _FIELDS[-1]:
            length = 0
        for pulldown, factor in enumerate(_PULLDOWN):
            plain = self.ratio / factor
            values = (
                *(MARK_VERSION, self.model, plain.numerator - 1, plain.denominator - 1, pulldown),
                *(self.group_length - 1, *self.excess, length),
            )
            if self.ratio >= 1 and all(
                0 <= value < 1 << bits for value, bits in zip(values, _FIELDS, strict=True)
            ):
                break
        else:
            raise ValueError(f"mark: a value does not fit: {self}")
        packed = 0
        for value, bits in zip(values, _FIELDS, strict=True):
            packed = packed << bits | value
        return packed.to_bytes(_PAYLOAD_BYTES)

    @classmethod
    def unpack(cls, payload: bytes) -> Message | None:
        """None for a payload that no version can have made."""
        packed = int.from_bytes(payload)
        values = []
        for bits in reversed(_FIELDS):
            values.append(packed & ((1 << bits) - 1))
            packed >>= bits
        length, excess_height, excess_width, group, pulldown, den, num, model, version = values
        if version != MARK_VERSION or pulldown >= len(_PULLDOWN):
            return None
        ratio = Fraction(num + 1, den + 1) * _PULLDOWN[pulldown]
        if ratio < 1 or math.gcd(num + 1, den + 1) != 1:
            return None
        return cls(ratio, group + 1, model, length or None, (excess_width, excess_height))


assert 1 << _FIELDS[5] == MAX_GROUP_LENGTH


def model_id(checksum: str) -> int:
    """What a message says of a model: the first bits of its checksum (hexadecimal digits)."""
    return int(checksum[:4], 16) >> (16 - _MODEL_BITS)


@dataclass(frozen=True)
class Found:
    """A message that frames carry.

    Attributes:
        message: it.
        colours: which of the reader's ideas of the frames' colours fits: 0 where they are as sent.
        likeness: correlation, 0 to 1, of what the frames say with the coded message: about 0.6 for
            frames that carry none, since a decoder finds the most likely message in anything.
        surprise: minus the binary logarithm of the probability that frames without a mark say this.
    """

    message: Message
    colours: int
    likeness: float
    surprise: float


@dataclass(frozen=True)
class Place:
    """Where a frame comes from.

    Attributes:
        message: of its clip.
        number: the frame's number in the low-rate clip that was sent, modulo `Message.period`.
    """

    message: Message
    number: int

    @property
    def in_group(self) -> int:
        """Its place in its group, from 0."""
        return self.number % self.message.group_length


def index_near(place: Place, expected: int) -> int:
    """The frame's number in the low-rate clip, of all that it may be the nearest to an expected."""
    period = place.message.period
    nearest = expected + (place.number - expected + period // 2) % period - period // 2
    return nearest if nearest >= 0 else place.number


def fits(width: int, height: int) -> bool:
    """Whether frames of this size can carry a mark."""
    return width * height >= MIN_AREA and min(width, height) >= MIN_SIDE


@dataclass(frozen=True)
class _Layout:
    """Where the mark is in frames of a size.

    Attributes:
        grid: rows and columns of cells.
        pairs: (projections, pairs in each), numbers of pairs of cells, from left to right.
        signs: likewise, +1 and -1.
        step: distance of two points of a lattice, in levels of 8 bits.
        flat: how much of a change to a lattice is made where a picture is flat.
    """

    grid: tuple[int, int]
    pairs: Tensor
    signs: Tensor
    step: float
    flat: float

    def project(self, cells: Tensor) -> Tensor:
        """(..., rows, columns) in levels to (..., projections)."""
        apart = (cells[..., 0::2] - cells[..., 1::2]).flatten(-2) / 2
        return (apart[..., self.pairs] * self.signs).mean(-1)

    def spread(self, moves: Tensor) -> Tensor:
        """What each cell changes, (..., rows, columns), by moves of (..., projections, pairs)."""
        rows, columns = self.grid
        apart = moves.new_zeros(*moves.shape[:-2], rows * columns // 2)
        apart[..., self.pairs.flatten()] = (moves * self.signs).flatten(-2)
        cells = torch.stack((apart, -apart), dim=-1)
        return cells.reshape(*moves.shape[:-2], rows, columns)


def _random(stream: int, count: int) -> npt.NDArray[np.uint64]:
    """PCG64's raw numbers are the same in every version of NumPy."""
    return np.random.PCG64(stream).random_raw(count)


@functools.lru_cache(maxsize=16)
def _layout(width: int, height: int) -> _Layout:
    area = width * height
    pairs = min(max(round(area / (2 * _DIMENSIONS * _CELL**2)), 1), _MAX_PAIRS)
    # A little more than are needed, so that rounding to whole rows and columns leaves enough.
    cell = math.sqrt(area / (2 * _DIMENSIONS * pairs * 1.04))
    rows, columns = math.ceil(height / cell), 2 * math.ceil(width / cell / 2)
    chosen = np.argsort(_random(1, rows * columns // 2), kind="stable")[: pairs * _DIMENSIONS]
    signs = 1.0 - 2.0 * (_random(2, pairs * _DIMENSIONS) & 1).astype(np.float32)
    # Chosen so that the mark is about as far below the noise of an encoder at all sizes.
    step = 3.46 * min(max((640 * 272 / area) ** (1 / 4), 0.5), 1.4)
    shape = (_DIMENSIONS, pairs)
    return _Layout(
        (rows, columns),
        torch.from_numpy(chosen.reshape(shape)),
        torch.from_numpy(signs.reshape(shape)),
        step,
        min(max(0.4 * (640 * 360 / area) ** (1 / 4), 0.4), 0.8),
    )


@functools.cache
def _dither() -> npt.NDArray[np.float32]:
    """Where each projection's lattice begins, in steps."""
    return (_random(3, _DIMENSIONS) / 2.0**64).astype(np.float32)


@functools.cache
def _number_code() -> npt.NDArray[np.float32]:
    """(numbers, dimensions): signs that stand for a number; a random linear code, distance 22."""
    bits = _NUMBERS.bit_length() - 1
    generators = _random(56, bits)
    words = np.zeros(_NUMBERS, np.uint64)
    for bit in range(bits):
        words ^= np.where(np.arange(_NUMBERS) >> bit & 1, generators[bit], np.uint64(0))
    coded = words[:, None] >> np.arange(_NUMBER_DIMENSIONS, dtype=np.uint64) & np.uint64(1)
    return 1.0 - 2.0 * coded.astype(np.float32)


@functools.lru_cache(maxsize=16)
def _message_signs(message: Message) -> npt.NDArray[np.float32]:
    payload = message.pack()
    data = np.frombuffer(payload + _hash(payload), np.uint8)
    return trellis.encode(np.unpackbits(data))


def _hash(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=HASH_BITS // 8, key=_KEY).digest()


@functools.cache
def _model_code() -> npt.NDArray[np.float32]:
    """(models, dimensions): signs by which messages differ whose models differ by these bits.

    Of the dimensions that say how to restore a group. The code is linear.
    """
    message = Message(Fraction(1), 1, 0)
    signs = _message_signs(message)[:_GROUPING_DIMENSIONS]
    code = np.ones((1, len(signs)), np.float32)
    for bit in range(_MODEL_BITS):
        other = _message_signs(replace(message, model=1 << bit))[:_GROUPING_DIMENSIONS]
        code = np.concatenate((code, code * signs * other))
    return code


@functools.lru_cache(maxsize=4)
def _threshold(width: int, height: int) -> Tensor:
    """Noise in 0..1, by which a change of less than a level is rounded; the same in all frames."""
    words = _random(5, (width * height + 3) // 4).view(np.uint16)[: width * height]
    return torch.from_numpy(words.astype(np.float32) / 65536).reshape(height, width)


def write(frames: Frames, message: Message, first: int) -> None:
    """Mark the frames of a group, in place.

    Args:
        frames: low-rate frames that follow one another.
        message: what to say.
        first: number of the first one in the low-rate clip.

    Raises:
        ValueError: the frames are too small (`fits`), are not of the form that `Frames` says, or a
            value of the message is too large for its field.
    """
    _check(frames)
    if not frames.flags.writeable:
        raise ValueError("mark: frames must be writable to be marked in place")
    height, width = frames.shape[2:]
    layout = _layout(width, height)
    white = white_of(frames)
    levels = torch.from_numpy(frames)
    luma = torch.from_numpy(_LUMA.astype(np.float32)) * (255 / white)
    cells, room = [], []
    for frame in levels:
        pooled, busy = _cells(frame, layout)
        cells.append(torch.einsum("c,cij->ij", luma, pooled))
        room.append(_room(cells[-1], busy * (255 / white), layout))
    changes = _changes(torch.stack(cells), torch.stack(room), layout, message, first)
    threshold = _threshold(width, height)
    for frame, change in zip(levels, changes, strict=True):
        smooth = functional.interpolate(
            change[None, None] * (white / 255), size=(height, width), mode="bilinear"
        )[0, 0]
        moved = smooth.add_(threshold).floor_().to(torch.int16)
        frame.copy_(frame.to(torch.int16).add_(moved).clamp_(0, int(white)))


def _check(frames: Frames) -> None:
    if frames.dtype not in (np.uint8, np.uint16) or frames.ndim != 4 or frames.shape[1] != 3:
        raise ValueError(
            f"mark: frames must be (count, 3, height, width) of uint8 or uint16, "
            f"got {frames.dtype} of shape {frames.shape}"
        )
    height, width = frames.shape[2:]
    if not fits(width, height):
        raise ValueError(
            f"mark: a frame needs {MIN_AREA} pixels and sides of {MIN_SIDE}, got {width}x{height}"
        )


def _cells(frame: Tensor, layout: _Layout) -> tuple[Tensor, Tensor]:
    """Means of each plane, (3, rows, columns), and deviations of green, in the frame's levels."""
    planes = frame.to(torch.float32)[:, None]
    means = functional.adaptive_avg_pool2d(planes, layout.grid)[:, 0]
    squares = functional.adaptive_avg_pool2d(planes[1].square(), layout.grid)[0]
    return means, (squares - means[1].square()).clamp_(min=0).sqrt_()


def _room(cells: Tensor, busy: Tensor, layout: _Layout) -> Tensor:
    """How much of a change each pair of cells can hide: more where it is busy, in both cells."""
    hidden = (layout.flat + 0.25 * busy).clamp_(max=3.0)
    # Black and white can be moved to one side only.
    space = (torch.minimum(cells, 255.0 - cells) / 4.0).clamp_(0.05, 1.0)
    room = hidden * space
    return torch.minimum(room[:, 0::2], room[:, 1::2]).flatten()


def _changes(cells: Tensor, room: Tensor, layout: _Layout, message: Message, first: int) -> Tensor:
    """What each cell must change, (count, rows, columns), in levels of 8 bits."""
    count = len(cells)
    numbers = (first + np.arange(count)) % message.period
    said = np.broadcast_to(_message_signs(message), (count, _MESSAGE_DIMENSIONS))
    signs = np.concatenate((said, _number_code()[numbers]), axis=1)
    lattices = torch.from_numpy(_dither() + (1.0 - signs) / 4.0) * layout.step
    found = layout.project(cells)
    wanted = torch.empty_like(found)
    last = torch.zeros_like(found[0])
    for n in range(count):
        near = found[n] + _INERTIA * last - lattices[n]
        wanted[n] = torch.round(near / layout.step) * layout.step + lattices[n]
        last = wanted[n] - found[n]
    share = room[:, layout.pairs]
    mean = share.mean(-1, keepdim=True)
    share = share / mean
    wanted = found + (wanted - found) * mean[..., 0].clamp(max=1.0)
    changes = torch.zeros_like(cells)
    for _ in range(_ROUNDS):
        missing = wanted - found - layout.project(_smoothed(changes))
        changes += layout.spread(missing[..., None] * share)
    return changes


def _smoothed(cells: Tensor) -> Tensor:
    """Means of cells after they were enlarged with bilinear interpolation."""
    weights = torch.tensor([0.125, 0.75, 0.125])
    padded = functional.pad(cells[:, None], (1, 1, 1, 1), mode="replicate")
    kernel = torch.outer(weights, weights)[None, None]
    return functional.conv2d(padded, kernel)[:, 0]


def read(frame: Frames, size: tuple[int, int] | None = None) -> Evidence:
    """What a frame says, if it is marked.

    Args:
        frame: (3, height, width), planar RGB: uint8, or uint16 for 10 bits.
        size: width and height that it had when it was marked, if others than now.

    Raises:
        ValueError: the frame is too small (`fits`), or is not of the form described.
    """
    _check(frame[None])
    height, width = frame.shape[1:]
    layout = _layout(*(size or (width, height)))
    # NumPy converts: PyTorch warns of arrays that cannot be written to.
    planes = torch.from_numpy(frame.astype(np.float32))[:, None]
    cells = functional.adaptive_avg_pool2d(planes, layout.grid)[:, 0]
    scale = 255 / white_of(frame) / layout.step
    made: Evidence = (layout.project(cells) * scale).numpy()
    return made


def _rgb_to_yuv(red: float, blue: float) -> npt.NDArray[np.float64]:
    """Y, and Cb and Cr in -0.5..0.5, of RGB, from the weights of red and blue in Y."""
    luma = np.array([red, 1 - red - blue, blue])
    return np.stack(
        (
            luma,
            (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)),
            (np.array([1, 0, 0]) - luma) / (2 * (1 - red)),
        )
    )


@functools.cache
def _colours() -> tuple[npt.NDArray[np.float32], ...]:
    """Weights of red, green and blue in the luma that was marked, for all that may have happened.

    As sent first. Then: BT.709 read as BT.601, the other way round; each in limited range read as
    full, and the other way round.
    """
    bt709, bt601 = _rgb_to_yuv(0.2126, 0.0722), _rgb_to_yuv(0.299, 0.114)
    mixed = (
        np.eye(3),
        np.linalg.inv(bt709) @ bt601,
        np.linalg.inv(bt601) @ bt709,
    )
    ranges = (1.0, 255 / 219, 219 / 255)
    return tuple(
        ((_LUMA @ matrix) * scale).astype(np.float32)
        for scale, matrix in itertools.product(ranges, mixed)
    )


def _phases(evidence: Sequence[Evidence], colours: int, first: int = 0) -> npt.NDArray[np.float32]:
    """(frames, projections): +1 on the lattice of a bit that is 0, -1 on the other one.

    The evidence may be of a part of the projections, from number ``first`` on.
    """
    projections = np.einsum("c,fcp->fp", _colours()[colours], np.stack(evidence))
    dither = _dither()[first : first + projections.shape[1]]
    phases: npt.NDArray[np.float32] = np.cos(np.float32(2 * np.pi) * (projections - dither))
    return phases


def find(evidence: Sequence[Evidence]) -> Found | None:
    """The message of frames that follow one another, None where there is none to be believed.

    Args:
        evidence: of the frames, one after the other; a group's are enough where the encoder was
            not too hard, more are better.
    """
    for colours in range(COLOURS):
        message, likeness, surprise = guess(evidence, colours)
        if message is not None and surprise >= _ENOUGH:
            return Found(message, colours, likeness, surprise)
    return None


def guess(evidence: Sequence[Evidence], colours: int = 0) -> tuple[Message | None, float, float]:
    """The most likely message of any frames (None where its hash or a value is wrong).

    Beside it its `Found.likeness` and, if the hash is right, `Found.surprise`.
    """
    phases = _phases(evidence, colours)
    said = _together(phases[:, :_MESSAGE_DIMENSIONS])
    bits = trellis.decode(said)
    data = np.packbits(bits).tobytes()
    payload, stated = data[:_PAYLOAD_BYTES], data[_PAYLOAD_BYTES:]
    message = Message.unpack(payload) if _hash(payload) == stated else None
    likeness = _likeness(said, trellis.encode(bits))
    period = _NUMBERS if message is None else message.period
    surprise = (
        HASH_BITS
        + _rarity((likeness - _FOREIGN[0]) / _FOREIGN[1])
        + max(0.0, _rarity(_numbering(phases, period)) - math.log2(period))
    )
    return message, likeness, surprise


def _together(phases: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What frames say together, those that agree with the others more than those that do not.

    The weights are the first eigenvector of what they have in common, two by two: encoders leave
    much of the mark in some frames and little in others.
    """
    alike = phases @ phases.T / phases.shape[1]
    np.fill_diagonal(alike, 0.0)
    weights = np.abs(np.linalg.eigh(alike)[1][:, -1]) + 0.1 / math.sqrt(len(phases))
    made: npt.NDArray[np.float32] = (weights @ phases).astype(np.float32)
    return made


def _likeness(said: npt.NDArray[np.float32], signs: npt.NDArray[np.float32]) -> float:
    length = float(np.linalg.norm(said)) * math.sqrt(len(signs))
    return float(said @ signs) / max(length, 1e-9)


def _numbering(phases: npt.NDArray[np.float32], period: int) -> float:
    """How well the best of all ways fits to number frames one after the other, in deviations."""
    scores = phases[:, _MESSAGE_DIMENSIONS:] @ _number_code()[:period].T
    run = sum(np.roll(row, -n) for n, row in enumerate(scores))
    return float(np.max(run)) / math.sqrt(len(scores) * _NUMBER_DIMENSIONS / 2)


def _rarity(deviations: float) -> float:
    """Bits of surprise at a normal variable that is as large."""
    return -math.log2(max(math.erfc(deviations / math.sqrt(2)) / 2, 1e-300))


def follow(evidence: Sequence[Evidence], known: Sequence[Found] = ()) -> list[Place | None]:
    """Where each frame of a clip comes from; None for frames that carry no mark.

    Frames may be missing, there twice, in another order, or of several clips. What frames say of
    their numbers is taken together: a frame that says too little is numbered by its neighbours.

    Args:
        evidence: of the clip's frames, or some of them that follow one another.
        known: what `find` found; without it all messages are looked for.
    """
    clips = known or _clips(evidence)
    if not clips:
        return [None] * len(evidence)
    floor = _MESSAGE_DIMENSIONS * math.log(float(np.i0(_MESSAGE_CERTAINTY)))
    likelihoods = []
    for found in clips:
        phases = _phases(evidence, found.colours)
        message, number = np.split(phases, [_MESSAGE_DIMENSIONS], axis=1)
        codes = _number_code()[: found.message.period]
        marked = _MESSAGE_CERTAINTY * (message @ _message_signs(found.message)) - floor
        likelihoods.append(marked[:, None] + _NUMBER_CERTAINTY * (number @ codes.T))
    return _most_likely(likelihoods, [found.message for found in clips])


def match(
    evidence: Sequence[Evidence], message: Message, first: int, marked: bool = False
) -> list[Place | None]:
    """Where the frames of a group come from, if they are marked as is expected.

    Only the parts of the message that say how to restore a group are looked at, so that neither
    length nor excess need be known, and frames of several clips of one kind are all found. What is
    found depends on these frames alone.

    Args:
        evidence: of frames that follow one another, about as many as a group has.
        message: what they say, as far as that is known.
        first: the number that the first of them has where nothing was cut.
        marked: the clip is known to be marked; frames that say little are taken for expected ones.
    """
    signs = _message_signs(replace(message, length=None))[:_GROUPING_DIMENSIONS]
    begins = [frame[:, :_GROUPING_DIMENSIONS] for frame in evidence]
    agreeing = np.stack([_phases(begins, colours) * signs for colours in range(COLOURS)])
    said = agreeing.sum(axis=2)
    colours = int(said.sum(axis=1).argmax())
    models = _model_code() @ agreeing[colours].sum(axis=0)
    if _MESSAGE_CERTAINTY * float(models.max() - models[0]) > _OTHER:
        return [None] * len(evidence)
    numbers = [frame[:, _MESSAGE_DIMENSIONS:] for frame in evidence]
    codes = _number_code()[: message.period]
    number = _phases(numbers, colours, _MESSAGE_DIMENSIONS) @ codes.T
    likelihood = _MESSAGE_CERTAINTY * said[colours][:, None] + _NUMBER_CERTAINTY * number
    likelihood -= _GROUPING_DIMENSIONS * math.log(float(np.i0(_MESSAGE_CERTAINTY)))
    likelihood -= _NUMBER_DIMENSIONS * math.log(float(np.i0(_NUMBER_CERTAINTY)))
    every = np.arange(len(evidence))
    expected = (first + every) % message.period
    as_expected = float(likelihood[every, expected].sum())
    at_most = float(likelihood.max(axis=1).clip(min=0.0).sum())
    absent = _DOUBTED if marked else 0.0
    # What else they may be costs at least this, and need not be looked at where that is too much.
    if as_expected >= max(absent, at_most - min(_REPEATED, _DROPPED, _ABSENT)):
        places: list[Place | None] = [Place(message, int(number)) for number in expected]
    else:
        begin = np.full(message.period + 1, -_JUMP)
        begin[expected[0]], begin[-1] = 0.0, absent
        places = _most_likely([likelihood], [message], begin)
    found = [(n, place.number) for n, place in enumerate(places) if place is not None]
    if not marked and sum(float(likelihood[n, number]) for n, number in found) < _SURE:
        return [None] * len(evidence)
    return places


def _clips(evidence: Sequence[Evidence]) -> list[Found]:
    """The different messages in a clip."""
    clips: list[Found] = []
    for size in _WINDOWS:
        for begin in range(0, max(1, len(evidence) - size // 2), size // 2):
            window = evidence[begin : begin + size]
            if any(_says(window, found) for found in clips):
                continue
            found = find(window)
            if found is not None and all(
                (found.message, found.colours) != (c.message, c.colours) for c in clips
            ):
                clips.append(found)
    return clips


def _says(evidence: Sequence[Evidence], found: Found) -> bool:
    """Whether frames carry a message that is known."""
    said = _together(_phases(evidence, found.colours)[:, :_MESSAGE_DIMENSIONS])
    return _likeness(said, _message_signs(found.message)) > _FOREIGN[0]


def _most_likely(
    likelihoods: Sequence[npt.NDArray[np.float32]],
    messages: Sequence[Message],
    begin: npt.NDArray[np.float64] | None = None,
) -> list[Place | None]:
    """The most likely places of frames in a row (Viterbi).

    Args:
        likelihoods: for each message, (frames, numbers): logarithms against no mark.
        messages: they.
        begin: how likely the first frame is of each number, and of none; None: all are as likely.
    """
    count = len(likelihoods[0])
    bounds = np.cumsum([0, *(message.period for message in messages)])
    absent = int(bounds[-1])
    steps = []
    for distance in (1, 0, 2):
        from_ = [
            begin + (np.arange(end - begin) - distance) % (end - begin)
            for begin, end in itertools.pairwise(bounds)
        ]
        steps.append(np.concatenate(from_))
    costs = (0.0, _REPEATED, _DROPPED)
    seen = np.concatenate(likelihoods, axis=1)
    score = np.append(seen[0], 0.0)
    if begin is not None:
        score += begin
    came = np.zeros((count, absent + 1), np.int32)
    for n in range(1, count):
        best = int(score[:absent].argmax())
        made = np.full(absent, score[best] - _JUMP)
        origin = np.full(absent, best)
        for step, cost in zip(steps, costs, strict=True):
            other = score[step] - cost
            better = other > made
            made[better], origin[better] = other[better], step[better]
        entered = score[absent] - _ABSENT > made
        made[entered], origin[entered] = score[absent] - _ABSENT, absent
        gone = score[best] - _ABSENT > score[absent]
        came[n, :absent], came[n, absent] = origin, best if gone else absent
        left = max(score[best] - _ABSENT, score[absent])
        score = np.append(made + seen[n], left)
    state = int(score.argmax())
    places: list[Place | None] = []
    for n in reversed(range(count)):
        if state == absent:
            places.append(None)
        else:
            clip = int(np.searchsorted(bounds, state, side="right")) - 1
            places.append(Place(messages[clip], int(state - bounds[clip])))
        state = int(came[n, state])
    return places[::-1]
