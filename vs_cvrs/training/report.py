"""The one-page summary of a run: curves as PNG and a table in Markdown."""

from __future__ import annotations

from pathlib import Path

from vs_cvrs.training.config import TrainingConfig

__all__ = ["write_report"]

_CURVES = {
    "clip_psnr": "restored, whole clip",
    "even": "restored, even frames",
    "odd": "restored, odd frames",
    "low": "low-rate frames",
}

_BESIDE = ("step", "seconds")


def write_report(
    folder: Path, config: TrainingConfig, history: list[dict[str, float]], seconds: float
) -> None:
    """Write ``curves.png`` and ``summary.md`` into ``folder``.

    Args:
        folder: the run's folder.
        config: its configuration.
        history: one row per validation: ``step``, ``seconds`` and the scores.
        seconds: training time in all.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    scored = [row for row in history if "clip_psnr" in row]
    figure, axis = pyplot.subplots(figsize=(8, 5))
    for key, label in _CURVES.items():
        axis.plot([row["step"] for row in scored], [row[key] for row in scored], label=label)
    axis.set(xlabel="step", ylabel="PSNR (dB)", title=f"{config.name}: validation")
    axis.grid(visible=True, alpha=0.3)
    axis.legend()
    figure.savefig(folder / "curves.png", dpi=100, bbox_inches="tight")
    pyplot.close(figure)

    keys = [key for key in dict.fromkeys(k for row in scored for k in row) if key not in _BESIDE]
    lines = [
        f"# {config.name}",
        "",
        f"{config.architecture}, {config.steps} steps, {seconds / 3600:.2f} hours of training.",
        "",
        "![curves](curves.png)",
        "",
        "| step | hours | " + " | ".join(keys) + " |",
        "|" + "---|" * (len(keys) + 2),
    ]
    for row in scored:
        figures = " | ".join(
            f"{row[key]:.4f}" if key == "ssim" else f"{row[key]:.2f}" for key in keys
        )
        lines.append(f"| {row['step']:.0f} | {row['seconds'] / 3600:.2f} | {figures} |")
    (folder / "summary.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
