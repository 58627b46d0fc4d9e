"""What a training run is told: a YAML file, checked against these models before anything starts."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveInt, ValidationError

__all__ = [
    "ConfigError",
    "DataConfig",
    "LossConfig",
    "Stage",
    "TrainingConfig",
    "TransportConfig",
    "load_config",
]

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Ratio = Annotated[Fraction, BeforeValidator(lambda value: Fraction(str(value))), Field(ge=1)]


class ConfigError(ValueError):
    """A training configuration that cannot be used; the message is one sentence."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Where the footage is and how it is varied.

    Attributes:
        videos, stills, validation: folders, relative to the data folder that a run is given.
            Validation holds folders of PNG frames, one per scene, at any depth.
        exclude: names of files that are not trained on.
        halve_from_width: videos at least this wide are halved (area), which removes most of their
            own compression noise.
        stills_share: share of samples that are moving crops over stills.
        cut_share: share of samples with a scene cut somewhere in the group.
        detail_share: share of samples chosen as the one of several candidate crops with most fine
            detail.
        motion_share: share of samples chosen as the liveliest of several candidate crops.
        still_share: share of samples in which nothing moves.
        graphics_share: share of samples that are drawn, see `vs_cvrs.training.graphics`.
        pattern_share: share of samples under checkers, stripes or stipple, or dithered.
        stretch_share: share of samples whose contrast is stretched until parts are clipped.
        reduced_share: share of samples that are reduced, by up to two, as where size is lost too.
    """

    videos: list[Path]
    stills: list[Path]
    validation: list[Path]
    exclude: list[str] = []
    halve_from_width: PositiveInt = 640
    stills_share: Share = 0.25
    cut_share: Share = 0.08
    motion_share: Share = 0.5
    detail_share: Share = 0.0
    still_share: Share = 0.02
    graphics_share: Share = 0.0
    pattern_share: Share = 0.0
    stretch_share: Share = 0.0
    reduced_share: Share = 0.0


class LossConfig(_Strict):
    """Weights and shapes of the losses, see `vs_cvrs.training.losses`.

    Attributes:
        restoration: "charbonnier", or "psnr" for the logarithm of each clip's mean squared error.
        hidden: how many times more the error of a frame counts that no low-rate frame shows. Those
            are the harder ones; left alone they end up further behind than the eye likes.
        steady: weight of how much the error changes from frame to frame (psnr form only): what
            flickers where nothing moves is seen before an error that stays.
        low_rate: weight of the low-rate frames' fidelity.
        low_rate_psnr: dB up to which that fidelity is pushed at full weight (psnr form only);
            it begins at low_rate_psnr_start and rises linearly over the share low_rate_ramp of
            the stage, since frames held close from the start leave nothing to hide motion in.
        low_rate_beyond: share of ``low_rate`` that is added whatever the fidelity, and is all that
            remains above that.
        low_rate_pattern: how many times more a difference counts that repeats from pixel to
            pixel, such as a checkerboard, which is seen before noise of the same energy is (psnr
            form only).
        latent: weight of the latent's recovery through the IMSM and the 8-bit frames.
    """

    restoration: Literal["charbonnier", "psnr"] = "psnr"
    hidden: float = 1.0
    steady: float = 0.0
    low_rate: float = 1.0
    low_rate_psnr: float = 40.0
    low_rate_psnr_start: float = 30.0
    low_rate_ramp: Share = 0.0
    low_rate_beyond: float = 0.05
    low_rate_pattern: float = 0.0
    latent: float = 0.0


class TransportConfig(_Strict):
    """What happens to low-rate frames on their way, see `vs_cvrs.training.transports`.

    Attributes:
        codecs: FFmpeg's names of encoders; none: 8-bit frames arrive as they are.
        presets: of these encoders, drawn alike.
        crf: range of their constant rate factor.
        lossless: share of batches that arrive as they are all the same.
        ten_bits: share of those that arrive as they are whose levels are of 10 bits.
        proxy: share of the other ones that a proxy of an encoder treats instead of an encoder.
        again: share that is encoded a second time.
        plain: share of batches in which the sender hides nothing, so that the receiver learns to
            interpolate what strangers send.
        blind: share of batches in which a receiver that interpolates must do without, so that both
            ends learn to hide before they find that interpolation is easier.
        rate: weight of how many more bits the frames take than the plain ones, as a share; without
            codecs, of bits without loss.
    """

    codecs: list[Literal["libx264", "libx265", "libsvtav1", "libvpx-vp9"]] = []
    presets: list[str] = ["veryfast", "medium"]
    crf: tuple[float, float] = (12.0, 28.0)
    lossless: Share = 0.0
    ten_bits: Share = 0.0
    proxy: Share = 0.0
    again: Share = 0.0
    plain: Share = 0.0
    blind: Share = 0.0
    rate: float = 0.0


class Stage(_Strict):
    """One stretch of training.

    Attributes:
        train: "rescaler" leaves the IMSM out, "imsm" trains nothing else, "joint" trains all;
            "space" trains only what lite-any takes to other sizes, and "time" only the
            rest; "shared" only what its groups take that lose both frames and size; "receiver"
            only what does not change low-rate frames, so that files that are out there gain too.
        steps: optimiser steps.
        batch: clips per step; crop: their height and width; group: low-rate frames in each.
        rate: peak learning rate; final_rate: what the cosine ends at; warmup: steps to the peak.
        ratios: time ratios that batches are drawn from, all alike; named twice: twice as often.
        other_ratios: share of batches with another ratio instead, p/q up to 4 with q up to 5.
        scales: range of space factors that batches are drawn from.
        unscaled, whole: shares of batches at space factor 1 (the range's start), and at a whole
            number in the range; the rest are drawn from all of it.
        max_frames: high-rate frames in a clip; groups are shorter where they would be more.
        vary_group: draw the low-rate frames in a group from 1 to ``group``.
        muon: train kernels within residual blocks by Muon, see `vs_cvrs.training.optimiser`.
        share: before the stage, what lite-any has learned for frames that lose size alone is copied
            to the networks of groups that lose frames too.
        predicted: share of batches whose groups, where lite-any has two ways for them, lose what is
            then predicted; None: all go the usual way.
        precision: "bf16" runs convolutions in bfloat16 (but for tiny, couplings stay in float32),
            or in float32 where the device has no instructions for it.
        transport: how low-rate frames reach the receiver; by default as 8-bit frames without loss.
    """

    train: Literal["rescaler", "imsm", "joint", "space", "time", "shared", "receiver"] = "joint"
    steps: PositiveInt
    batch: PositiveInt = 6
    crop: Annotated[int, Field(ge=16, multiple_of=4)] = 64
    group: PositiveInt = 4
    rate: float = 2e-3
    final_rate: float = 1e-5
    warmup: int = 200
    ratios: list[Ratio] = [Fraction(2)]
    other_ratios: Share = 0.0
    scales: tuple[Ratio, Ratio] = (Fraction(1), Fraction(1))
    unscaled: Share = 0.0
    whole: Share = 0.0
    max_frames: PositiveInt = 64
    vary_group: bool = False
    muon: bool = False
    share: bool = False
    predicted: Share | None = None
    precision: Literal["fp32", "bf16"] = "bf16"
    loss: LossConfig = LossConfig()
    transport: TransportConfig = TransportConfig()


class TrainingConfig(_Strict):
    """A whole run. ``name`` is the name of the weights it makes.

    Attributes:
        cases: time and space factors to validate at.
        crfs: validate through x264 at these, in place of frames without loss.
    """

    name: str
    architecture: str
    options: dict[str, Any]
    data: DataConfig
    stages: Annotated[list[Stage], Field(min_length=1)]
    seed: int = 1
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.999
    cases: list[tuple[Ratio, Ratio]] = [(Fraction(2), Fraction(1))]
    crfs: list[Annotated[float, Field(ge=0.0, le=51.0)]] = []
    validate_every: PositiveInt = 1000
    save_every: PositiveInt = 250

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages together."""
        return sum(stage.steps for stage in self.stages)


def load_config(path: Path, data: Path | None = None) -> TrainingConfig:
    """Read and check a configuration; its data folders come back as absolute paths.

    Args:
        path: the YAML file.
        data: what the configuration's folders are relative to; None for its own folder.

    Raises:
        ConfigError: the file cannot be read, is not YAML, or holds a wrong or unknown setting.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = TrainingConfig.model_validate(raw)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where}: {first['msg']}, got {first['input']!r}") from error
    folders = {
        kind: [((data or path.parent) / folder).resolve() for folder in getattr(config.data, kind)]
        for kind in ("videos", "stills", "validation")
    }
    return config.model_copy(update={"data": config.data.model_copy(update=folders)})
