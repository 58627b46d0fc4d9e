"""What low-rate frames go through in training, against real encoders."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ffmpeg
from places import DATA
from torch import Tensor

from vs_cvrs.training import transports
from vs_cvrs.training.config import TransportConfig
from vs_cvrs.training.transports import Planes

av = pytest.importorskip("av")

CODECS = {"libx264": "medium", "libx265": "medium", "libsvtav1": "8", "libvpx-vp9": "4"}


def moving(frames: int = 6, size: int = 96, clips: int = 1) -> Tensor:
    """Smooth noise that pans: (clips, 3, frames, size, size)."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.rand(clips, 3, size // 4 + 8, size // 4 + 8, generator=generator)
    picture = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)
    picture += 0.02 * torch.randn(picture.shape, generator=generator)
    crops = [picture[..., 2 * t : 2 * t + size, 3 * t : 3 * t + size] for t in range(frames)]
    return torch.stack(crops, dim=2).clamp(0, 1)


def levels(clip: Tensor) -> Planes:
    made = transports.to_planes(clip[0].transpose(0, 1))
    return Planes(*(plane.round().clamp(0, 255) for plane in made))


def psnr(x: Planes, y: Planes) -> float:
    error = sum(float((a - b).square().sum()) for a, b in zip(x, y, strict=True))
    return float(-10 * np.log10(error / sum(p.numel() for p in x) / 255**2))


def test_planes_are_ffmpegs(tmp_path: Path) -> None:
    clip = moving(frames=2)
    raw = (clip[0].transpose(0, 1) * 255).round().to(torch.uint8)
    source, made = tmp_path / "in.rgb", tmp_path / "out.yuv"
    source.write_bytes(raw.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
    ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x96", "-i", source),
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=area+accurate_rnd"),
        *("-pix_fmt", "yuv420p", "-f", "rawvideo", made),
    )
    theirs = np.frombuffer(made.read_bytes(), np.uint8).reshape(2, -1)
    ours = transports.to_planes(raw.float() / 255)
    for plane, start in zip(ours, (0, 96 * 96, 96 * 96 * 5 // 4), strict=True):
        part = theirs[:, start : start + plane[0].numel()].reshape(plane.shape)
        assert np.abs(plane.round().numpy() - part).max() <= 2
    back = transports.from_planes(ours)
    grey = raw.float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1) / 255
    assert (transports.from_planes(transports.to_planes(grey)) - grey).abs().max() < 1e-5
    assert back.shape == (2, 3, 96, 96)


@pytest.mark.parametrize("codec", CODECS)
def test_real_encoders_give_frames_back(codec: str) -> None:
    planes = levels(moving())
    scheduling = os.sched_getscheduler(0)
    scores = []
    for crf in (15, 40):
        made = transports.encode_and_decode(planes, codec, crf, CODECS[codec])
        assert [p.shape for p in made] == [p.shape for p in planes]
        scores.append(psnr(made, planes))
    assert scores[0] > scores[1] + 5
    assert scores[0] > 35
    assert os.sched_getscheduler(0) == scheduling


FOOTAGE = [DATA / "train" / name for name in ("bikes.mp4", "bbb480.mp4", "mdn_rabbit.mp4")]


@pytest.mark.skipif(not all(path.exists() for path in FOOTAGE), reason="no footage")
def test_the_proxy_loses_what_encoders_lose() -> None:
    """To within 1 dB, on average over clips and encoders, at each of five quality settings."""
    clips = []
    for path in FOOTAGE:
        with av.open(str(path)) as container:
            chosen = islice(container.decode(video=0), 40, 48, 2)
            frames = np.stack([frame.to_ndarray(format="rgb24") for frame in chosen])
        part = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        if part.shape[-1] >= 640:
            part = torch.nn.functional.avg_pool2d(part, 2)
        clips.append(levels(part[None, :, :, :160, :192].transpose(1, 2)))
    for crf in (12, 16, 20, 24, 28):
        differences = []
        for planes in clips:
            proxy = psnr(transports.quantise(planes, crf), planes)
            for codec in ("libx264", "libx265"):
                real = transports.encode_and_decode(planes, codec, crf, "medium")
                differences.append(proxy - psnr(real, planes))
        assert abs(np.mean(differences)) < 1.0, (crf, differences)


def test_gradients_are_those_of_the_colour_conversion() -> None:
    clip = moving(clips=2, size=32).requires_grad_()
    way = TransportConfig(codecs=["libx264"], presets=["ultrafast"])
    back = transports.transport(clip, way, 20.0, np.random.default_rng(0))
    assert back.shape == clip.shape
    back.sum().backward()  # type: ignore[no-untyped-call]
    # Grey goes through as it is, so that the sum of all gradients is the number of samples.
    assert clip.grad is not None
    inside = (clip > 0) & (clip < 1)
    assert float(clip.grad[inside].mean()) == pytest.approx(1.0, abs=0.05)


def test_ways_are_drawn_as_configured() -> None:
    clip = moving(size=32)
    sent = (clip * 255).round() / 255

    def error(way: TransportConfig, seed: int = 0) -> float:
        arrived = transports.transport(clip, way, 24.0, np.random.default_rng(seed))
        return float((arrived - sent).square().mean())

    assert error(TransportConfig()) < 1e-12
    assert error(TransportConfig(codecs=["libx264"], lossless=1.0)) < 1e-12
    once = error(TransportConfig(codecs=["libx264"], presets=["medium"], crf=(24, 24)))
    twice = error(TransportConfig(codecs=["libx264"], presets=["medium"], crf=(24, 24), again=1.0))
    proxy = error(TransportConfig(codecs=["libx264"], proxy=1.0))
    assert 1e-5 < once < twice
    assert proxy > 1e-5


def test_bits_rise_with_detail_and_change() -> None:
    clip = moving(size=64)
    still = clip[:, :, :1].expand(-1, -1, 6, -1, -1)
    flicker = still + 0.04 * (-1.0) ** torch.arange(6).view(1, 1, 6, 1, 1) * torch.sign(
        torch.randn(1, 1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    )
    for quantiser in (16, 28):
        costs = [float(transports.bits(x, quantiser)) for x in (still, clip, flicker)]
        assert costs[0] < costs[1]
        assert 1.5 * costs[0] < costs[2]
    assert float(transports.bits(clip, 12)) > float(transports.bits(clip, 28))


def test_lossless_bits_know_what_prediction_saves() -> None:
    torch.manual_seed(0)
    flat = torch.full((1, 3, 4, 32, 32), 0.5)
    ramp = torch.linspace(0.0, 1.0, 32).expand(1, 3, 4, 32, 32)
    noise = torch.rand(1, 3, 1, 32, 32)
    still = noise.expand(-1, -1, 4, -1, -1)
    moving = torch.rand(1, 3, 4, 32, 32)
    hidden = (flat + 2.0 / 255.0 * torch.randn(flat.shape)).requires_grad_()
    assert transports.lossless_bits(flat) < 0.01 * transports.lossless_bits(hidden)
    assert transports.lossless_bits(ramp) < 0.2 * transports.lossless_bits(moving)
    # One frame of four is paid for.
    ratio = transports.lossless_bits(still) / transports.lossless_bits(moving)
    assert 0.2 < float(ratio) < 0.3
    both = torch.cat((flat, moving))
    assert torch.allclose(transports.lossless_bits(both)[1:], transports.lossless_bits(moving))
    transports.lossless_bits(hidden).sum().backward()  # type: ignore[no-untyped-call]
    assert hidden.grad is not None
    assert 0 < hidden.grad.abs().sum() < float("inf")
