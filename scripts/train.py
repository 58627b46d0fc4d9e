#!/usr/bin/env python3
"""Train a model: train.py CONFIG.yaml --data DIR [--resume RUN] [--init WEIGHTS]."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from vs_cvrs.training.config import ConfigError, load_config
from vs_cvrs.training.trainer import Trainer


def main(
    config: Annotated[Path, typer.Argument(help="YAML file, see vs_cvrs/training/configs.")],
    data: Annotated[
        Path | None,
        typer.Option(help="What CONFIG's data folders are relative to; default: its own folder."),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a new run; default: runs/NAME.")
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Folder of a run to go on with.")] = None,
    init: Annotated[Path | None, typer.Option(help="Weights to start from.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that draw clips.")] = 1,
) -> None:
    """Train a model as CONFIG says; an interrupted run goes on with --resume."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        settings = load_config(config, data)
        folder = resume or run or Path("runs") / settings.name
        exists = (folder / "state.pt").exists()
        if resume and not exists:
            raise ConfigError(f"{resume} holds no run to go on with")
        if not resume and exists:
            raise ConfigError(f"{folder} holds a run already; go on with --resume {folder}")
        Trainer(settings, folder, torch.device(device), init, workers).run()
    except (ValueError, OSError, RuntimeError) as error:
        typer.echo(f"train: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
