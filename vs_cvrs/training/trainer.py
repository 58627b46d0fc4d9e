"""The training loop: stages, averaged weights, validation, exact resume."""

from __future__ import annotations

import copy
import functools
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torch.utils.tensorboard import SummaryWriter

from vs_cvrs.checkpoints import checkpoint
from vs_cvrs.evaluation import EvaluationError
from vs_cvrs.evaluation.scenes import Scene, find_scenes
from vs_cvrs.model import build
from vs_cvrs.model.base import CvrsModel
from vs_cvrs.model.light.lite import LiteModel
from vs_cvrs.model.light.lite_any import LiteAnyModel
from vs_cvrs.model.light.resampling import resampled
from vs_cvrs.model.light.robust import RobustModel
from vs_cvrs.model.light.tiny import TinyModel
from vs_cvrs.runtime.devices import fast_bfloat16
from vs_cvrs.training.config import ConfigError, Stage, TrainingConfig
from vs_cvrs.training.data import Batch, ClipDataset, load_footage
from vs_cvrs.training.losses import charbonnier, low_rate_loss, restoration_loss
from vs_cvrs.training.optimiser import Optimiser
from vs_cvrs.training.report import write_report
from vs_cvrs.training.transports import (
    bits,
    lossless_bits,
    straight_through_round,
    transport,
)
from vs_cvrs.training.validation import validate, validate_through_x264

__all__ = ["Trainer"]

_STATE = "state.pt"
_EMA_WARMUP = 10.0
_FEWEST_BITS = 0.02  # a pixel; still clips must not lead
_ALONE = 0.5  # of the batches that hide nothing, where a model interpolates
_CRF_GUESS = 2.0  # how well senders know what will be done to their frames
_TRAVEL = 1  # apart from what the data are drawn with
_NO_BFLOAT16 = (
    "train: this device has no instructions for bfloat16, or PyTorch cannot tell; "
    "stages in bf16 run in float32, which is faster there"
)


def _low_target(high: Tensor, batch: Batch) -> Tensor:
    """What the low-rate frames should look like: the shown frames at the low size (bicubic)."""
    return resampled(high[:, :, batch.shown], *batch.low_size[1:]).clamp(0.0, 1.0)


def compute_losses(
    model: CvrsModel,
    high: Tensor,
    batch: Batch,
    stage: Stage,
    progress: float,
    rng: np.random.Generator,
) -> tuple[Tensor, dict[str, float]]:
    """The stage's loss for one batch, and its parts as plain numbers for the log.

    ``rng`` draws how the low-rate frames travel (`vs_cvrs.training.transports`).
    """
    way = stage.transport
    crf = float(rng.uniform(*way.crf))
    size = (high.shape[2], high.shape[3], high.shape[4])
    target = _low_target(high, batch)
    if model.outlives_loss:
        model.crf = crf + float(rng.normal(0.0, _CRF_GUESS))
    if isinstance(model, LiteAnyModel):
        share = stage.predicted  # the stage before may have had one
        model.predicts = None if share is None else bool(rng.random() < share)
    plain = way.plain > 0 and rng.random() < way.plain
    hidden = model.uses_imsm(size, batch.low_size)
    latent = target if plain else model.downsample(high, batch.low_size)
    if model.clamp_latent:
        latent = latent.clamp(0.0, 1.0)
    if stage.train == "rescaler":
        low, back = latent, straight_through_round(latent)
    else:
        low = model.embed(latent) if hidden and not plain else latent
        sent = transport(low, way, crf, rng)
        back = (model.extract(sent) if hidden else sent).clamp(0.0, 1.0)
    if isinstance(model, RobustModel):
        model.blind = not plain and way.blind > 0 and rng.random() < way.blind
    # Files that hide nothing are interpolated alone; read as if they hid something, as frames are
    # whose hidden motion was lost, they must not come out worse.
    alone = plain and model.interpolates and rng.random() < _ALONE
    restored = model.between(back, size) if alone else model.upsample(back, size)
    restoration = restoration_loss(restored, high, batch.shown, stage.loss)
    fidelity = low_rate_loss(low, target, stage.loss, progress)
    recovery = charbonnier(back, latent) if stage.loss.latent else latent.new_zeros(())
    loss = restoration + stage.loss.latent * recovery
    if not plain:
        loss = loss + fidelity
    if way.rate and not plain:
        taken = functools.partial(bits, quantiser=crf) if way.codecs else lossless_bits
        with torch.no_grad():
            without = taken(target).clamp_min(_FEWEST_BITS)
        loss = loss + way.rate * (taken(low) / without - 1.0).mean()
    with torch.no_grad():
        parts = {
            "loss": float(loss),
            "restored_psnr": _psnr(restored, high),
            "low_psnr": _psnr(low, target),
        }
    return loss, parts


def _psnr(x: Tensor, y: Tensor) -> float:
    return -10.0 * math.log10(float((x.clamp(0, 1) - y).square().mean()) + 1e-10)


