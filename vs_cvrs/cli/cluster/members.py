"""The workers of a job: which of them work alike, and so may share it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vs_cvrs.cli.cluster.worker import Report
from vs_cvrs.cli.running import CliError

__all__ = ["Kind", "chosen_kind", "difference", "pinned_kind"]

_BINDING = ("vs-cvrs", "carrier version")
"""Software whose versions must be the same whatever the user says."""


@dataclass(frozen=True)
class Kind:
    """What a job's frames are computed on and in: on one kind they are the same to the last bit."""

    device: str
    precision: str


def chosen_kind(reports: Sequence[Report]) -> Kind:
    """The kind for a job that these workers begin: GPUs before CPUs, then the most common one."""
    kinds = [Kind(report.device, report.precision) for report in reports]
    return max(kinds, key=lambda kind: (kind.device.startswith("cuda"), kinds.count(kind)))


def pinned_kind(record: Path, chosen: Kind, mixed: bool) -> Kind:
    """The kind that the job has been made on so far; the chosen one where it begins.

    Args:
        record: the file in the job's folder that says so.
        chosen: that of the workers now.
        mixed: whether another one is wanted all the same.

    Raises:
        CliError: the workers are of another kind than earlier ones, and that is not wanted.
    """
    if record.exists():
        found = Kind(**json.loads(record.read_text()))
        if found != chosen and not mixed:
            raise CliError(
                f"the job was begun on {found.device} in {found.precision}, and the workers are "
                f"{chosen.device} in {chosen.precision}; --mixed goes on with them, "
                "--overwrite without --resume begins again"
            )
        return found
    record.write_text(json.dumps({"device": chosen.device, "precision": chosen.precision}) + "\n")
    return chosen


def difference(
    report: Report, kind: Kind, software: dict[str, str], mixed: bool
) -> tuple[str, str]:
    """Why a worker is refused, and what the user is to know of one that is taken.

    Args:
        report: the worker's.
        kind: the job's.
        software: this machine's.
        mixed: whether workers of other kinds are wanted.

    Returns:
        Two sentences without the worker's name; both empty for one that is alike.
    """
    if report.problem:
        return report.problem, ""
    unlike = [
        f"{name} {report.software.get(name, 'absent')}, not {version}"
        for name, version in software.items()
        if report.software.get(name) != version
    ]
    binding = [text for text in unlike if text.startswith(_BINDING)]
    if binding:
        return "has " + "; ".join(binding), ""
    if report.device != kind.device:
        unlike.append(f"{report.device}, not {kind.device}")
    if not unlike:
        return "", ""
    said = "has " + "; ".join(unlike)
    if mixed:
        return "", f"{said}: its frames may differ from the others' in the last bit"
    return f"{said}; --mixed takes it all the same", ""
