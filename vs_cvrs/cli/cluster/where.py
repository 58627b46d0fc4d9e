"""Where a job's segments are made, as the user says it."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from vs_cvrs.cli.running import CliError

__all__ = ["LIMIT", "FrameError", "Where", "check_address", "need_dask"]

LIMIT = 600.0
"""Seconds without a new frame after which a worker is given up."""


class FrameError(CliError):
    """Workers cannot make a segment, because VapourSynth cannot make one of its frames."""


@dataclass(frozen=True)
class Where:
    """Which workers make a job's segments.

    Attributes:
        workers: how many processes of this machine; None where ``address`` is given.
        address: of a Dask scheduler, like tcp://127.0.0.1:8786.
        tls: folder of the certificate that all of the cluster's machines have.
        mixed: take workers of other kinds too, whose frames may differ in the last bit.
        limit: seconds without a new frame after which a worker is given up.
    """

    workers: int | None = None
    address: str | None = None
    tls: Path | None = None
    mixed: bool = False
    limit: float = LIMIT

    def check(self, device: str) -> None:
        """Raise CliError for what cannot be."""
        if self.workers is not None and self.address is not None:
            raise CliError("give either --workers or --cluster, not both")
        if device not in ("auto", "cpu", "cuda"):
            raise CliError(
                "with --workers and --cluster, --device is auto, cpu or cuda (each worker has "
                f"its own GPU), got {device}"
            )
        if self.address is None and self.tls is not None:
            raise CliError("--tls goes with --cluster")
        if self.address is not None:
            check_address(self.address, self.tls)
        need_dask("--workers and --cluster")


def check_address(address: str, tls: Path | None) -> None:
    """Raise CliError for an address that is none, or does not go with the certificate or without.

    Args:
        address: of a scheduler.
        tls: folder of the certificate.
    """
    if not re.fullmatch(r"(tcp|tls)://[^/\s]+:\d+", address):
        raise CliError(
            "a cluster's address is like tcp://127.0.0.1:8786 or tls://10.0.0.1:8786, got "
            f"{address}"
        )
    if address.startswith("tls:") and tls is None:
        raise CliError(f"{address} needs --tls FOLDER, which holds the cluster's certificate")
    if address.startswith("tcp:") and tls is not None:
        raise CliError(f"--tls goes with a tls:// address, got {address}")


def need_dask(what: str) -> None:
    """Raise CliError where Dask.distributed is not installed."""
    # Our own words say what goes wrong; the workers have this environment, too.
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")
    # An interrupted run ends at once; Python would count the semaphores that nobody needs any more.
    quiet = "ignore:resource_tracker:UserWarning"
    given = os.environ.get("PYTHONWARNINGS")
    if quiet not in (given or ""):
        os.environ["PYTHONWARNINGS"] = f"{given},{quiet}" if given else quiet
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise CliError(f"{what} need Dask.distributed: pip install 'vs-cvrs[cluster]'") from error
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