class Trainer:
    """A training run in a folder of its own.

    The folder holds ``state.pt`` (everything an exact resume needs), ``NAME.safetensors`` (averaged
    weights of the last validation), ``best.safetensors`` (those of the best one by clip PSNR),
    TensorBoard logs, and at the end ``summary.md`` with ``curves.png``.

    Args:
        config: the run's configuration.
        folder: made when it does not exist; a run found in it is resumed.
        device: where to train.
        init: weights to start from, a checkpoint of the same architecture and options; a lite
            model's for a lite-any model.
        workers: processes that draw clips; what they draw is the same for any number.

    Raises:
        ConfigError: the data cannot be used, or the run in ``folder`` is another one.
    """

    def __init__(
        self,
        config: TrainingConfig,
        folder: Path,
        device: torch.device,
        init: Path | None = None,
        workers: int = 1,
    ) -> None:
        self.config = config
        self.workers = workers
        self.folder = folder
        self.device = device
        self._fast_bfloat16 = fast_bfloat16(device)
        torch.manual_seed(config.seed)
        try:
            self.model = build(config.architecture, config.options).to(device)
        except ValueError as error:
            raise ConfigError(f"{config.name}: {error}") from error
        for stage in config.stages:
            for train, parameters, what in (
                ("space", self.model.space_parameters(), "way to other sizes"),
                ("receiver", self.model.receiver_parameters(), "receiver of its own"),
            ):
                if stage.train == train and not parameters:
                    raise ConfigError(
                        f"{config.name}: a {config.architecture} model has no {what} to train"
                    )
            if stage.share:
                if not isinstance(self.model, LiteAnyModel):
                    raise ConfigError(f"{config.name}: share needs a lite-any model")
                try:
                    copy.deepcopy(self.model).share()
                except ValueError as error:
                    raise ConfigError(f"{config.name}: share: {error}") from error
        if init is not None:
            self._start_from(init)
        self._begin_stage(0, (self.model,))
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.step = 0
        self.seconds = 0.0
        self.best = -math.inf
        self.history: list[dict[str, float]] = []
        self._stop = False
        self._optimiser, self._optimiser_stage = self._new_optimiser(0), 0
        if (folder / _STATE).exists():
            self._restore()
        self.scenes = _validation_scenes(config.data.validation)
        self.footage = load_footage(config.data, folder.parent / "cache")
        folder.mkdir(parents=True, exist_ok=True)

    def _start_from(self, path: Path) -> None:
        try:
            other = checkpoint.load(path).model
            mine = self.model
            if isinstance(other, LiteModel) and isinstance(
                mine, LiteAnyModel | RobustModel | TinyModel
            ):
                mine.start_from(other)
            else:
                self.model.load_state_dict(other.state_dict())
        except (ValueError, RuntimeError) as error:
            raise ConfigError(f"{self.config.name} cannot start from {path}: {error}") from error

    def run(self) -> None:
        """Train to the end, or until SIGINT or SIGTERM; either way the state is saved."""
        data = ClipDataset(
            self.footage, self.config.data, list(self.config.stages), self.config.seed
        )
        loader = DataLoader(
            Subset(data, range(self.step, self.config.steps)),
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4,
            worker_init_fn=_start_worker,
        )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        writer = SummaryWriter(
            str(self.folder / "tensorboard"), purge_step=self.step, flush_secs=20
        )
        with writer, _signals(self._request_stop), Progress(*columns) as progress:
            if not self._fast_bfloat16 and any(s.precision == "bf16" for s in self.config.stages):
                progress.console.print(_NO_BFLOAT16)
            bar = progress.add_task(self.config.name, total=self.config.steps, completed=self.step)
            started = time.perf_counter()
            for batch in loader:
                parts = self._train_step(batch)
                self.step += 1
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                if self.step % 20 == 0:
                    for key, value in parts.items():
                        writer.add_scalar(f"train/{key}", value, self.step)
                    text = "restored {restored_psnr:.1f} dB, low-rate {low_psnr:.1f} dB"
                    progress.update(bar, description=f"{self.config.name}: {text.format(**parts)}")
                progress.update(bar, completed=self.step)
                if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                    scores = self._validate()
                    for key, value in scores.items():
                        writer.add_scalar(f"validation/{key}", value, self.step)
                    progress.console.print(_line(self.step, self.seconds, scores))
                if self._stop or self.step % self.config.save_every == 0:
                    self._save()
                if self._stop:
                    return
        self._save()
        write_report(self.folder, self.config, self.history, self.seconds)

    def _stage(self, step: int) -> tuple[int, int]:
        """(index of the stage that a step belongs to, step at which it began)."""
        begin = 0
        for index, stage in enumerate(self.config.stages):
            if step < begin + stage.steps:
                return index, begin
            begin += stage.steps
        raise ValueError(f"step {step} is past the end of the run")

    def _new_optimiser(self, index: int) -> Optimiser:
        stage = self.config.stages[index]
        imsm = {id(parameter) for parameter in self.model.imsm_parameters()}
        space = {id(parameter) for parameter in self.model.space_parameters()}
        shared = {id(parameter) for parameter in self.model.shared_parameters()}
        receiver = {id(parameter) for parameter in self.model.receiver_parameters()}
        for parameter in self.model.parameters():
            parameter.requires_grad_(
                {
                    "joint": True,
                    "imsm": id(parameter) in imsm,
                    "rescaler": id(parameter) not in imsm,
                    "space": id(parameter) in space,
                    "time": id(parameter) not in space,
                    "shared": id(parameter) in shared,
                    "receiver": id(parameter) in receiver,
                }[stage.train]
            )
        named = self.model.named_parameters()
        return Optimiser(named, stage.rate, self.config.weight_decay, stage.muon)

    def _begin_stage(self, index: int, models: tuple[CvrsModel, ...]) -> None:
        """What a stage does to the weights before it trains them."""
        for model in models:
            if self.config.stages[index].share and isinstance(model, LiteAnyModel):
                model.share()

    def _train_step(self, batch: Batch) -> dict[str, float]:
        index, begin = self._stage(self.step)
        stage = self.config.stages[index]
        if index != self._optimiser_stage:
            self._optimiser, self._optimiser_stage = self._new_optimiser(index), index
            self._begin_stage(index, (self.model, self.average))
        self._optimiser.set_rate(_learning_rate(stage, self.step - begin))
        high = batch.high.to(self.device, non_blocking=True)
        self.model.train()
        in_bfloat16 = stage.precision == "bf16" and self._fast_bfloat16
        with torch.autocast(self.device.type, torch.bfloat16, enabled=in_bfloat16):
            progress = (self.step - begin) / stage.steps
            rng = np.random.default_rng((self.config.seed, self.step, _TRAVEL))
            loss, parts = compute_losses(self.model, high, batch, stage, progress, rng)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        parts["gradient_norm"] = float(norm)
        if math.isfinite(parts["gradient_norm"]):
            self._optimiser.step()
            self._update_average()
        return parts

    @torch.no_grad()
    def _update_average(self) -> None:
        # The first steps are far from anything worth averaging: the window grows with the run.
        decay = min(self.config.ema, (1.0 + self.step) / (_EMA_WARMUP + self.step))
        kept: list[Tensor] = list(self.average.parameters())
        new: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(kept, new, 1.0 - decay)

    def _validate(self) -> dict[str, float]:
        scores = {}
        if self.scenes and self.config.crfs:
            scores = validate_through_x264(self.average, self.scenes, self.config.crfs)
        elif self.scenes:
            scores = validate(self.average, self.scenes, self.config.cases)
        row = {"step": float(self.step), "seconds": self.seconds, **scores}
        self.history.append(row)
        info = {"name": self.config.name, "validation": row, "stages": self._summary()}
        checkpoint.save(self.folder / f"{self.config.name}.safetensors", self.average, info)
        if scores.get("clip_psnr", math.inf) > self.best:
            self.best = scores.get("clip_psnr", -math.inf)
            checkpoint.save(self.folder / "best.safetensors", self.average, info)
        return scores

    def _summary(self) -> list[dict[str, Any]]:
        return [stage.model_dump(mode="json") for stage in self.config.stages]

    def _request_stop(self, *_: object) -> None:
        self._stop = True

    def _save(self) -> None:
        state = {
            "config": self.config.model_dump_json(exclude={"data"}),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "optimiser_stage": self._optimiser_stage,
            "step": self.step,
            "seconds": self.seconds,
            "best": self.best,
            "history": self.history,
        }
        partial = self.folder / f"{_STATE}.part"
        torch.save(state, partial)
        partial.replace(self.folder / _STATE)

    def _restore(self) -> None:
        path = self.folder / _STATE
        state = torch.load(path, map_location=self.device, weights_only=True)
        if state["config"] != self.config.model_dump_json(exclude={"data"}):
            raise ConfigError(
                f"{self.folder} holds a run with another configuration; name another folder, "
                "or start from its weights with --init"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self._optimiser_stage = state["optimiser_stage"]
        self._optimiser = self._new_optimiser(self._optimiser_stage)
        self._optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.best, self.history = state["best"], state["history"]


def _validation_scenes(folders: Sequence[Path]) -> list[Scene]:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"validation folder {folder} does not exist")
    try:
        return [scene for folder in folders for scene in find_scenes(folder)]
    except EvaluationError as error:
        raise ConfigError(str(error)) from error


def _learning_rate(stage: Stage, step: int) -> float:
    """Linear warm-up, then a cosine to the final rate."""
    if step < stage.warmup:
        return stage.rate * (step + 1) / stage.warmup
    done = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.final_rate + (stage.rate - stage.final_rate) * 0.5 * (1 + math.cos(math.pi * done))


def _start_worker(_: int) -> None:
    # The main process has the cores, and signals sent to the whole group are its to handle.
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def _signals(handler: Any) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        handler()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def _line(step: int, seconds: float, scores: dict[str, float]) -> str:
    figures = "  ".join(f"{key} {value:.3f}" for key, value in scores.items())
    return f"step {step}  {seconds / 3600:.2f} h  {figures}"
