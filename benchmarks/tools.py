"""wrk and smtp-source, run and read."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.load import Load
from benchmarks.servers import Wrong, wait

SCRIPT = Path(__file__).parent / "signed.lua"
CONNECTIONS = 32
ONCE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Posted:
    """What wrk saw. `sent` counts requests on their way at the end too."""

    answered: int
    sent: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def pace(self) -> float:
        return self.answered / self.seconds


def post(load: Load, url: str, seconds: int) -> Posted:
    """Post the load for so many seconds. Raises Wrong if anything but 200 was answered, or if the load ran out."""
    with _wrk(load, url, seconds) as wrk:
        posted = _read(wrk)
    if posted.sent > len(load.bodies):
        raise Wrong(f"the load of {len(load.bodies)} events ran out in {seconds} s; prepare more")
    return posted


def post_once(load: Load, url: str, done: Callable[[], bool]) -> Posted:
    """Post all of the load, each event once, until `done` says that it has all come. Raises Wrong."""
    with _wrk(load, url, ONCE_SECONDS, ONCE="1") as wrk:
        wait(done, ONCE_SECONDS, "every event posted", pause=0.5)
        time.sleep(0.1)  # until the last answer is out too
        wrk.send_signal(signal.SIGINT)  # it ends, and tells what it saw
        posted = _read(wrk)
    if posted.answered != len(load.bodies):
        raise Wrong(f"{posted.answered} answers to {len(load.bodies)} events")
    return posted


def _wrk(load: Load, url: str, seconds: int, **variables: str) -> "subprocess.Popen[str]":
    command = [machine.find("wrk") or "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s"]
    command += ["-s", str(SCRIPT), url, "--", str(load.requests), str(len(load.bodies))]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **variables})


def _read(wrk: "subprocess.Popen[str]") -> Posted:
    out, error = wrk.communicate()
    if wrk.returncode:
        raise Wrong(f"wrk failed: {out}{error}")
    told = json.loads(out.splitlines()[-1])
    rested = told["answered"] == told["sent"]  # a connection that rests may be closed, and is not broken for that
    if told["refused"] or told["late"] or (told["broken"] and not rested):
        raise Wrong(f"wrk was not answered 200 each time: {told}")
    return Posted(told["answered"], told["sent"], told["seconds"], told["p50_ms"], told["p99_ms"])


def source(port: int, count: int, mail: Path, sessions: int) -> float:
    """Mails a second that smtp-source sends over so many connections it keeps: this one, as lines end in files.

    To another recipient each time, as ours go (-N): else Postfix need not look at an address but once.
    """
    program = machine.find("smtp-source") or "smtp-source"
    command = [program, "-s", str(sessions), "-d", "-F", str(mail), "-N", "-m", str(count)]
    command += ["-f", "b+benchmark@example.com", "-t", "customer@example.com", f"127.0.0.1:{port}"]
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return count / (time.perf_counter() - began)
