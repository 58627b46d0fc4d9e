"""``vs-cvrs encode`` and ``vs-cvrs decode``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs

from vs_cvrs.carrier.levels import find_stamp as stamp_of
from vs_cvrs.carrier.levels import white_of
from vs_cvrs.carrier.lossless import COLOURS, DEPTHS, Carrier
from vs_cvrs.carrier.lossy import LossyCarrier
from vs_cvrs.carrier.stamp import Stamp
from vs_cvrs.checkpoints import checkpoint, zoo
from vs_cvrs.cli.clips import (
    Video,
    check_progressive,
    frame_array,
    open_video,
    source_form,
    to_low_rate,
    to_rgb,
)
from vs_cvrs.cli.cluster.where import Where
from vs_cvrs.cli.colours import UNSTATED
from vs_cvrs.cli.encodings import (
    carried_as,
    check_container,
    choose_carrier,
    choose_lossy,
    encode_low_rate,
    encode_restored,
    segment_length,
)
from vs_cvrs.cli.folder import check_output
from vs_cvrs.cli.job import Job
from vs_cvrs.cli.joining import Beside, check_audio
from vs_cvrs.cli.marks import checksum_of, read_marks, stamp_of_marks
from vs_cvrs.cli.options import parse_factor, parse_frame, parse_preset, parse_rate
from vs_cvrs.cli.places import Place, place_of
from vs_cvrs.cli.quality import Quality, say_what_comes_back, stamps_of
from vs_cvrs.cli.recipes import Recipe
from vs_cvrs.cli.running import CliError, counted, say, size_text
from vs_cvrs.cli.segments import Encoding, group_begins, plan_segments
from vs_cvrs.cli.tags import Tags, read_tags
from vs_cvrs.cli.times import Clock, check_retiming, constant_clock, table_clock
from vs_cvrs.cli.timetable import restored_times
from vs_cvrs.cli.timing import rate_text
from vs_cvrs.cli.tracks import choose_tracks
from vs_cvrs.plugin.limits import MAX_SIDE
from vs_cvrs.timeline import Timeline

__all__ = ["DecodeOptions", "EncodeOptions", "decode", "encode"]

_SEARCHED = 64  # low-rate frames at the start of a file that are looked at for a stamp


@dataclass(frozen=True)
class EncodeOptions:
    """What ``encode`` is asked for; texts are as the user wrote them."""

    fps: str | None
    time_factor: str | None
    scale: float | None
    codec: str
    carrier: str
    bits: str
    preset: str | None
    model: str
    device: str
    start: str | None
    end: str | None
    constant_rate: str | None
    progressive: bool
    check: bool
    headroom: int | None
    refine: int
    min_psnr: float | None
    robust: bool
    crf: float | None
    segment: int
    resume: bool
    overwrite: bool
    where: Where | None = None


@dataclass(frozen=True)
class DecodeOptions:
    """What ``decode`` is asked for."""

    codec: str
    crf: float | None
    lossless: bool
    preset: str | None
    model: str
    device: str
    segment: int
    resume: bool
    overwrite: bool
    where: Where | None = None


def encode(source: Path, output: Path, options: EncodeOptions) -> None:
    """Lower a video's rate, hide its motion, write a lossless file, or an ordinary one."""
    if options.min_psnr is not None and not options.check:
        raise CliError("--min-psnr needs what --no-check leaves out")
    if options.robust:
        options = _robust(options, output)
    elif options.crf is not None:
        raise CliError("--crf is for --robust; other low-rate files are without loss")
    elif options.codec == "av1":
        raise CliError("--codec av1 is for --robust; x264, x265 and ffv1 encode without loss")
    elif output.suffix.lower() != ".mkv":
        raise CliError(
            f"OUT must be a Matroska file (.mkv), got {output.name}; with --robust it may be .mp4"
        )
    _check_values(options)
    check_output(source, output, options.resume, options.overwrite)
    if options.robust:
        _check_outlives_loss(options.model)
    with place_of(options.where, options.device, output) as place:
        _encode(source, output, options, place)


