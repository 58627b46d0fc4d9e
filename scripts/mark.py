#!/usr/bin/env python3
"""Measure the mark: what it survives, what it costs a picture, and how likely it is seen in none.

Videos and folders of PNG frames at or under a folder are brought to half their rate, marked, sent
through encoders with loss, and read; and the same without a mark.

    scripts/mark.py --datapath DIR --frames 64 --json out/mark.json
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import av
import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.table import Table
from torch.nn import functional

from vs_cvrs import metrics
from vs_cvrs.carrier import mark
from vs_cvrs.carrier.mark import Evidence, Message
from vs_cvrs.evaluation import EvaluationError, report
from vs_cvrs.evaluation.scenes import Frames, find_scenes, read_frames
from vs_cvrs.training import transports
from vs_cvrs.training.transports import Planes

_VIDEOS = (".mkv", ".mp4", ".webm")
_PRESETS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8", "libvpx-vp9": "4"}
_GROUP = 4
_FIRST = 1000  # number of the first frame: the count begins again soon
_MESSAGE = Message(Fraction(2), _GROUP, mark.model_id("9c3f"), 123456)
_MORE = (1, 4)  # groups that are read together

Way = Callable[[Frames], Frames]


def encoded(codec: str, crf: float) -> Way:
    """Through an encoder and back."""

    def carry(frames: Frames) -> Frames:
        planes = transports.to_planes(torch.from_numpy(frames) / 255.0)
        planes = Planes(*(plane.round().clamp(0, 255) for plane in planes))
        back = transports.encode_and_decode(planes, codec, crf, _PRESETS[codec])
        return _levels(transports.from_planes(back))

    return carry


def smaller(frames: Frames) -> Frames:
    """To two thirds of the size and back."""
    size = frames.shape[2:]
    x = torch.from_numpy(frames).float()
    for target in ([n * 2 // 3 for n in size], size):
        x = functional.interpolate(x, size=list(target), mode="bicubic", antialias=True)
        x = x.round().clamp(0, 255)
    return _levels(x / 255)


def darker(frames: Frames) -> Frames:
    """Limited range read as full: black becomes grey, white too."""
    return _levels(torch.from_numpy(frames) / 255.0 * (219 / 255) + 16 / 255)


def other_matrix(frames: Frames) -> Frames:
    """BT.601 read as BT.709, roughly: through 4:4:4 levels."""
    x = torch.from_numpy(frames).float() / 255
    y = 0.299 * x[:, 0] + 0.587 * x[:, 1] + 0.114 * x[:, 2]
    red = y + (x[:, 0] - y) / 0.701 * 0.7874
    blue = y + (x[:, 2] - y) / 0.886 * 0.9278
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return _levels(torch.stack((red, green, blue), dim=1))


def _levels(x: torch.Tensor) -> Frames:
    made: Frames = (x * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return made


WAYS: dict[str, tuple[Way, ...]] = {
    "as they are": (),
    "x264 CRF 18": (encoded("libx264", 18),),
    "x264 CRF 23": (encoded("libx264", 23),),
    "x264 CRF 28": (encoded("libx264", 28),),
    "x265 CRF 23": (encoded("libx265", 23),),
    "x265 CRF 28": (encoded("libx265", 28),),
    "SVT-AV1 CRF 30": (encoded("libsvtav1", 30),),
    "SVT-AV1 CRF 40": (encoded("libsvtav1", 40),),
    "VP9 CRF 30": (encoded("libvpx-vp9", 30),),
    "VP9 CRF 40": (encoded("libvpx-vp9", 40),),
    "x264 CRF 18, then 23": (encoded("libx264", 18), encoded("libx264", 23)),
    "2/3 and back, x264 CRF 23": (smaller, encoded("libx264", 23)),
    "x264 CRF 23, limited range read as full": (encoded("libx264", 23), darker),
    "x264 CRF 23, BT.601 read as BT.709": (encoded("libx264", 23), other_matrix),
}


def clips(root: Path, frames: int) -> Iterator[tuple[str, Frames]]:
    """Low-rate clips, with whole groups and sides that are multiples of 4."""
    videos = sorted(path for path in root.rglob("*") if path.suffix.lower() in _VIDEOS)
    for path in videos:
        with av.open(str(path)) as file:
            decoded = (frame.to_ndarray(format="rgb24") for frame in file.decode(video=0))
            chosen = [x for n, x in zip(range(2 * frames), decoded, strict=False) if n % 2 == 0]
        yield path.stem, _whole(np.stack(chosen).transpose(0, 3, 1, 2))
    if any(root.rglob("*.png")):
        for scene in find_scenes(root):
            yield scene.name, _whole(read_frames(scene.frames[::2][:frames]))


def _whole(clip: npt.NDArray[Any]) -> Frames:
    count, _, height, width = clip.shape
    whole = clip[: count // _GROUP * _GROUP, :, : height // 4 * 4, : width // 4 * 4]
    return np.ascontiguousarray(whole)


def _evidence(clip: Frames) -> list[Evidence]:
    return [mark.read(frame) for frame in clip]


def survival(evidence: list[Evidence]) -> dict[str, float]:
    """Of marked frames: shares of groups whose message was found, of frames placed well, badly."""
    found: dict[str, float] = {}
    for groups in _MORE:
        begins = range(0, max(1, len(evidence) - _GROUP * groups + 1), _GROUP * groups)
        hits = [mark.find(evidence[n : n + _GROUP * groups]) for n in begins]
        right = [hit is not None and hit.message == _MESSAGE for hit in hits]
        found[f"found in {groups}"] = float(np.mean(right))
    places = mark.follow(evidence)
    numbers = [(_FIRST + n) % _MESSAGE.period for n in range(len(evidence))]
    right = [p is not None and p.number == n for p, n in zip(places, numbers, strict=True)]
    found["placed"] = float(np.mean(right))
    found["misplaced"] = float(
        np.mean([p is not None and not well for p, well in zip(places, right, strict=True)])
    )
    return found


def scores(evidence: list[Evidence]) -> list[tuple[float, float]]:
    """Of frames without a mark: likeness, and bits of surprise without those of the hash."""
    made = []
    for groups in _MORE:
        size = _GROUP * groups
        for begin in range(0, len(evidence) - size + 1, size):
            for colours in range(mark.COLOURS):
                message, likeness, surprise = mark.guess(evidence[begin : begin + size], colours)
                if message is not None:
                    raise EvaluationError("a message was found where none was written")
                made.append((likeness, surprise - mark.HASH_BITS))
    return made


def main(
    datapath: Annotated[Path, typer.Option(help="Videos, or folders of PNG frames, in any depth.")],
    frames: Annotated[int, typer.Option(min=4, help="Low-rate frames of each clip.")] = 64,
    ways: Annotated[str, typer.Option(help="Only ways whose names hold this text.")] = "",
    json_path: report.JsonPath = None,
) -> None:
    """Mark each clip, send it all ways, and read it."""
    with report.command("mark"):
        chosen = {name: steps for name, steps in WAYS.items() if ways in name}
        if not chosen:
            raise EvaluationError(f"--ways must be part of one of {', '.join(WAYS)}, got {ways}")
        marked: dict[str, dict[str, Any]] = {}
        plain: list[tuple[float, float]] = []
        psnr: dict[str, float] = {}
        with report.progress_bar() as progress:
            task = progress.add_task("marking", total=None)
            for name, clip in clips(datapath, frames):
                sent = clip.copy()
                for n in range(0, len(sent), _GROUP):
                    mark.write(sent[n : n + _GROUP], _MESSAGE, _FIRST + n)
                psnr[name] = metrics.clip_psnr(sent, clip)
                for way, steps in chosen.items():
                    arrived, unmarked = sent, clip
                    for step in steps:
                        arrived, unmarked = step(arrived), step(unmarked)
                    marked.setdefault(way, {})[name] = survival(_evidence(arrived))
                    plain += scores(_evidence(unmarked))
                    progress.advance(task)
        if not psnr:
            raise EvaluationError(f"--datapath must hold videos or PNG frames, got {datapath}")
        report.table_console().print(_survival_table(marked), _score_table(plain), psnr)
        if json_path is not None:
            report.write_json(json_path, {"survival": marked, "scores": plain, "psnr": psnr})


def _survival_table(marked: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="marked, % of groups and frames")
    table.add_column("way")
    fields = list(next(iter(next(iter(marked.values())).values())))
    for field in fields:
        table.add_column(field, justify="right")
    for way, rows in marked.items():
        means = [100 * float(np.mean([row[field] for row in rows.values()])) for field in fields]
        table.add_row(way, *(f"{mean:.1f}" for mean in means))
    return table


def _score_table(plain: list[tuple[float, float]]) -> Table:
    likeness, surprise = np.array(plain).T
    table = Table(
        title=f"without a mark: {len(plain)} readings, likeness {likeness.mean():.4f} +- "
        f"{likeness.std():.4f}, at most {likeness.max():.3f}"
    )
    for heading in ("bits of surprise", "seen", "expected"):
        table.add_column(heading, justify="right")
    for bits in range(0, math.ceil(surprise.max()) + 2, 2):
        seen = int((surprise >= bits).sum())
        table.add_row(str(bits), str(seen), f"{len(plain) * 2.0**-bits:.1f}")
    return table


if __name__ == "__main__":
    typer.run(main)
