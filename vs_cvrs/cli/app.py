"""Commands and their options."""

from __future__ import annotations

import enum
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from vs_cvrs import __version__
from vs_cvrs.cli.cluster.where import LIMIT, Where, need_dask
from vs_cvrs.cli.running import CliError, console, interruptible
from vs_cvrs.programs.system import reader_left

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Lower a video's frame rate or size, hide what that loses in the frames that stay, and "
    "restore it.",
    rich_markup_mode="markdown",
)


cluster_app = typer.Typer(
    no_args_is_help=True, help="Let several machines work: a scheduler, and workers that join it."
)
app.add_typer(cluster_app, name="cluster")


class Codec(enum.StrEnum):
    """Encoders."""

    auto = "auto"
    x264 = "x264"
    x265 = "x265"
    ffv1 = "ffv1"


class SentCodec(enum.StrEnum):
    """Encoders of low-rate frames."""

    auto = "auto"
    x264 = "x264"
    x265 = "x265"
    ffv1 = "ffv1"
    av1 = "av1"


class Colours(enum.StrEnum):
    """What low-rate frames are encoded as."""

    rgb = "rgb"
    yuv = "yuv"


def main() -> None:
    """The entry point: one line for an error, exit code 1.

    Options that do not exist, and values of the wrong kind, are Typer's to refuse: with a usage and
    a box around the error, exit code 2.
    """
    app(prog_name="vs-cvrs")


def _do(command: str, work: Callable[[], int | None]) -> None:
    """Run a command; its exit code is what ``work`` gives."""
    # Imported by now or not, VapourSynth and PyTorch report their own errors as these types.
    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # Names of files may hold bytes that are no text.
                stream.reconfigure(errors="backslashreplace")
        code = interruptible(work)
        sys.stdout.flush()
    except (CliError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError) and reader_left():
            # Or Python would try once more at its end, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from error
        _fail(command, _reason(error))
    except Exception as error:
        if type(error).__module__ != "vapoursynth":
            raise
        _fail(command, str(error))
    else:
        raise typer.Exit(code or 0)