def _encode(source: Path, output: Path, options: EncodeOptions, place: Place) -> None:
    constant_rate = _constant_rate(options)
    video = open_video(source, constant_rate, cache=True, index=place.index)
    if not options.progressive:
        check_progressive(source, video.clip)
    check_audio(source, output)
    if not video.constant:
        check_retiming()
        if output.suffix.lower() != ".mkv":
            raise CliError(
                f"{source} has frames at times of their own, which only .mkv files carry to the "
                f"receiver, got {output.name}; --constant-rate makes its rate constant"
            )
    rate = Fraction(video.clip.fps)
    lowering = _lowering(options)
    _check_lowers(options, rate)
    shown_at = _shown_at(video, rate)
    begin, end = _part(video, options)
    carrier = _carrier(options, video.bits)
    preset = parse_preset(options.preset, options.codec, carrier.codec)
    _, remark = to_rgb(video.clip, source_form(video.clip))
    tracks = choose_tracks(source, output)
    lost = [*(["transparency"] if video.transparent else []), *tracks.lost]
    if video.bits > carrier.bits:
        lost.insert(0, f"{video.bits} bits ({carrier.bits} are)")
    for text in (*video.remarks, remark, not_kept(lost)):
        if text:
            say(f"encode: {text}")
    arguments = {
        "model": options.model,
        "device": options.device,
        **_check_arguments(options),
        **({"strength": f"{carrier.strength:g}"} if isinstance(carrier, LossyCarrier) else {}),
        "bits": carrier.bits,
        **lowering,
    }
    form, matrix = carried_as(carrier)
    recipe = Recipe(
        source=source.resolve(),
        filter="Downsample",
        arguments=arguments,
        format=form,
        matrix=matrix,
        constant_rate=constant_rate,
        part=(begin, end),
        progressive=options.progressive,
    )
    recipe, low, made = place.begun(recipe, video, "encode")
    properties = dict(made.props)
    if options.min_psnr is not None and not properties["CVRSStamped"]:
        raise CliError(
            "--min-psnr needs stamps to tell what comes back, and frames of "
            f"{low.width}x{low.height} are too small for them"
        )
    first = _first_stamp(properties)
    tags = Tags(
        first=first,
        model=_text(properties["CVRSModel"]),
        low_width=low.width,
        low_height=low.height,
        low_length=low.num_frames,
        pixel_shape=video.pixel_shape,
        bits=carrier.bits,
        colours=video.colours,
        timed=not video.constant,
    )
    shape = video.pixel_shape
    if options.scale not in (None, 1):  # else frames are padded, not stretched
        shape *= Fraction(video.clip.width * low.height, video.clip.height * low.width)
    encoding = encode_low_rate(
        carrier,
        first.group_length,
        preset,
        video.colours,
        shape,
        output,
    )
    segment = segment_length(options.segment, first.group_length)
    table, times = None, None
    if not video.constant and video.times is not None:
        table = video.times[begin:end]
        timeline = Timeline(first.ratio, first.group_length)
        times = table[[timeline.shown(n, table.size) for n in range(low.num_frames)]]
    job = Job(
        recipe=recipe,
        frames=low.num_frames,
        rate=Fraction(low.fps),
        output=output,
        encoding=encoding,
        beside=Beside(
            source,
            video.start + float(shown_at(begin) or 0),
            None if end == video.clip.num_frames else video.start + float(shown_at(end) or 0),
            tracks,
            table,
        ),
        tags=tags.as_dict(),
        identity=_identity(
            "encode",
            source,
            encoding,
            tags,
            [
                begin,
                end,
                options.constant_rate,
                options.check,
                options.headroom,
                options.refine,
                options.robust,
            ],
        ),
        segments=plan_segments(
            low.num_frames, segment, range(0, low.num_frames, first.group_length)
        ),
        segment=segment,
        times=times,
    )
    place.run(job, low, video, first.checksum, "encoding", options.resume, options.overwrite)
    say(
        f"{output}: {counted(low.num_frames)} {_at_rate(low.fps, video.constant)}, "
        f"{low.width}x{low.height}, made of {end - begin} {_at_rate(rate, video.constant)} "
        f"with model {tags.model}; {size_text(output.stat().st_size)}"
    )
    if options.check:
        say_what_comes_back(output, shown_at, begin, options.min_psnr)


