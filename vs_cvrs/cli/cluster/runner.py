"""A job's segments on the workers of a Dask cluster.

Each worker has one segment at a time, and gets the next when it has handed that in; Dask carries
them, watches over the workers and starts them anew. A segment is the same whoever makes it, so one
whose worker is lost is given to another. A worker writes under a name that no other attempt has,
and only this process gives a segment its own name: what an old run's worker still writes is never
taken for this one's.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed import Client, Future
from distributed.comm import CommClosedError

from vs_cvrs.cli.cluster import machines, worker
from vs_cvrs.cli.cluster.members import Kind, chosen_kind, difference, pinned_kind
from vs_cvrs.cli.cluster.where import FrameError, Where
from vs_cvrs.cli.cluster.worker import Made, Report, Work
from vs_cvrs.cli.folder import JobFolder
from vs_cvrs.cli.job import Job
from vs_cvrs.cli.running import CliError, say
from vs_cvrs.cli.segments import Segment

__all__ = ["Cluster"]

_LOOK_SECONDS = 1.0  # between two looks at who is there
_PATIENCE = 120.0  # seconds at least that a job waits for workers: they start, or start anew
_ANSWER = 30.0  # seconds in which a worker says what it is
_TRIES = 3  # of a segment, each by another worker where there is one
_STRIKES = 2  # failures in a row that a worker is allowed
_GRACE = 2  # limits in which a worker that hangs ends itself, before it is given up here


class Cluster:
    """Makes segments on a cluster. A `Runner`.

    Attributes:
        resident: MiB of memory, by worker, after each segment that it made.
    """

    def __init__(
        self, where: Where, index: Path, checksum: str, note: Callable[[str], None]
    ) -> None:
        self._where = where
        self._index = index
        self._checksum = checksum
        self._note = note
        self.resident: dict[str, list[float]] = {}

    def __call__(
        self, job: Job, missing: Sequence[Segment], advance: Callable[[int], None]
    ) -> None:
        if not missing:
            return
        folder = JobFolder(job.output)
        for file in self._index.parent.glob(f"{self._index.name}.*.bsindex"):
            shutil.copyfile(file, folder.path / file.name)
        ticket = uuid.uuid4().hex
        folder.run_file(ticket).touch()
        work = Work(
            ticket=ticket,
            recipe=job.recipe,
            encoding=job.encoding,
            source=worker.describe_source(job.recipe.source),
            checksum=self._checksum,
            output=job.output.resolve(),
            limit=self._where.limit,
        )
        with machines.connected(self._where) as client:
            if client.dashboard_link:
                here = "" if self._where.address is None else ", perhaps only on that machine"
                say(f"dashboard: {client.dashboard_link}{here}")
            run = _Run(client, self._where, work, job, missing, advance, self._note)
            try:
                run.run()
            finally:
                self.resident |= run.resident


@dataclass
class _Member:
    """A worker, as the job sees it."""

    address: str
    name: str
    asked: float
    future: Any = None
    report: Report | None = None
    usable: bool = False
    aside: bool = False
    strikes: int = 0
    segment: Segment | None = None
    attempt: str = ""
    done: int = 0
    heard: float | None = None  # when there was a new frame; None: not begun


class _Run:
    """One run of a job."""

    def __init__(
        self,
        client: Client,
        where: Where,
        work: Work,
        job: Job,
        missing: Sequence[Segment],
        advance: Callable[[int], None],
        note: Callable[[str], None],
    ) -> None:
        self._client = client
        self._where = where
        self._work = work
        self._job = job
        self._todo = deque(missing)
        self._left = len(missing)
        self._advance = advance
        self._note = note
        self._software = worker.software()
        self._members: dict[str, _Member] = {}
        self._kind: Kind | None = None
        self._tries: dict[int, list[str]] = {}
        self._refused: dict[str, str] = {}
        self._lost = 0
        self._attempts = 0
        self._ended: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._idle_since = time.monotonic()
        self.resident: dict[str, list[float]] = {}

    def run(self) -> None:
        """Until no segment is missing. Raises CliError."""
        try:
            self._run()
        except CommClosedError as error:
            raise self._gone() from error

    def _run(self) -> None:
        self._client.subscribe_topic(self._work.ticket, lambda event: self._events.put(event[1]))
        looked = 0.0
        while self._left:
            if time.monotonic() - looked > _LOOK_SECONDS:
                self._look()
                looked = time.monotonic()
            self._hand_out()
            try:
                address, future = self._ended.get(timeout=0.1)
            except queue.Empty:
                pass
            else:
                self._take(address, future)
            self._hear()

    # Who is there

    def _look(self) -> None:
        if self._client.status != "running":
            raise self._gone()
        try:
            info = self._client.sync(
                self._client.scheduler.identity, n_workers=-1, callback_timeout=30
            )
        except (OSError, TimeoutError, AttributeError) as error:
            raise self._gone() from error
        there = info["workers"]
        for address in [address for address in self._members if address not in there]:
            self._lose(self._members.pop(address))
        for address, facts in there.items():
            if address not in self._members:
                self._members[address] = member = _Member(
                    address, str(facts["host"]), asked=time.monotonic()
                )
                self._submit(member, worker.report, self._work)
        self._settle()
        self._give_up_hanging()
        working = [member for member in self._members.values() if member.usable]
        said = f"{len(working)} worker{'' if len(working) == 1 else 's'}"
        if self._lost:
            said += f", {self._lost} lost"
        self._note(said)
        if working:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > max(self._where.limit, _PATIENCE):
            raise CliError(self._why_nobody())

    def _gone(self) -> CliError:
        place = self._where.address or "this machine"
        return CliError(
            f"the scheduler of {place} has gone; --resume goes on when there is a cluster again"
        )

    def _why_nobody(self) -> str:
        if self._refused:
            return "no worker can do it: " + "; ".join(self._refused.values())
        seconds = max(self._where.limit, _PATIENCE)
        return f"no worker has come within {seconds:g} s; --resume goes on"

    def _lose(self, member: _Member) -> None:
        if member.aside or (member.report is not None and not member.usable):
            return
        self._lost += 1
        say(f"warning: worker {member.name} is lost; others do its part")
        self._put_back(member, f"{member.name}: the worker was lost", lost=True)

    def _give_up_hanging(self) -> None:
        for member in self._members.values():
            if member.segment is None or member.heard is None:
                continue
            if time.monotonic() - member.heard > self._where.limit * _GRACE:
                say(f"warning: worker {member.name} hangs and is given up; others do its part")
                member.aside, member.usable = True, False
                self._lost += 1
                self._put_back(member, f"{member.name}: the worker hangs")

    # What they get

    def _hand_out(self) -> None:
        for member in self._members.values():
            if not self._todo:
                return
            if not member.usable or member.future is not None:
                continue
            segment = self._choose(member)
            if segment is None:
                continue
            self._attempts += 1
            member.segment, member.attempt = segment, str(self._attempts)
            member.done, member.heard = 0, None
            self._submit(member, worker.make, self._work, segment, member.attempt)

    def _choose(self, member: _Member) -> Segment | None:
        """The next segment; one that this worker has failed at only if all others have, too."""
        usable = {other.address for other in self._members.values() if other.usable}
        for segment in self._todo:
            failed = self._tries.get(segment.number, [])
            if member.address not in failed or usable <= set(failed):
                self._todo.remove(segment)
                return segment
        return None

    def _submit(self, member: _Member, work: Callable[..., Any], *arguments: Any) -> None:
        address = member.address
        future = self._client.submit(
            work,
            *arguments,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            key=f"vs-cvrs-{work.__name__}-{uuid.uuid4().hex}",
        )
        member.future = future
        future.add_done_callback(lambda future: self._ended.put((address, future)))

    # What they bring

    def _take(self, address: str, future: Future) -> None:
        member = self._members.get(address)
        if member is None or member.future is not future:
            return
        member.future = None
        if future.status == "finished":
            made = future.result()
        else:
            # Not ours: what Dask says of a worker that died, or has no such package.
            error = future.exception() if future.status == "error" else None
            text = f"{type(error).__name__}: {error}" if error is not None else "it was taken back"
            problem = text.splitlines()[0]
            made = Made(problem=problem) if member.usable else Report("", 0, {}, problem=problem)
        if isinstance(made, Report):
            self._judge(member, made)
        elif isinstance(made, Made):
            self._collect(member, made)

    def _judge(self, member: _Member, report: Report) -> None:
        if report.host:
            member.name = f"{report.host} ({member.address.rpartition('://')[2]})"
        member.report = report
        self._settle()

    def _settle(self) -> None:
        """Let those work who have said what they are."""
        if self._kind is None:
            # All who are there from the beginning are heard before it is pinned, if they answer.
            late = time.monotonic() - _ANSWER
            if any(m.report is None and m.asked > late for m in self._members.values()):
                return
            heard = [other.report for other in self._members.values() if other.report]
            able = [report for report in heard if not report.problem]
            if able:
                self._pin(chosen_kind(able))
        for other in self._members.values():
            if other.report is not None and not other.usable and not other.aside:
                self._admit(other, other.report)
        waiting = any(m.usable or m.report is None for m in self._members.values())
        if self._refused and not waiting and not self._lost:
            raise CliError(self._why_nobody())

    def _pin(self, kind: Kind) -> None:
        self._kind = pinned_kind(JobFolder(self._job.output).kind, kind, self._where.mixed)
        recipe = self._work.recipe
        precision = "auto" if self._where.mixed else self._kind.precision
        arguments = recipe.arguments | {"precision": precision}
        self._work = replace(self._work, recipe=replace(recipe, arguments=arguments))

    def _admit(self, member: _Member, report: Report) -> None:
        kind = self._kind or Kind(report.device, report.precision)
        refused, remark = difference(report, kind, self._software, self._where.mixed)
        if refused:
            member.aside = True
            self._refused[member.name] = f"{member.name} {refused}"
            say(f"warning: worker {member.name} is not used: it {refused}")
            return
        if remark:
            say(f"warning: worker {member.name} {remark}")
        member.usable = True
        if not report.sees_folder:
            say(f"worker {member.name} does not see {self._job.folder}: its segments are sent")
            found = JobFolder(self._job.output).index_files()
            files = {file.name: file.read_bytes() for file in found}
            self._submit(member, worker.take_index, self._work.ticket, files)

    def _collect(self, member: _Member, made: Made) -> None:
        segment = member.segment
        if segment is None:
            # It did not take the source's index, and can do nothing without.
            self._set_aside(member, made.problem)
            return
        if made.left or made.problem:
            problem = made.problem or "it was taken back"
            member.strikes += 1
            if member.strikes >= _STRIKES and len(self._members) > 1:
                self._set_aside(member, problem)
            else:
                say(f"warning: worker {member.name} failed at a segment: {problem}")
            self._put_back(member, f"{member.name}: {problem}", no_frame=made.no_frame)
            return
        file = self._job.segment_file(segment)
        partial = self._job.folder / made.name
        if made.content:
            partial = self._job.folder / self._work.partial_name(segment, member.attempt)
            _write(partial, made.content)
        if partial.stat().st_size != made.size:
            partial.unlink(missing_ok=True)
            self._put_back(member, f"{member.name}: its segment came incomplete")
            return
        if made.damaged:
            JobFolder(self._job.output).note_damage(file, made.damaged)
        partial.replace(file)
        member.strikes = 0
        self._advance(segment.frames - member.done)
        member.segment = None
        self._left -= 1
        self.resident.setdefault(member.name, []).append(made.resident)

    def _set_aside(self, member: _Member, problem: str) -> None:
        member.aside, member.usable = True, False
        self._refused[member.name] = f"{member.name}: {problem}"
        say(f"warning: worker {member.name} is not used any more: {problem}")

    def _put_back(
        self, member: _Member, problem: str, lost: bool = False, no_frame: bool = False
    ) -> None:
        """Another worker is to do a member's segment; or the job ends."""
        segment, member.segment = member.segment, None
        if member.future is not None:
            member.future.cancel(force=True)
            member.future = None
        if segment is None:
            return
        self._advance(-member.done)
        failed = self._tries.setdefault(segment.number, [])
        failed.append(member.address)
        if len(failed) >= _TRIES or not (lost or self._anyone(failed)):
            failure = FrameError if no_frame else CliError
            raise failure(f"{problem}; --resume goes on")
        self._todo.appendleft(segment)

    def _anyone(self, failed: list[str]) -> bool:
        """Whether it makes sense to go on: somebody else, or the same worker once more."""
        others = (m for m in self._members.values() if not m.aside)
        return any(failed.count(member.address) < _STRIKES for member in others)

    def _hear(self) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except queue.Empty:
                return
            for member in self._members.values():
                if member.segment is not None and member.attempt == event["attempt"]:
                    self._advance(event["done"] - member.done)
                    member.done = event["done"]
                    member.heard = time.monotonic()


def _write(path: Path, content: bytes) -> None:
    """Write a file, or leave none: it would take room on a disk that is full."""
    try:
        path.write_bytes(content)
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