def _reason(error: Exception) -> str:
    """What an error says, without the numbers that Python puts before what the system says."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _where(
    workers: int | None, address: str | None, tls: Path | None, mixed: bool, limit: float
) -> Where | None:
    if workers is None and address is None:
        if tls is not None or mixed:
            raise CliError("--tls and --mixed go with --cluster or --workers")
        return None
    return Where(workers, address, tls, mixed, limit)


def _fail(command: str, text: str) -> None:
    print(f"vs-cvrs {command}: {text}", file=sys.stderr)
    raise typer.Exit(1)


Source = Annotated[Path, typer.Argument(metavar="IN", help="A video file.")]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="The file to write.")]
Model = Annotated[str, typer.Option(help="A bundled model, or the path of one.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Preset = Annotated[str | None, typer.Option(help="Preset of x264 or x265.")]
Segment = Annotated[
    int, typer.Option("--segment", help="Frames of OUT that an interruption can cost.", min=1)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from an interrupted run.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT, begin again.")]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Processes of this machine that share the work, and its GPUs or threads.", min=1
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Let the workers of this Dask scheduler work."),
]
Tls = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Certificate of the cluster's machines.")
]
Mixed = Annotated[
    bool, typer.Option("--mixed", help="Take workers of other kinds too: almost the same frames.")
]
Limit = Annotated[
    float,
    typer.Option(help="Seconds without a new frame after which a worker is given up.", min=1),
]
Host = Annotated[str | None, typer.Option(help="Address of this machine to listen at.")]
Frames = 480


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def encode(
    source: Source,
    output: Output,
    fps: Annotated[
        str | None, typer.Option(help="Rate to lower to: 15, 23.976, 30000/1001.")
    ] = None,
    time_factor: Annotated[
        str | None, typer.Option(help="Or by how much: 2, 5/4. Default: 2.")
    ] = None,
    scale: Annotated[float | None, typer.Option(help="By how much to reduce the size.")] = None,
    codec: Annotated[
        SentCodec,
        typer.Option(
            help="Encoder. auto: x264, without loss and for 10 bits ffv1; av1 with --robust only."
        ),
    ] = SentCodec.auto,
    carrier: Annotated[
        Colours, typer.Option(help="Low-rate frames as RGB, or larger as YUV for live playback.")
    ] = Colours.rgb,
    bits: Annotated[
        str, typer.Option(help="Of low-rate frames: 8, 10 (they hide more), or auto: the source's.")
    ] = "auto",
    preset: Preset = None,
    model: Model = "auto",
    device: Device = "auto",
    start: Annotated[str | None, typer.Option(help="12.5, 1:02:03.5 or 300f (a frame).")] = None,
    end: Annotated[str | None, typer.Option(help="Where to stop, likewise.")] = None,
    constant_rate: Annotated[
        str | None, typer.Option(help="Make a variable frame rate constant at this rate.")
    ] = None,
    progressive: Annotated[
        bool, typer.Option("--progressive", help="Take interlaced frames as they are.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Restore every group, and send it as it comes back best.")
    ] = True,
    headroom: Annotated[
        int | None,
        typer.Option(help="Levels by which black and white may move where it helps: 0 to 64."),
    ] = None,
    refine: Annotated[
        int,
        typer.Option(
            help="Steps that make low-rate frames better, slowly: 20 bring most.",
            min=0,
            max=200,
        ),
    ] = 0,
    min_psnr: Annotated[
        float | None, typer.Option(help="Fail where a group comes back at less (dB).", min=0)
    ] = None,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust", help="Write an ordinary file with loss: motion is hidden so that it lasts."
        ),
    ] = False,
    crf: Annotated[
        float | None,
        typer.Option(help="Quality of --robust. Default: 18, of av1 30.", min=0, max=63),
    ] = None,
    segment: Segment = Frames,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    workers: Workers = None,
    cluster: Cluster = None,
    tls: Tls = None,
    mixed: Mixed = False,
    limit: Limit = LIMIT,
) -> None:
    """Lower a video's rate or size and hide what that loses: IN becomes OUT, a lossless file.

    With --robust OUT is an ordinary .mp4, .mov or .mkv file, much smaller, and restored less well.
    Audio, subtitles, chapters and attachments are kept. What an interrupted run has done lies in
    OUT.part; --resume goes on from there.
    """

    def work() -> None:
        from vs_cvrs.cli import coding

        options = coding.EncodeOptions(
            fps=fps,
            time_factor=time_factor,
            scale=scale,
            codec=codec.value,
            carrier=carrier.value,
            bits=bits,
            preset=preset,
            model=model,
            device=device,
            start=start,
            end=end,
            constant_rate=constant_rate,
            progressive=progressive,
            check=check,
            headroom=headroom,
            refine=refine,
            min_psnr=min_psnr,
            robust=robust,
            crf=crf,
            segment=segment,
            resume=resume,
            overwrite=overwrite,
            where=_where(workers, cluster, tls, mixed, limit),
        )
        console.quiet = quiet
        coding.encode(source, output, options)

    _do("encode", work)


@app.command()
def decode(
    source: Source,
    output: Output,
    codec: Annotated[
        Codec,
        typer.Option(help="Encoder of the restored video. auto: x264 for 8 bits, x265 for 10."),
    ] = Codec.auto,
    crf: Annotated[
        float | None, typer.Option(help="Quality of x264 and x265. Default: 16.", min=0, max=51)
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Every colour exactly, in 4:4:4 with two bits more.")
    ] = False,
    preset: Preset = None,
    model: Model = "auto",
    device: Device = "auto",
    segment: Segment = Frames,
    resume: Resume = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    workers: Workers = None,
    cluster: Cluster = None,
    tls: Tls = None,
    mixed: Mixed = False,
    limit: Limit = LIMIT,
) -> None:
    """Restore the video that encode was given: frames, rate, size and audio.

    OUT is a .mkv, .mp4 or .mov file: x264 with 4:2:0 and 8 bits, which plays anywhere, or x265
    with 10 bits where the source had more than 8, or with --lossless every colour exactly.
    """

    def work() -> None:
        from vs_cvrs.cli import coding

        options = coding.DecodeOptions(
            codec=codec.value,
            crf=crf,
            lossless=lossless,
            preset=preset,
            model=model,
            device=device,
            segment=segment,
            resume=resume,
            overwrite=overwrite,
            where=_where(workers, cluster, tls, mixed, limit),
        )
        console.quiet = quiet
        coding.decode(source, output, options)

    _do("decode", work)


@app.command()
def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A video file.")],
    every: Annotated[bool, typer.Option("--all", help="Look at every frame, not at 32.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether FILE carries hidden motion, of which model, and whether it is intact.

    Exit codes: 0 intact; 3 carries none (or nothing is left of it); 4 altered; 5 intact frames, but
    cut inside a group or put together anew; 6 frames too small to tell; 7 made to be encoded with
    loss (encode --robust); 1 the file cannot be read.
    """

    def work() -> int:
        from vs_cvrs.cli import probe

        return probe.info(file, every, as_json)

    _do("info", work)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="The original.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="What is compared with it.")],
    png: Annotated[
        Path | None, typer.Option(help="Draw the curves and the worst frames into this file.")
    ] = None,
    constant_rate: Annotated[
        str | None, typer.Option(help="Make A's frame rate constant, as encode was told to.")
    ] = None,
) -> None:
    """Print PSNR and SSIM of B against A, in 8-bit RGB."""

    def work() -> None:
        from vs_cvrs.cli import comparing

        comparing.compare(first, second, png, constant_rate)

    _do("compare", work)


@app.command()
def doctor() -> None:
    """Look for everything that is needed, with advice for what is missing."""

    def work() -> int:
        from vs_cvrs.cli import doctor as doctors

        return doctors.doctor()

    _do("doctor", work)


@cluster_app.command("start")
def cluster_start(
    port: Annotated[int, typer.Option(help="Port to listen at.", min=0, max=65535)] = 8786,
    host: Host = None,
    tls: Tls = None,
) -> None:
    """Run a scheduler, and say how workers join it and how jobs are given to it.

    Only this machine is listened to, unless --tls names a folder: the certificate in it, which is
    made where there is none, is what the other machines must have.
    """

    def work() -> None:
        need_dask("clusters")
        from vs_cvrs.cli.cluster import machines

        machines.start(port, host, tls)

    _do("cluster start", work)


@cluster_app.command("join")
def cluster_join(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="The scheduler's.")],
    workers: Annotated[
        int | None,
        typer.Option(help="Processes. Default: one per GPU, or per memory domain.", min=1),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each. Default: an equal share.", min=1)
    ] = None,
    host: Host = None,
    tls: Tls = None,
) -> None:
    """Run this machine's workers for the scheduler at ADDRESS."""

    def work() -> None:
        need_dask("clusters")
        from vs_cvrs.cli.cluster import machines

        machines.join(address, workers, threads, host, tls)

    _do("cluster join", work)
