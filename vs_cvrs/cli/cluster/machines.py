"""Dask's scheduler and workers: for a while, on this machine, or until somebody ends them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dask.system import CPU_COUNT
from distributed import Client, Nanny, Scheduler, SpecCluster

from vs_cvrs.cli.cluster.security import is_loopback, make_certificate, security_of
from vs_cvrs.cli.cluster.where import Where, check_address
from vs_cvrs.cli.running import CliError, say, temporary_folder

__all__ = ["connected", "join", "start"]

_HERE = "127.0.0.1"
_JOIN_SECONDS = 60
_FAILURES = (OSError, TimeoutError, ValueError, RuntimeError)  # of Dask's, where it cannot start


@contextlib.contextmanager
def connected(where: Where) -> Iterator[Client]:
    """A client of the cluster that is meant; one of this machine's own ends with it.

    Raises:
        CliError: nothing answers at the address.
    """
    if where.address is None:
        with (
            temporary_folder() as folder,
            _own_cluster(where.workers or 1, folder) as cluster,
            Client(cluster, set_as_default=False) as client,
        ):
            yield client
        return
    try:
        client = Client(
            where.address,
            security=security_of(where.tls),
            set_as_default=False,
            timeout=10,
            name="vs-cvrs",
        )
    except _FAILURES as error:
        raise CliError(f"no Dask scheduler answers at {where.address}") from error
    with client:
        yield client


def _own_cluster(count: int, folder: Path) -> SpecCluster:
    common = {"protocol": "tcp://", "host": _HERE, "dashboard_address": f"{_HERE}:0"}
    return SpecCluster(
        scheduler={"cls": Scheduler, "options": {**common, "port": 0}},
        workers={
            number: {
                "cls": Nanny,
                "options": common | {"local_directory": str(folder)} | options,
            }
            for number, options in enumerate(worker_options(count, threads=None))
        },
        silence_logs="critical",
        name="vs-cvrs",
    )


def worker_options(count: int | None, threads: int | None) -> list[dict[str, Any]]:
    """What makes each worker of a machine another one: its GPU, its share of the threads.

    Args:
        count: how many; None: one for each GPU, or for each memory domain of the CPUs.
        threads: that each computes with; None: the machine's, in equal parts.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    domains = _memory_domains()
    count = count or gpus or len(domains)
    share = threads or max(1, int(CPU_COUNT) // count)
    made = []
    for number in range(count):
        env = {"OMP_NUM_THREADS": str(share)}
        if gpus:
            env["CUDA_VISIBLE_DEVICES"] = _visible(number % gpus)
        # Dask's limit counts memory that PyTorch only keeps for its next group.
        made.append({"nthreads": share, "memory_limit": 0, "env": env})
    return made


def _visible(number: int) -> str:
    """A GPU's number for a process of its own, where this one may not see all of them."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[number] if seen else str(number)


def _memory_domains() -> list[str]:
    """The machine's memory domains (NUMA nodes) that have processors; one where it says none."""
    nodes = Path("/sys/devices/system/node")
    found = [
        node.name
        for node in nodes.glob("node*")
        if re.fullmatch(r"node\d+", node.name) and (node / "cpulist").read_text().strip()
    ]
    return found or ["node0"]


def start(port: int, host: str | None, tls: Path | None) -> None:
    """Run a scheduler until somebody ends it. Raises CliError where it may not listen."""
    if tls is None and not is_loopback(host or _HERE):
        raise CliError(
            f"--host {host} is seen by other machines, which needs --tls FOLDER; without it "
            "only this machine is listened to"
        )
    if tls is not None and make_certificate(tls):
        say(
            f"cluster start: {tls} holds a new certificate and its key; copy the folder to each "
            "machine, and to nobody else"
        )
    security = security_of(tls)

    async def serve() -> None:
        options = {
            "host": host or (_HERE if tls is None else None),
            "port": port,
            "protocol": "tcp://" if tls is None else "tls://",
            "dashboard_address": f"{_HERE}:8787",
        }
        place = f"port {port}" if host is None else f"port {port} of {host}"
        try:
            with warnings.catch_warnings():
                # Where the dashboard's port is taken it has another, which is said below.
                warnings.filterwarnings("ignore", r"Port \d+ is already in use", UserWarning)
                scheduler = await Scheduler(security=security, **options)
        except _FAILURES as error:
            raise CliError(f"cannot listen on {place}: {_cause(error)}") from error
        word = "" if tls is None else f" --tls {tls}"
        if tls is not None and host is None and is_loopback(scheduler.address):
            say("cluster start: --host ADDRESS says by which address other machines reach this one")
        say(f"cluster start: listens at {scheduler.address}; Ctrl-C ends it")
        say(f"cluster start: workers:  vs-cvrs cluster join {scheduler.address}{word}")
        say(f"cluster start: jobs:     vs-cvrs encode IN OUT --cluster {scheduler.address}{word}")
        if (dashboard := scheduler.services.get("dashboard")) is not None:
            say(f"cluster start: dashboard: http://{_HERE}:{dashboard.port}/status")
        await scheduler.finished()

    asyncio.run(serve())


def join(
    address: str, workers: int | None, threads: int | None, host: str | None, tls: Path | None
) -> None:
    """Run workers until somebody ends them. Raises CliError where they cannot join."""
    check_address(address, tls)
    if tls is None and not is_loopback(address):
        raise CliError(
            f"{address} is another machine's, which needs --tls FOLDER: the folder that "
            "vs-cvrs cluster start --tls made there"
        )
    security = security_of(tls)

    async def serve(folder: Path) -> None:
        common = {
            "host": host or (_HERE if tls is None else None),
            "security": security,
            "dashboard_address": f"{_HERE}:0",
            "death_timeout": _JOIN_SECONDS,
            # Workers may be killed, and then remove nothing.
            "local_directory": str(folder),
        }
        nannies = [
            Nanny(address, **common, **options) for options in worker_options(workers, threads)
        ]
        try:
            await asyncio.wait_for(asyncio.gather(*nannies), _JOIN_SECONDS)
        except _FAILURES as error:
            raise CliError(f"no scheduler lets us join at {address}: {_cause(error)}") from error
        say(f"cluster join: {len(nannies)} of this machine's workers at {address}; Ctrl-C ends it")
        await asyncio.gather(*(nanny.finished() for nanny in nannies))
        raise CliError(f"the scheduler at {address} has gone")

    with temporary_folder() as folder:
        asyncio.run(serve(folder))


def _cause(error: BaseException) -> str:
    """Why something of Dask's did not start: what its error was raised from says it."""
    # What was given up, or has no words, says less than whoever gave it up.
    while (cause := error.__cause__) and _said(cause):
        error = cause
    return (_said(error) or type(error).__name__).splitlines()[0]


def _said(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return ""
    return (isinstance(error, OSError) and error.strerror) or str(error)
