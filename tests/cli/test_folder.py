"""What a run may replace and remove: nothing that it did not write."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import commands
import pytest

from vs_cvrs.cli.folder import saying_why

LINKS: dict[str, Callable[[Path, Path], object]] = {
    "the same path": lambda target, link: None,
    "a symbolic link": lambda target, link: link.symlink_to(target),
    "a hard link": lambda target, link: link.hardlink_to(target),
}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("command", ["encode", "decode"])
@pytest.mark.parametrize("how", LINKS)
def test_out_is_never_in(
    command: str, how: str, source: Path, low: Path, tiny_model: Path, tmp_path: Path
) -> None:
    mine, out = tmp_path / "a.mkv", tmp_path / "b.mkv"
    mine.write_bytes((source if command == "encode" else low).read_bytes())
    LINKS[how](mine, out)
    out = out if out.exists() else tmp_path / "." / "a.mkv"
    before = snapshot(tmp_path)
    for words in (["--overwrite"], ["--overwrite", "--resume"]):
        said = commands.run(command, mine, out, "--model", tiny_model, *words, code=1).stderr
        assert f"vs-cvrs {command}: OUT is the file that is read ({mine})" in said
    assert snapshot(tmp_path) == before


def test_compare_does_not_draw_over_what_it_compares(tmp_path: Path) -> None:
    mine = tmp_path / "a.png"
    commands.ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48", "-frames:v", 1, mine)
    before = mine.read_bytes()
    said = commands.run("compare", mine, mine, "--png", mine, code=1).stderr
    assert "--png is the file that is read" in said
    assert mine.read_bytes() == before


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["thesis.txt"], "is a folder that vs-cvrs did not make"),
        (["00000.nut", "joined.mkv", "sub/deep.txt"], "is a folder that vs-cvrs did not make"),
        (["job.json", "00000.nut"], "is damaged or not of vs-cvrs"),
    ],
)
def test_a_folder_of_somebody_else(
    how: str, files: list[str], wanted: str, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    for name in files:
        file = tmp_path / "low.mkv.part" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('{"kind": "mine"}')
    before = snapshot(tmp_path)
    said = commands.run("encode", source, out, "--model", tiny_model, how, code=1).stderr
    assert wanted in said
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("how", ["--resume", "--overwrite"])
def test_files_that_somebody_put_into_our_folder_stay(
    how: str, source: Path, tiny_model: Path, low: Path, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    words = ["encode", source, out, "--model", tiny_model, "--segment", 16]
    part = killed_after_a_segment(words, out)
    (part / "notes.txt").write_text("mine")
    (part / "folder").mkdir()
    (part / "folder" / "00000.nut").write_text("mine")
    said = commands.run(*words, how).stderr
    assert f"{part} stays: there are files in it that vs-cvrs did not write" in said
    assert out.read_bytes() == low.read_bytes()
    assert sorted(str(p.relative_to(part)) for p in part.rglob("*")) == [
        "folder",
        "folder/00000.nut",
        "notes.txt",
    ]


def killed_after_a_segment(words: list[object], out: Path) -> Path:
    part = out.with_name(out.name + ".part")
    process = commands.start(*words)
    commands.wait_for(part / "00000.nut", process)
    process.kill()
    process.communicate(timeout=60)
    return part


def test_in_may_not_be_inside_the_folder(low: Path, tiny_model: Path, tmp_path: Path) -> None:
    inside = tmp_path / "out.mkv.part" / "joined.mkv"
    inside.parent.mkdir()
    inside.write_bytes(low.read_bytes())
    words = ["decode", inside, tmp_path / "out.mkv", "--model", tiny_model, "--overwrite"]
    assert "IN is inside" in commands.run(*words, code=1).stderr
    assert inside.read_bytes() == low.read_bytes()


@pytest.mark.parametrize(
    ("name", "made", "wanted"),
    [
        ("out.mkv", "out.mkv.part", "out.mkv.part is a file; it is in the way of a folder"),
        ("out.mkv", "out.mkv/", "out.mkv is a folder"),
    ],
)
def test_what_is_in_the_way(
    name: str, made: str, wanted: str, source: Path, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / made
    path.mkdir() if made.endswith("/") else path.write_text("mine")
    words = ["encode", source, tmp_path / name, "--model", tiny_model, "--overwrite"]
    said = commands.run(*words, code=1).stderr
    assert wanted in said
    assert "Errno" not in said
    assert "make room" not in said


def test_a_lost_connection_is_not_laid_to_the_disk(tmp_path: Path) -> None:
    """Dask's errors of that kind are OSErrors without a number."""
    with pytest.raises(OSError, match="in closing"), saying_why(tmp_path):
        raise OSError("in closing")


def test_a_folder_that_cannot_be_made(source: Path, tiny_model: Path) -> None:
    said = commands.run("encode", source, "/proc/out.mkv", "--model", tiny_model, code=1).stderr
    assert "cannot make the folder /proc/out.mkv.part: " in said
    assert "Errno" not in said


def test_a_failed_run_does_not_stand_in_the_way(
    source: Path, tiny_model: Path, low: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.environ.get("PATH", "")
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "ffmpeg").write_text("#!/bin/sh\necho 'no such encoder' >&2\nexit 1\n")
    (broken / "ffmpeg").chmod(0o755)
    out = tmp_path / "low.mkv"
    words = ["encode", source, out, "--model", tiny_model, "--segment"]
    monkeypatch.setenv("PATH", f"{broken}{os.pathsep}{real}")
    commands.run(*words, 20, code=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bin"]
    monkeypatch.setenv("PATH", real)
    commands.run(*words, 16)
    assert out.read_bytes() == low.read_bytes()


def test_running_and_left_behind_are_told_apart(
    source: Path, tiny_model: Path, low: Path, tmp_path: Path
) -> None:
    out = tmp_path / "low.mkv"
    words = ["encode", source, out, "--model", tiny_model, "--segment", 16]
    process = commands.start(*words)
    part = tmp_path / "low.mkv.part"
    commands.wait_for(part / "job.json", process)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        for how in ([], ["--resume"], ["--overwrite"]):
            said = commands.run(*words, *how, code=1).stderr
            assert "another process is writing" in said
    finally:
        os.kill(process.pid, signal.SIGCONT)
    commands.wait_for(part / "00000.nut", process)
    process.kill()
    process.communicate(timeout=60)
    assert "is what an interrupted run has left: --resume" in commands.run(*words, code=1).stderr
    commands.run(*words, "--resume")
    assert out.read_bytes() == low.read_bytes()