def decode(source: Path, output: Path, options: DecodeOptions) -> None:
    """Restore the video that ``encode`` was given."""
    _check_ending(output)
    check_container(options.codec, output)
    if options.crf is not None and _is_exact(options):
        which = "--lossless" if options.lossless else "--codec ffv1"
        raise CliError(f"--crf is for encoders with loss, got {which}")
    parse_preset(options.preset, options.codec)
    check_output(source, output, options.resume, options.overwrite)
    with place_of(options.where, options.device, output) as place:
        _decode(source, output, options, place)


def _decode(source: Path, output: Path, options: DecodeOptions, place: Place) -> None:
    check_audio(source, output)
    tags = read_tags(source)
    video = open_video(source, any_times=True, index=place.index)
    low = to_low_rate(video.clip)
    stamped = find_stamp(low)
    if tags is None and stamped is None:
        marked = read_marks(low)
        if marked is None:
            raise CliError(
                f"{source} carries no hidden motion: no CVRS tags, and no stamp or mark in its "
                "frames; a file that was encoded with loss has lost all but marks, which "
                "encode --robust makes"
            )
        checksum = checksum_of(marked, options.model)
        if checksum is None:
            raise CliError(
                f"{source} is marked by another model than {options.model}"
                if options.model != "auto"
                else f"{source} is marked by a model that is not bundled; give --model FILE"
            )
        stamped = stamp_of_marks(marked, low.num_frames, checksum), DEPTHS[0]
    if tags is not None and (low.width, low.height) != (tags.low_width, tags.low_height):
        raise CliError(
            f"{source} was scaled from {tags.low_width}x{tags.low_height} to "
            f"{low.width}x{low.height}; its hidden motion is gone"
        )
    if stamped is None:
        assert tags is not None
        stamped = tags.first, tags.bits
    found, bits = stamped
    timeline = Timeline(found.ratio, found.group_length)
    begin = timeline.high_begin(found.index)
    length = timeline.restored_count(low.num_frames, found.index, found.length)
    if length < 1:
        raise CliError(f"{source} has no frame of the {found.length} that were sent")
    shape = tags.pixel_shape if tags else video.pixel_shape
    colours = tags.colours if tags else replace(video.colours, matrix=UNSTATED)
    encoding, form = encode_restored(
        codec=options.codec,
        crf=options.crf,
        lossless=options.lossless,
        preset=options.preset,
        bits=bits,
        size=(found.width, found.height),
        colours=colours,
        shape=shape,
        output=output,
    )
    tracks = choose_tracks(source, output)
    times, remark = restored_times(source, tags, video, found, length)
    if times is not None:
        check_retiming()
    odd = found.width % 2 or found.height % 2
    because = "4:4:4, because 4:2:0 needs an even width and height" if odd else ""
    for text in (because, remark, not_kept(tracks.lost)):
        if text:
            say(f"decode: {text}")
    model = _model_of(found.checksum, tags, options.model)
    recipe = Recipe(
        source=source.resolve(),
        filter="Upsample",
        arguments={
            "factor_num": found.ratio.numerator,
            "factor_den": found.ratio.denominator,
            "width": found.width,
            "height": found.height,
            "length": length,
            "phase": found.index,
            "gop": found.group_length,
            "model": model,
            "device": options.device,
            "bits": bits,
        },
        format=form,
        matrix=colours.restored_matrix,
        any_times=True,
        rate=None if found.rate is None else found.rate / found.ratio,
    )
    restored = place.clip(recipe, video)
    # The model that restores need not be the one that made the file.
    restorer = _loaded(model).checksum
    job = Job(
        recipe=recipe,
        frames=restored.num_frames,
        rate=Fraction(restored.fps),
        output=output,
        encoding=encoding,
        beside=Beside(source, video.start, None, tracks),
        tags={},
        identity=_identity("decode", source, encoding, replace(found, checksum=restorer), []),
        segments=plan_segments(length, options.segment, group_begins(timeline, begin, length)),
        segment=options.segment,
        times=times,
    )
    sent = timeline.low_count(found.length) - found.index
    if low.num_frames < sent:
        say(f"decode: {source} holds {low.num_frames} of the {counted(sent)} that were sent")
    damaged = place.run(
        job, restored, video, restorer, "restoring", options.resume, options.overwrite
    )
    if damaged:
        say(
            f"decode: warning: {counted(damaged)} of groups that are not as they were sent, "
            "restored as far as that is better than frames without hidden motion"
        )
    say(
        f"{output}: {counted(length)} {_at_rate(restored.fps, times is None)}, "
        f"{restored.width}x{restored.height}; {size_text(output.stat().st_size)}"
    )
    quality = Quality.of(stamps_of(low, found.group_length))
    if quality is not None and damaged < length:
        clock = constant_clock(found.rate) if times is None else table_clock(times)
        say(
            f"{output}: came back at {quality.sentence(clock, -begin)}, as encode measured it"
            + ("" if _is_exact(options) else "; what the encoder loses comes on top")
        )


