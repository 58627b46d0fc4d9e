"""Whatever a script asks for: frames, or one clear sentence."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs
from clips import array_of, clip_of, core, pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vs_cvrs.carrier import stamp
from vs_cvrs.carrier.stamp import Mode, Sent

pytestmark = pytest.mark.usefixtures("one_thread")

MAX_PIXELS = 1 << 24  # of a clip that frames are asked of; larger filters are only made
MAX_INT = 2**63 - 1

# Exceptions that nobody has made a sentence of.
UNCLEAR = re.compile(r"Traceback|^\w+: \w*(Error|Exception|Interrupt|Exit|Warning)\b|\(most recent")


def assert_clear(name: str, message: str) -> None:
    assert message.startswith(f"{name}: "), message
    assert "\n" not in message, message
    assert not UNCLEAR.search(message), message
    assert len(message.removeprefix(f"{name}: ")) > 15, message
    assert len(message) < 1000, message
    assert message.isprintable(), message


def frames_or_sentence(name: str, clip: Any, arguments: dict[str, Any]) -> str:
    """Make a filter and some of its frames; the message where it is refused."""
    try:
        made = getattr(core.cvrs, name)(clip, **arguments)
        last = made.num_frames - 1
        if made.width * made.height * made.num_frames > MAX_PIXELS:
            return ""
        for n in {0, last // 2, last}:
            with made.get_frame(n) as frame:
                assert array_of(frame).shape == (3, made.height, made.width)
    except vs.Error as error:
        assert_clear(name, str(error))
        return str(error)
    return ""


integers = st.one_of(
    st.integers(1, 8),
    st.sampled_from([4, 16, 24, 32, 48, 64]),
    st.integers(-2, 100),
    st.sampled_from([2**15, 2**24, 2**31 - 1, 2**31, 2**32, MAX_INT, -MAX_INT - 1]),
    st.integers(-MAX_INT - 1, MAX_INT),
)
numbers = st.one_of(
    st.sampled_from([1.0, 1.5, 2.0, 12.0, 15.0, 24.0, 23.976, 30.0, 60.0, 120.0]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-320, 1e300, -1.0, float("inf"), float("nan")]),
)
texts = st.one_of(
    st.sampled_from(
        ["auto", "cpu", "cuda", "cuda:9", "lite", "fp32", "bf16", "fp16", "", "/", "."]
    ),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.sampled_from(["../" * 2000, "a" * 5000, "\n", "\0", "\x1b[31m", "%s%n", "{0}"]),
)


@st.composite
def arguments(draw: Any, name: str) -> dict[str, Any]:
    """A few arguments of any value that the filter's signature lets through."""
    kinds = {"int": integers, "float": numbers, "data": texts}
    words = [word.split(":") for word in getattr(core.cvrs, name).signature.split(";")]
    types = {word[0]: kinds[word[1]] for word in words if word[0] not in ("", "clip")}
    chosen = draw(st.lists(st.sampled_from(sorted(types)), max_size=3, unique=True))
    return {key: draw(types[key]) for key in chosen}


FORMATS = [
    *[vs.RGB24] * 10,
    *(vs.RGB30, vs.RGB48, vs.RGBH, vs.RGBS),
    *(vs.RGB27, vs.GRAY8, vs.GRAYS, vs.YUV420P8, vs.YUV422P10, vs.YUV444P16, vs.YUV411P8),
]


@st.composite
def clips(draw: Any) -> Any:
    """Clips of any shape, of varying ones too."""
    fmt = core.get_video_format(draw(st.sampled_from(FORMATS)))
    sides = st.one_of(st.sampled_from([16, 32, 64]), st.integers(1, 16).map(lambda n: 4 * n))
    side = draw(st.sampled_from([sides, sides, st.integers(1, 70)]))
    width, height = draw(side) << fmt.subsampling_w, draw(side) << fmt.subsampling_h
    rates = [*[(30, 1)] * 4, (24000, 1001), (0, 1), (2**31 - 1, 1), (1, 1000)]
    rate = draw(st.sampled_from(rates))
    lengths = [*range(1, 10), 15, 40, 100, 1000, 2**24 + 1, 2**31 - 1]
    clip = core.std.BlankClip(
        format=fmt.id,
        width=width,
        height=height,
        length=draw(st.sampled_from(lengths)),
        fpsnum=rate[0],
        fpsden=rate[1],
    )
    other: dict[str, Any] = draw(
        st.sampled_from([*[{}] * 20, {"width": 400}, {"format": vs.GRAYH}, {"fpsnum": 7}])
    )
    if not other:
        return clip
    return core.std.Splice([clip[0], core.std.BlankClip(clip, **other)[0]], mismatch=True)


