"""``encode --robust``: ordinary files with loss, which restore themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import commands
import pytest

from vs_cvrs.cli.clips import core
from vs_cvrs.cli.streams import streams_of

OPTIONS = {"width": 16, "down_blocks": "h", "up_blocks": "q", "hidden": 8}
OPTIONS |= {"motion_width": 8, "motion_blocks": "h"}


@pytest.fixture(scope="module")
def model(save_model: Callable[..., Path]) -> Path:
    return save_model("robust", OPTIONS, name="robust")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.video(tmp_path_factory.mktemp("film") / "film.mkv", size="208x120")


@pytest.fixture(scope="module")
def sent(film: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sent") / "low.mkv"
    commands.run("encode", film, out, "--robust", "--model", model, "--segment", 16)
    return out


def frames_and_rate(path: Path) -> tuple[int, float]:
    clip = core.bs.VideoSource(str(path), cachemode=0)
    return clip.num_frames, round(float(clip.fps), 2)


@pytest.mark.parametrize(
    ("codec", "name"), [("x264", "low.mp4"), ("x265", "low.mp4"), ("av1", "low.mkv")]
)
def test_an_ordinary_file_comes_back(
    codec: str, name: str, film: Path, model: Path, tmp_path: Path
) -> None:
    low, restored = tmp_path / name, tmp_path / "restored.mkv"
    crf = 30 if codec == "av1" else 20
    words = ["--robust", "--codec", codec, "--crf", crf, "--model", model]
    if low.suffix == ".mp4":  # which cannot hold the film's audio as it is
        film = _with_aac(film, tmp_path)
    commands.run("encode", film, low, *words)
    assert frames_and_rate(low) == (30, 14.99)
    clip = core.bs.VideoSource(str(low), cachemode=0)
    assert clip.format.name == "YUV420P8"
    kinds = [stream.kind for stream in streams_of(low)]
    assert sorted(kinds) == ["audio", "video"]
    said = commands.run("decode", low, restored, "--model", model)
    assert "damaged" not in said.stderr + said.stdout
    assert frames_and_rate(restored) == (60, 29.97)


def _with_aac(film: Path, folder: Path) -> Path:
    made = folder / "film.mp4"
    commands.ffmpeg("-i", film, "-c:v", "copy", "-c:a", "aac", made)
    return made


def test_a_file_that_was_encoded_again_tells_itself(
    sent: Path, model: Path, tmp_path: Path
) -> None:
    again, restored = tmp_path / "again.mp4", tmp_path / "restored.mp4"
    commands.ffmpeg(
        *("-i", sent, "-map_metadata", -1, "-an", "-c:v", "libx264", "-crf", 20),
        *("-pix_fmt", "yuv420p", again),
    )
    commands.run("decode", again, restored, "--model", model)
    assert frames_and_rate(restored) == (60, 29.97)


@pytest.fixture(scope="module")
def detailed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 12 low-rate frames whose marks outlive two more encoders."""
    folder = tmp_path_factory.mktemp("detailed")
    film, low = folder / "film.mkv", folder / "low.mp4"
    pictures = "mandelbrot=size=256x144:rate=30:start_scale=0.5"
    commands.ffmpeg("-f", "lavfi", "-i", pictures, "-frames:v", 24, "-c:v", "ffv1", film)
    commands.run("encode", film, low, "--robust", "--model", model)
    return low


X264 = ("-c:v", "libx264", "-crf", 20)
X265 = ("-c:v", "libx265", "-crf", 20, "-x265-params", "log-level=error")
AV1 = ("-c:v", "libsvtav1", "-crf", 28, "-preset", 8)
VP9 = ("-c:v", "libvpx-vp9", "-crf", 28, "-b:v", 0, "-deadline", "realtime", "-cpu-used", 5)


@pytest.mark.parametrize(
    ("ways", "name"),
    [
        ([X264, X264], "again.mp4"),
        ([X265], "again.mp4"),
        ([AV1], "again.webm"),
        ([X264, VP9], "again.webm"),
    ],
)
def test_other_encoders_and_containers_without_tags(
    ways: list[tuple[object, ...]], name: str, detailed: Path, model: Path, tmp_path: Path
) -> None:
    file = detailed
    for n, way in enumerate(ways):
        again = tmp_path / f"{n}{name}"
        if n + 1 < len(ways):
            again = again.with_suffix(".mkv")
        bare = ("-map_metadata", -1, "-an", "-pix_fmt", "yuv420p")
        commands.ffmpeg("-i", file, *bare, *way, again)
        file = again
    restored = tmp_path / "restored.mkv"
    said = commands.run("decode", file, restored, "--model", model)
    assert "warning" not in said.stderr
    assert frames_and_rate(restored) == (24, 30.0)


def test_a_file_that_was_mirrored_is_interpolated_with_a_word(
    detailed: Path, model: Path, tmp_path: Path
) -> None:
    mirrored, restored = tmp_path / "mirrored.mkv", tmp_path / "restored.mkv"
    commands.ffmpeg("-i", detailed, "-vf", "hflip", *X264, "-pix_fmt", "yuv420p", mirrored)
    said = commands.run("decode", mirrored, restored, "--model", model)
    assert "warning: 24 frames of groups that are not as they were sent" in said.stderr
    assert frames_and_rate(restored) == (24, 30.0)
    bare = tmp_path / "bare.mkv"
    commands.ffmpeg("-i", mirrored, "-map_metadata", -1, "-c", "copy", bare)
    said = commands.run("decode", bare, restored, "--model", model, "--overwrite", code=1)
    assert "carries no hidden motion" in said.stderr