def _robust(options: EncodeOptions, output: Path) -> EncodeOptions:
    """The options for a file that is encoded with loss."""
    _check_ending(output)
    for given, option in (
        (options.min_psnr is not None, "--min-psnr"),
        (options.headroom is not None, "--headroom"),
        (options.refine > 0, "--refine"),
        (options.carrier != COLOURS[0], "--carrier"),
        (options.bits not in ("auto", str(DEPTHS[0])), "--bits"),
        (options.scale not in (None, 1), "--scale"),
    ):
        if given:
            raise CliError(f"{option} is for files without loss, not for --robust")
    model = "robust" if options.model == "auto" else options.model
    return replace(options, model=model, check=False, bits=str(DEPTHS[0]))


def _check_values(options: EncodeOptions) -> None:
    """Raise CliError for values that go with no video; to read one may take minutes."""
    _constant_rate(options)
    _lowering(options)
    if options.scale is not None and not 1 <= options.scale <= MAX_SIDE:
        raise CliError(f"--scale must be 1 to {MAX_SIDE}, got {options.scale:g}")
    for text, option in ((options.start, "--start"), (options.end, "--end")):
        if text:
            parse_frame(text, round, option)
    parse_preset(options.preset, options.codec)
    # Where --bits leaves the choice to the video, there is a carrier for each.
    _carrier(options, DEPTHS[0])


def _constant_rate(options: EncodeOptions) -> Fraction | None:
    text = options.constant_rate
    return None if text is None else parse_rate(text, "--constant-rate")


def _carrier(options: EncodeOptions, source_bits: int) -> Carrier | LossyCarrier:
    if options.robust:
        return choose_lossy(options.codec, options.crf)
    return choose_carrier(options.codec, options.carrier, options.bits, source_bits)


def _check_outlives_loss(model: str) -> None:
    """Raise CliError for a model that hides motion from encoders with loss in vain."""
    if not _loaded(model).model.outlives_loss:
        raise CliError(
            "--robust needs a model whose hidden motion outlives encoders with loss, as that of "
            f"robust does, got --model {model}"
        )


def _is_exact(options: DecodeOptions) -> bool:
    """Whether the encoder of the restored video loses nothing."""
    return options.lossless or options.codec == "ffv1"


def _check_ending(output: Path) -> None:
    """Raise CliError for a file that ordinary video is not written to."""
    if output.suffix.lower() not in {".mkv", ".mp4", ".mov"}:
        raise CliError(f"OUT must be a .mkv, .mp4 or .mov file, got {output.name}")


def not_kept(lost: Sequence[str]) -> str:
    """A sentence on what is not kept; empty where all is."""
    return f"not kept: {', '.join(lost)}." if lost else ""


def find_stamp(clip: Any) -> tuple[Stamp, int] | None:
    """The stamp of the first frame, worked out from the first that has one, and its bits."""
    for n in range(min(clip.num_frames, _SEARCHED)):
        try:
            frame = frame_array(clip.get_frame(n))
        except vs.Error:  # a frame that cannot be decoded; the next one may tell
            continue
        stamped = stamp_of(frame, white_of(frame))
        if stamped is not None and stamped[0].index >= n:
            found, bits = stamped
            return replace(found, index=found.index - n), bits
    return None


