"""Jobs on workers, in real processes that are killed, stopped and cut off."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import farm
import pytest
from farm import Farm

pytest.importorskip("distributed")
from vs_cvrs.cli.cluster import machines, runner, security, worker
from vs_cvrs.cli.cluster.where import Where
from vs_cvrs.cli.folder import JobFolder
from vs_cvrs.cli.running import CliError
from vs_cvrs.cli.segments import Segment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
SEGMENT = 12  # three groups


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return commands.video(tmp_path_factory.mktemp("film") / "film.mkv", seconds=8, size="96x72")


@pytest.fixture(scope="module")
def alone(film: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("alone") / "low.mkv"
    commands.run("encode", film, out, "--model", tiny_model, "--segment", SEGMENT, "--no-check")
    return out


@pytest.fixture
def job(film: Path, tiny_model: Path, tmp_path: Path) -> list[object]:
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "low.mkv"
    return ["encode", film, out, "--model", tiny_model, "--segment", SEGMENT, "--no-check"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Farm]:
    """A scheduler without workers."""
    made = Farm(tmp_path)
    yield made
    made.end()


def output(job: list[object]) -> Path:
    return Path(str(job[2]))


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a command said until it ended, which it did in the right way."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == code, said
    assert "Traceback" not in said, said
    return said


def sentence(said: str) -> str:
    """The last line: the error."""
    return said.strip().splitlines()[-1]


def check(job: list[object], alone: Path) -> None:
    """The file is the one that one process makes, and nothing else is left."""
    out = output(job)
    assert out.read_bytes() == alone.read_bytes()
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_three_workers_make_the_same_files(
    job: list[object], alone: Path, tiny_model: Path, tmp_path: Path
) -> None:
    said = ended(commands.start(*job, "--workers", 3))
    assert "dashboard: http://127.0.0.1:" in said
    check(job, alone)
    one, three = tmp_path / "one.mp4", tmp_path / "three.mp4"
    words = ["--model", tiny_model, "--segment", 40]
    commands.run("decode", alone, one, *words)
    ended(commands.start("decode", alone, three, *words, "--workers", 3))
    assert three.read_bytes() == one.read_bytes()


def test_workers_keep_the_times_of_a_variable_rate(tiny_model: Path, tmp_path: Path) -> None:
    phone = tmp_path / "phone.mkv"
    times = ["-vf", "settb=1/1000,setpts='40*N+9*sin(1.7*N)'", "-fps_mode", "passthrough"]
    times += ["-enc_time_base", "1/1000"]
    commands.ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=2", *times, phone)
    words = ["--model", tiny_model, "--segment", 12]
    lows, backs = ([tmp_path / f"{name}{n}.mkv" for n in (1, 2)] for name in ("low", "back"))
    for command, source, (one, two) in (("encode", phone, lows), ("decode", lows[0], backs)):
        commands.run(command, source, one, *words)
        said = ended(commands.start(command, source, two, *words, "--workers", 2))
        assert "at times of their own" in said
        assert two.read_bytes() == one.read_bytes()


def test_a_worker_is_killed_in_a_segment(job: list[object], alone: Path) -> None:
    process = commands.start(*job, "--workers", 3)
    commands.kill(farm.busy_worker(process.pid, 120))
    said = ended(process)
    assert "is lost; others do its part" in said
    check(job, alone)


def test_the_scheduler_is_killed_and_the_job_goes_on_with_another(
    job: list[object], alone: Path, cluster: Farm, tmp_path: Path
) -> None:
    cluster.join()
    process = commands.start(*job, "--cluster", cluster.address)
    commands.wait_for(tmp_path / "out" / "low.mkv.part" / "00000.nut", process, 120)
    cluster.scheduler.kill()
    said = ended(process, 1)
    assert "has gone; --resume goes on when there is a cluster again" in sentence(said)
    ended(commands.start(*job, "--resume", "--workers", 2))
    check(job, alone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_client_ends_and_the_cluster_stays(
    number: signal.Signals, job: list[object], alone: Path, cluster: Farm, tmp_path: Path
) -> None:
    machine = cluster.join("--workers", "2")
    assert farm.listening(cluster.scheduler.pid) <= LOOPBACK
    assert farm.listening(machine.pid) <= LOOPBACK
    process = commands.start(*job, "--cluster", cluster.address)
    commands.wait_for(tmp_path / "out" / "low.mkv.part" / "00000.nut", process, 120)
    begin = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begin < 5
    assert not output(job).exists()
    if number == signal.SIGINT:
        assert process.returncode == 128 + number
        assert sentence(said).endswith("--resume goes on from them."), said
    cluster.join()
    ended(commands.start(*job, "--resume", "--cluster", cluster.address))
    check(job, alone)
    assert all(one.poll() is None for one in cluster.processes)


def test_a_worker_hangs_in_a_segment(job: list[object], alone: Path, tmp_path: Path) -> None:
    env = {**farm.PRELOADED, "CVRS_TEST_HANG": str(tmp_path / "hangs")}
    said = ended(commands.start(*job, "--workers", 2, "--limit", 10, env=env))
    assert (tmp_path / "hangs").exists()
    assert "is lost; others do its part" in said
    check(job, alone)


def test_a_worker_is_stopped(job: list[object], alone: Path) -> None:
    process = commands.start(*job, "--workers", 2, "--limit", 10)
    stopped = farm.busy_worker(process.pid, 120)
    os.kill(stopped, signal.SIGSTOP)
    said = ended(process)
    assert "hangs and is given up; others do its part" in said
    check(job, alone)
    assert not Path(f"/proc/{stopped}").exists()


def test_a_segment_that_no_worker_can_make(tiny_model: Path, tmp_path: Path) -> None:
    """Each of two fails once at the end of a film whose last frames are interlaced."""
    film, parts = tmp_path / "film.mkv", [tmp_path / f"{name}.h264" for name in "ab"]
    x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", 0]
    fields = ["-vf", "setfield=tff", "-flags", "+ildct+ilme"]
    for part, frames, options in zip(parts, (114, 6), ([], fields), strict=True):
        pictures = ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-frames:v", frames]
        commands.ffmpeg(*pictures, *x264, *options, part)
    whole = tmp_path / "film.h264"
    whole.write_bytes(b"".join(part.read_bytes() for part in parts))
    commands.ffmpeg("-r", 25, "-i", whole, "-c", "copy", film)
    words = ["--model", tiny_model, "--segment", SEGMENT, "--no-check", "--workers", 2]
    said = ended(commands.start("encode", film, tmp_path / "low.mkv", *words), 1)
    failures = re.findall(r"worker (\S+ \(\S+\)) (?:failed|is not used)", said)
    assert len(set(failures)) == 2, said
    assert f"{film} is interlaced (frame 114)" in sentence(said)


def test_frames_that_cannot_be_decoded(tiny_model: Path, tmp_path: Path) -> None:
    holed = tmp_path / "holed.mkv"
    missing = commands.holed(holed)
    words = ["--model", tiny_model, "--segment", SEGMENT, "--no-check"]
    one, two = tmp_path / "one.mkv", tmp_path / "two.mkv"
    commands.run("encode", holed, one, *words)
    said = ended(commands.start("encode", holed, two, *words, "--workers", 2))
    assert f"of {holed} cannot be decoded (first: {missing})" in said
    assert two.read_bytes() == one.read_bytes()


def test_workers_that_see_no_shared_folder_and_one_whose_disk_is_full(
    job: list[object], alone: Path, cluster: Farm, tmp_path: Path
) -> None:
    small, temporary, out = tmp_path / "small", tmp_path / "temporary", output(job).parent
    small.mkdir()
    temporary.mkdir()
    hidden = f"mount -t tmpfs tmpfs {out}"
    full = f"mount -t tmpfs -o size=48k tmpfs {small}"
    able = cluster.join(before=commands.apart(hidden), env={"TMPDIR": str(temporary)})
    cluster.join(before=commands.apart(hidden, full), env={"TMPDIR": str(small)})
    said = ended(commands.start(*job, "--cluster", cluster.address))
    assert said.count("its segments are sent") == 2
    assert "cannot write to" in said, said
    assert "No space left on device" in said
    check(job, alone)
    assert list(temporary.glob("**/*.bsindex"))
    able.send_signal(signal.SIGINT)
    able.wait(60)
    assert not list(temporary.iterdir())


def test_a_segment_that_is_cut_off_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, segment = JobFolder(tmp_path / "low.mkv"), Segment(0, 0, 4)
    folder.path.mkdir()
    nothing: Any = None
    work = worker.Work("f" * 32, nothing, nothing, (0, ""), "", tmp_path / "low.mkv", 600)
    job: Any = SimpleNamespace(
        folder=folder.path, output=tmp_path / "low.mkv", segment_file=lambda _: folder.path / "0"
    )
    run = runner._Run(nothing, Where(2), work, job, [segment], print, print)

    def cut(error: BaseException) -> None:
        def write(path: Path, content: bytes) -> int:
            path.open("wb").write(content[:2])
            raise error

        monkeypatch.setattr(Path, "write_bytes", write)
        member = runner._Member("tcp://127.0.0.1:1", "it", 0.0, segment=segment, attempt="1")
        with pytest.raises(type(error)):
            run._collect(member, worker.Made(content=b"1234", size=4))

    cut(OSError(errno.ENOSPC, "No space left on device"))
    assert not list(folder.path.iterdir())
    cut(KeyboardInterrupt())
    assert list(folder.path.iterdir())
    folder.remove()
    assert not folder.path.exists()


def test_an_index_is_there_until_its_job_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "get_worker", lambda: SimpleNamespace(local_directory=tmp_path))
    worker.take_index("first", {"source.0.bsindex": b"1"})
    worker.take_index("second", {"source.0.bsindex": b"2"})
    assert {file.read_bytes() for file in tmp_path.glob("*/*")} == {b"1", b"2"}
    for number in range(40):
        worker.take_index(str(number), {"source.0.bsindex": b"3"})
    assert len(list(tmp_path.iterdir())) == worker._KEPT_INDEXES
    worker._indexes.clear()


def test_workers_that_do_not_fit_are_refused_by_name(
    job: list[object], alone: Path, cluster: Farm, film: Path
) -> None:
    cluster.join(before=commands.apart(f"mount -t tmpfs tmpfs {film.parent}"))
    cluster.join(env={**farm.PRELOADED, "CVRS_TEST_VERSION": "0.0.9"})
    said = ended(commands.start(*job, "--cluster", cluster.address), 1)
    host = os.uname().nodename
    assert sentence(said).startswith(f"vs-cvrs encode: no worker can do it: {host} (127.0.0.1:")
    assert f"does not see {film} (No such file or directory)" in said
    assert "has vs-cvrs 0.0.9, not " in said
    cluster.join()
    said = ended(commands.start(*job, "--resume", "--cluster", cluster.address))
    assert said.count("is not used: it ") == 2
    check(job, alone)


def test_the_shared_folder_vanishes_and_comes_back(
    job: list[object], alone: Path, cluster: Farm, tmp_path: Path
) -> None:
    kept, shared = tmp_path / "kept", output(job).parent
    kept.mkdir()
    mount = ["mount", "--bind", str(kept), str(shared)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    mounted = True
    try:
        cluster.join("--workers", "2")
        process = commands.start(*job, "--cluster", cluster.address)
        commands.wait_for(shared / "low.mkv.part" / "00000.nut", process, 120)
        subprocess.run(["umount", "-l", str(shared)], check=True)
        mounted = False
        said = ended(process, 1)
        assert "low.mkv.part has gone; where it comes back, --resume goes on" in sentence(said)
        subprocess.run(mount, check=True)
        mounted = True
        ended(commands.start(*job, "--resume", "--cluster", cluster.address))
        check(job, alone)
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(shared)], check=True)


@pytest.fixture
def two_machines() -> Iterator[list[list[str]]]:
    """Two network namespaces with a cable between them; what is put before a command in each."""
    names = [f"cvrs-{os.getpid()}-{side}" for side in "ab"]
    cable = [f"cv{os.getpid() % 10**7}{side}" for side in "ab"]

    def ip(*words: str) -> bool:
        done = subprocess.run(["ip", *words], capture_output=True, check=False)
        return done.returncode == 0

    try:
        able = all(ip("netns", "add", name) for name in names)
        able = able and ip("link", "add", cable[0], "type", "veth", "peer", "name", cable[1])
        for number, (name, end) in enumerate(zip(names, cable, strict=True), 1):
            able = able and ip("link", "set", end, "netns", name)
            able = able and ip("-n", name, "addr", "add", f"198.51.100.{number}/24", "dev", end)
            able = able and ip("-n", name, "link", "set", end, "up")
            able = able and ip("-n", name, "link", "set", "lo", "up")
        if not able:
            pytest.skip("needs the right to make network namespaces")
        yield [["ip", "netns", "exec", name] for name in names]
    except FileNotFoundError:
        pytest.skip("needs ip, of iproute2")
    finally:
        if shutil.which("ip"):
            for name in names:
                ip("netns", "del", name)


def test_two_machines_with_a_certificate(
    job: list[object], alone: Path, two_machines: list[list[str]], tmp_path: Path
) -> None:
    here, there = two_machines
    tls, strange = ["--tls", str(tmp_path / "farm")], ["--tls", str(tmp_path / "strange")]
    security.make_certificate(tmp_path / "strange")
    made = Farm(tmp_path, before=here, words=["--host", "198.51.100.1", *tls])
    try:
        assert made.address.startswith("tls://198.51.100.1:")
        assert (tmp_path / "farm" / "key.pem").stat().st_mode & 0o777 == 0o600
        made.join(*tls, before=here)
        made.join(*tls, before=there)
        work = [*there, *commands.COMMAND, *map(str, job), "--cluster", made.address]

        def run(certificate: list[str]) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*work, *certificate], capture_output=True, text=True, timeout=240, check=False
            )

        refused = run(strange)
        assert refused.returncode == 1
        wanted = f"vs-cvrs encode: no Dask scheduler answers at {made.address}"
        assert sentence(refused.stderr).startswith(wanted), refused.stderr
        done = run(tls)
        assert done.returncode == 0, done.stderr
        check(job, alone)
    finally:
        made.end()


def test_memory_of_a_worker_is_flat(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vs_cvrs.cli.cluster import runner

    made = []

    class Kept(runner.Cluster):
        def __call__(self, *arguments: object) -> None:
            made.append(self)
            super().__call__(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "Cluster", Kept)
    film = commands.video(tmp_path / "film.mkv", seconds=55)
    words = ["--model", tiny_model, "--segment", 4, "--workers", 1]
    commands.run("encode", film, tmp_path / "low.mkv", *words)
    ((_, memory),) = made[0].resident.items()
    assert len(memory) > 200
    # The first segments fill what is kept: code, the model, frames of the source.
    assert max(memory[-20:]) < max(memory[30:50]) + 16, memory


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--workers", "2", "--cluster", "tcp://127.0.0.1:1"], "either --workers or --cluster"),
        (["--cluster", "127.0.0.1"], "a cluster's address is like tcp://127.0.0.1:8786"),
        (["--cluster", "tls://127.0.0.1:1"], "needs --tls FOLDER"),
        (["--cluster", "tcp://127.0.0.1:1", "--tls", "x"], "--tls goes with a tls:// address"),
        (["--cluster", "tls://127.0.0.1:1", "--tls", "no"], "there is no no/certificate.pem"),
        (["--cluster", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["--mixed"], "--tls and --mixed go with"),
        (["--workers", "2", "--device", "cuda:1"], "--device is auto, cpu or cuda"),
    ],
)
def test_errors_are_one_sentence(words: list[str], wanted: str, job: list[object]) -> None:
    said = commands.run(*job, *words, code=1).stderr
    assert sentence(said).startswith("vs-cvrs encode: ")
    assert wanted in sentence(said)
    assert not output(job).exists()


def test_other_machines_need_a_certificate() -> None:
    said = commands.run("cluster", "start", "--host", "0.0.0.0", code=1).stderr
    assert "is seen by other machines, which needs --tls FOLDER" in said
    said = commands.run("cluster", "join", "tcp://192.0.2.1:8786", code=1).stderr
    assert "is another machine's, which needs --tls FOLDER" in said


def test_nobody_is_there_to_join() -> None:
    soon = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "4s"}
    said = ended(commands.start("cluster", "join", "tcp://127.0.0.1:1", env=soon), 1)
    wanted = "vs-cvrs cluster join: no scheduler lets us join at tcp://127.0.0.1:1: "
    # On a busy machine the last attempt may find no time for an answer.
    late = "Timed out trying to connect to tcp://127.0.0.1:1 after 4 s"
    assert said in (f"{wanted}Connection refused\n", f"{wanted}{late}\n")


def test_errors_without_words_are_told_by_those_that_have_some() -> None:
    told = OSError("Timed out trying to connect")
    for wordless in (TimeoutError(), asyncio.CancelledError("gone")):
        told.__cause__ = wordless
        assert machines._cause(told) == "Timed out trying to connect"
    told.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert machines._cause(told) == "Connection refused"
    assert machines._cause(TimeoutError()) == "TimeoutError"


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.socket() as dashboard:
        dashboard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            dashboard.bind(("127.0.0.1", 8787))
            dashboard.listen()
        except OSError:
            pass  # somebody else has it: as good
        port = taken.getsockname()[1]
        said = ended(commands.start("cluster", "start", "--port", port), 1)
    wanted = f"vs-cvrs cluster start: cannot listen on port {port}: Address already in use\n"
    assert said == wanted


@pytest.mark.parametrize("damage", ["rubbish", "another"])
def test_a_key_that_is_not_the_certificate_s(damage: str, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    for folder in (mine, other):
        security.make_certificate(folder)
    key = b"rubbish" if damage == "rubbish" else (other / "key.pem").read_bytes()
    (mine / "key.pem").write_bytes(key)
    wanted = f"--tls: {mine / 'key.pem'} is not the key of {mine / 'certificate.pem'}"
    with pytest.raises(CliError, match=f"^{re.escape(wanted)}$"):
        security.security_of(mine)
    security.security_of(other)