def test_the_bundled_model_needs_no_options(tmp_path: Path) -> None:
    film, low, again, restored = (
        tmp_path / name for name in ("film.mkv", "low.mkv", "again.mp4", "restored.mkv")
    )
    # Large flat parts, as testsrc2 has, lose the mark where they are encoded twice.
    pictures = "mandelbrot=size=256x144:rate=30000/1001:start_scale=0.5"
    commands.ffmpeg("-f", "lavfi", "-i", pictures, "-t", 2, "-c:v", "ffv1", film)
    commands.run("encode", film, low, "--robust")
    commands.ffmpeg(
        *("-i", low, "-map_metadata", -1, "-an", "-c:v", "libx264", "-crf", 20),
        *("-pix_fmt", "yuv420p", again),
    )
    for file in (low, again):
        assert "robust" in commands.run("info", file, code=7).stdout
        commands.run("decode", file, restored, "--overwrite")
        assert frames_and_rate(restored) == (60, 29.97)


def test_marks_of_another_model_are_named(
    sent: Path, save_model: Callable[..., Path], tmp_path: Path
) -> None:
    bare = tmp_path / "bare.mkv"
    commands.ffmpeg("-i", sent, "-map_metadata", -1, "-an", "-c:v", "copy", bare)
    other = save_model("robust", OPTIONS, seed=3)
    said = commands.run("decode", bare, tmp_path / "out.mkv", "--model", other, code=1)
    assert "is marked by another model than" in said.stderr
    said = commands.run("decode", bare, tmp_path / "out.mkv", code=1)
    assert "is marked by a model that is not bundled; give --model FILE" in said.stderr


def test_info_tells_tags_and_marks(sent: Path, tmp_path: Path) -> None:
    said = commands.run("info", sent, code=7).stdout
    assert "marked" in said.splitlines()[1]
    assert "60 frames of 208x120" in said
    assert "30000/1001" in said
    bare = tmp_path / "bare.mkv"
    commands.ffmpeg("-i", sent, "-map_metadata", -1, "-an", "-c:v", "copy", bare)
    said = commands.run("info", bare, code=7).stdout
    assert "60 frames of 208x120" in said
    assert "not bundled" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out.webm", "--robust"], "OUT must be a .mkv, .mp4 or .mov file, got out.webm"),
        (["out.mp4"], "with --robust it may be .mp4"),
        (["out.mkv", "--crf", 20], "--crf is for --robust"),
        (["out.mkv", "--codec", "av1"], "--codec av1 is for --robust"),
        (["out.mkv", "--robust", "--codec", "ffv1"], "encoders with loss are x264, x265, av1"),
        (["out.mkv", "--robust", "--crf", 60], "x264 has constant rate factors of 0 to 51"),
        (["out.mkv", "--robust", "--min-psnr", 30], "--min-psnr is for files without loss"),
        (["out.mkv", "--robust", "--headroom", 16], "--headroom is for files without loss"),
        (["out.mkv", "--robust", "--refine", 5], "--refine is for files without loss"),
        (["out.mkv", "--robust", "--carrier", "yuv"], "--carrier is for files without loss"),
        (["out.mkv", "--robust", "--bits", 10], "--bits is for files without loss"),
        (["out.mkv", "--robust", "--scale", 2], "--scale is for files without loss"),
        (["out.mkv", "--robust", "--codec", "av1", "--preset", "slow"], "got --codec av1"),
    ],
)
def test_what_does_not_go_with_it(
    words: list[object], message: str, film: Path, model: Path, tmp_path: Path
) -> None:
    output, *rest = words
    said = commands.run("encode", film, tmp_path / str(output), *rest, "--model", model, code=1)
    assert said.stderr.startswith("vs-cvrs encode: ")
    assert message in said.stderr
    assert not (tmp_path / str(output)).exists()


def test_a_model_whose_hidden_motion_does_not_last(
    film: Path, tiny_model: Path, tmp_path: Path
) -> None:
    words = ["encode", film, tmp_path / "out.mkv", "--robust", "--model", tiny_model]
    said = commands.run(*words, code=1).stderr
    assert said.startswith("vs-cvrs encode: --robust needs a model whose hidden motion outlives")
    assert said.endswith(f"got --model {tiny_model}\n")


def test_interrupted_runs_go_on(film: Path, model: Path, sent: Path, tmp_path: Path) -> None:
    out = tmp_path / "low.mkv"
    words = ["encode", film, out, "--robust", "--model", model, "--segment", 16]
    process = commands.start(*words)
    commands.wait_for(tmp_path / "low.mkv.part" / "*0000*.*", process)
    process.kill()
    process.communicate()
    if not out.exists():
        commands.run(*words, "--resume")
    assert out.read_bytes() == sent.read_bytes()