fuzzed = settings(
    max_examples=1000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


RATES = {"fps", "fps_num", "fps_den", "factor_num", "factor_den"}


@pytest.mark.parametrize("name", ["Downsample", "Upsample"])
def test_any_arguments(name: str, nearest_model: Path) -> None:
    ended = {"frames": 0, "sentence": 0}

    @fuzzed
    @given(clips(), arguments(name))
    def run(clip: Any, given: dict[str, Any]) -> None:
        # Upsample of a clip that tells nothing, with no rate given, is mostly the same sentence.
        given = given if RATES & given.keys() else {"factor_num": 2} | given
        message = frames_or_sentence(name, clip, {"model": str(nearest_model)} | given)
        ended["sentence" if message else "frames"] += 1

    run()
    print(f"\n{name}: {ended}")
    assert min(ended.values()) > 50


PROPERTIES = (
    *("Version", "FactorNum", "FactorDen", "RateNum", "RateDen", "Width", "Height", "Length"),
    *("GroupLength", "Index", "Model", "Checksum", "Stamped"),
)


def test_any_frame_properties(nearest_model: Path) -> None:
    model = {"model": str(nearest_model)}
    lows = [
        core.cvrs.Downsample(clip_of(pictures(20)), fps=15, **model),
        # Where no rate contradicts it, more of what is stated has to be believed.
        core.cvrs.Downsample(clip_of(pictures(20), (0, 1)), factor_num=2, **model),
    ]
    values = st.one_of(
        integers, integers, integers, numbers, texts, st.lists(st.integers(0, 3), max_size=2)
    )
    stated = st.dictionaries(st.sampled_from(PROPERTIES), values, min_size=1, max_size=3)
    ended = {"frames": 0, "sentence": 0}

    @fuzzed
    @given(st.sampled_from(lows), stated, st.one_of(st.just({}), arguments("Upsample")))
    def run(low: Any, stated: dict[str, Any], given: dict[str, Any]) -> None:
        clip = core.std.SetFrameProps(low, **{f"CVRS{key}": value for key, value in stated.items()})
        message = frames_or_sentence("Upsample", clip, model | given)
        ended["sentence" if message else "frames"] += 1

    run()
    print(f"\nUpsample: {ended}")
    assert min(ended.values()) > 50


def test_any_stamps(nearest_model: Path) -> None:
    """Stamps protect against accidents only: anybody can write one that says anything."""
    model = {"model": str(nearest_model)}
    low = core.cvrs.Downsample(clip_of(pictures(20)), fps=15, **model)
    shown = pictures(10)
    honest = stamp.read(array_of(low.get_frame(0)))
    assert honest is not None
    words = st.one_of(
        st.integers(1, 64), st.sampled_from([0, 2**16 - 1, 2**31]), st.integers(0, 2**32 - 1)
    )
    ratios = st.builds(Fraction, st.integers(1, 9), st.integers(1, 4)) | st.builds(
        Fraction, words.filter(bool), words.filter(bool)
    )
    lies = st.fixed_dictionaries(
        {},
        optional={
            "ratio": ratios,
            "rate": st.none() | ratios,
            "width": words,
            "height": words,
            "length": words,
            "group_length": words,
            "index": words,
            "sent": st.builds(
                Sent,
                mode=st.sampled_from(Mode),
                black=st.integers(0, 99),
                white=st.integers(99, 255),
            ),
        },
    )
    ended = {"frames": 0, "sentence": 0}

    @fuzzed
    @given(lies)
    def run(lie: dict[str, Any]) -> None:
        frames = shown.copy()
        try:
            stamp.write(frames[:1], replace(honest, **lie))
        except ValueError:  # more than its fields hold
            return
        message = frames_or_sentence("Upsample", clip_of(frames, (15, 1)), model)
        ended["sentence" if message else "frames"] += 1

    run()
    print(f"\nUpsample: {ended}")
    assert min(ended.values()) > 50
