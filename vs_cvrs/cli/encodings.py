"""How low-rate and restored frames are encoded: what the options ask for, as ffmpeg is told it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import vapoursynth as vs

from vs_cvrs.carrier.lossless import CODECS, DEPTHS, Carrier, keyframe_interval
from vs_cvrs.carrier.lossy import LossyCarrier
from vs_cvrs.cli.colours import BT709, RGB, Colours
from vs_cvrs.cli.options import parse_preset
from vs_cvrs.cli.running import CliError
from vs_cvrs.cli.segments import Encoding

__all__ = [
    "carried_as",
    "check_container",
    "choose_carrier",
    "choose_lossy",
    "encode_low_rate",
    "encode_restored",
    "segment_length",
]

_AUTO = "auto"
_MAX_SHAPE = 10_000  # terms of a pixel's shape; setsar's own limit turns 128:117 into 93:85
_KEYFRAMES = 250  # of encoders with loss, at most
_CRF_ENCODERS = {"x264": "libx264", "x265": "libx265"}
_CRF = 16.0  # of restored files


def choose_carrier(codec: str, colours: str, bits: str, source_bits: int) -> Carrier:
    """The carrier that ``encode`` is asked for.

    Args:
        codec: x264, x265, ffv1, or auto: x264 for 8 bits, FFV1 for 10.
        colours: rgb or yuv.
        bits: 8, 10, or auto: those of the source, where the encoder has them.
        source_bits: of the source's samples.

    Raises:
        CliError: there is no such carrier.
    """
    least, most = DEPTHS
    if bits not in (_AUTO, *map(str, DEPTHS)):
        raise CliError(f"--bits must be {_AUTO}, {least} or {most}, got {bits!r}")
    wanted = most if source_bits > least else least
    if bits != _AUTO:
        wanted = int(bits)
    if codec == _AUTO:
        codec = CODECS[0] if wanted == least else "ffv1"
    try:
        return Carrier(codec, colours, wanted)
    except ValueError as error:
        if bits == _AUTO:
            return Carrier(codec, colours, least)
        raise CliError(str(error)) from error


def choose_lossy(codec: str, crf: float | None) -> LossyCarrier:
    """The encoder with loss that ``encode --robust`` is asked for; auto: x264.

    Raises:
        CliError: there is no such encoder, or it has no such constant rate factor.
    """
    try:
        return LossyCarrier(CODECS[0] if codec == _AUTO else codec, crf)
    except ValueError as error:
        raise CliError(str(error)) from error


def carried_as(carrier: Carrier | LossyCarrier) -> tuple[int, int]:
    """The format (VapourSynth's number) and the matrix of the frames that the encoder is given."""
    as_rgb = isinstance(carrier, Carrier) and carrier.colours == "rgb"
    return int(getattr(vs, carrier.clip_format)), RGB if as_rgb else BT709


def encode_low_rate(
    carrier: Carrier | LossyCarrier,
    group_length: int,
    preset: str | None,
    colours: Colours,
    shape: Fraction,
    output: Path,
) -> Encoding:
    """How a carrier's frames are encoded."""
    lossless = isinstance(carrier, Carrier)
    words = carrier.options(keyframe_interval(group_length) if lossless else _KEYFRAMES, preset)
    return Encoding(
        [*words, *_pixel_shape(shape)],
        colours.words(carried_as(carrier)[1]),
        _container(carrier.codec),
        _tag(carrier.codec, output),
        tuple(colours.input_words()),
    )


def segment_length(wanted: int, group_length: int) -> int:
    """Frames of a segment: whole groups, and where it can be, whole stretches between keyframes.

    Every segment begins with a keyframe: those of the file are at the same places however it is cut
    into segments, as far as segments are that long.
    """
    keyframes = keyframe_interval(group_length)
    unit = keyframes if wanted >= keyframes else group_length
    return -(-wanted // unit) * unit


def check_container(codec: str, output: Path) -> None:
    """Raise CliError for a file that restored frames of this codec do not go into."""
    if codec == "ffv1" and output.suffix.lower() != ".mkv":
        raise CliError(f"ffv1 goes into .mkv files only, got {output.name}")


def encode_restored(
    codec: str,
    crf: float | None,
    lossless: bool,
    preset: str | None,
    bits: int,
    size: tuple[int, int],
    colours: Colours,
    shape: Fraction,
    output: Path,
) -> tuple[Encoding, int]:
    """How restored frames are encoded, and their format (VapourSynth's number).

    Args:
        codec: x264, x265, ffv1, or auto: x264 for 8 bits, x265 for 10.
        crf: quality of x264 and x265; None: 16.
        lossless: every colour exactly.
        preset: of x264 and x265.
        bits: of the low-rate frames: the restored ones get as many.
        size: width and height.
        colours: of the video that was sent.
        shape: of a pixel.
        output: the file to write.

    Raises:
        CliError: there is no such encoding.
    """
    wanted = codec
    if codec == _AUTO:
        codec = "x264" if bits == DEPTHS[0] else "ffv1" if lossless else "x265"
    check_container(codec, output)
    preset = parse_preset(preset, wanted, codec)
    parameters = colours.parameters(codec)
    if lossless or codec == "ffv1":
        try:
            carrier = Carrier(codec, "yuv", bits)
        except ValueError as error:
            raise CliError(str(error)) from error
        words = carrier.options(_KEYFRAMES, preset, parameters)
        form = getattr(vs, carrier.clip_format)
    else:
        crf = _CRF if crf is None else crf
        words = ["-c:v", _CRF_ENCODERS[codec], "-crf", f"{crf:g}", "-preset", preset or "medium"]
        if codec == "x265":
            parameters = ["log-level=error", *parameters]
        if parameters:
            words += [f"-{codec}-params", ":".join(parameters)]
        even = all(n % 2 == 0 for n in size)
        sampling, depth = ("420" if even else "444"), ("" if bits == DEPTHS[0] else f"{bits}le")
        form = getattr(vs, f"YUV{sampling}P{bits}")
        words += ["-pix_fmt", f"yuv{sampling}p{depth}"]
    encoding = Encoding(
        [*words, *_pixel_shape(shape)],
        colours.words(colours.restored_matrix),
        _container(codec),
        _tag(codec, output),
        tuple(colours.input_words()),
    )
    return encoding, int(form)


def _container(codec: str) -> str:
    # NUT does not keep the colour description of a codec that has none itself, and has no AV1.
    return "mkv" if codec in ("ffv1", "av1") else "nut"


def _tag(codec: str, output: Path) -> str:
    # Apple's players want this name; NUT, which the segments are in, does not know it.
    return "hvc1" if codec == "x265" and output.suffix.lower() != ".mkv" else ""


def _pixel_shape(shape: Fraction) -> list[str]:
    shape = shape.limit_denominator(_MAX_SHAPE)
    return ["-vf", f"setsar={shape.numerator}/{shape.denominator}:max={_MAX_SHAPE}"]