def _shown_at(video: Video, rate: Fraction) -> Clock:
    """When each of a video's frames is shown, from the first on."""
    if video.constant or video.times is None:
        return constant_clock(rate)
    return table_clock(video.times - video.times[0])


def _part(video: Video, options: EncodeOptions) -> tuple[int, int]:
    """First frame and the one after the last."""
    total = int(video.clip.num_frames)

    def nearest(seconds: Fraction) -> int:
        if video.constant or video.times is None:
            return round(seconds * Fraction(video.clip.fps))
        away = video.times - video.times[0] - float(seconds)
        return total if away[-1] < 0 else int(np.abs(away).argmin())

    begin = parse_frame(options.start, nearest, "--start") if options.start else 0
    end = min(parse_frame(options.end, nearest, "--end"), total) if options.end else total
    if begin >= end:
        raise CliError(
            "--start and --end leave no frame: "
            f"from {begin} to {end} of a video of {counted(total)}"
        )
    return begin, end


def _check_arguments(options: EncodeOptions) -> dict[str, int]:
    headroom = {} if options.headroom is None else {"headroom": options.headroom}
    return {"check": int(options.check), "refine": options.refine} | headroom


def _lowering(options: EncodeOptions) -> dict[str, Any]:
    """The filter's arguments for what is asked for."""
    if options.fps is not None and options.time_factor is not None:
        raise CliError("give either --fps or --time-factor, not both")
    scale = {} if options.scale is None else {"scale": options.scale}
    if options.fps is not None:
        target = parse_rate(options.fps, "--fps")
        return {"fps_num": target.numerator, "fps_den": target.denominator} | scale
    factor = parse_factor(options.time_factor or "2", "--time-factor")
    if factor == 1 and options.scale in (None, 1):
        raise CliError("--time-factor 1 lowers nothing; give a greater one, or --scale")
    return {"factor_num": factor.numerator, "factor_den": factor.denominator} | scale


def _check_lowers(options: EncodeOptions, rate: Fraction) -> None:
    """Raise CliError where a video of this rate would stay as it is."""
    if options.fps is None or options.scale not in (None, 1):
        return
    if parse_rate(options.fps, "--fps") == rate:
        raise CliError(
            f"--fps {options.fps} is the rate that IN has, and nothing would be lowered; "
            "give a lower one, or --scale"
        )


def _first_stamp(properties: dict[str, Any]) -> Stamp:
    rate = (properties["CVRSRateNum"], properties["CVRSRateDen"])
    return Stamp(
        ratio=Fraction(properties["CVRSFactorNum"], properties["CVRSFactorDen"]),
        rate=Fraction(*rate) if all(rate) else None,
        width=properties["CVRSWidth"],
        height=properties["CVRSHeight"],
        length=properties["CVRSLength"],
        group_length=properties["CVRSGroupLength"],
        index=properties["CVRSIndex"],
        checksum=_text(properties["CVRSChecksum"]),
    )


def _model_of(checksum: str, tags: Tags | None, wanted: str) -> str:
    """What to give as ``model``: the bundled one whose weights the file was made with."""
    if wanted != "auto":
        return wanted
    bundled = zoo.name_of(checksum)
    if bundled is not None:
        return bundled
    name = f"{tags.model} ({checksum})" if tags else checksum
    raise CliError(f"the file was made with model {name}, which is not bundled; give --model FILE")


def _loaded(model: str) -> checkpoint.LoadedModel:
    """The model of this name or path."""
    # Only what "auto" means depends on ratio and scale.
    return checkpoint.load(zoo.resolve(model, Fraction(1), Fraction(1)))


def _identity(
    command: str, source: Path, encoding: Encoding, made: Tags | Stamp, arguments: list[Any]
) -> dict[str, Any]:
    state = source.stat()
    return {
        "command": command,
        "source": [str(source.resolve()), state.st_size, state.st_mtime_ns],
        "encoder": [*encoding.options, *encoding.colours, *encoding.stated],
        "model and sizes": str(made),
        "arguments": arguments,
    }


def _at_rate(rate: Any, constant: bool) -> str:
    text = f"at {rate_text(Fraction(rate))} fps"
    return text if constant else f"at times of their own (most {text})"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
