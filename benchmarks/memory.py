"""Memory of all processes of a side: the share of each page that is theirs (PSS), idle and while webhooks come in."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import tools
from benchmarks.context import Bench
from benchmarks.load import Load
from benchmarks.peer import QUEUE, Peer
from benchmarks.rows import Figure, Row
from benchmarks.servers import Sink
from benchmarks.subject import Home
from tests.support.subprocesses import ManagedProcess

PEER = "uvicorn + Celery prefork 2, all their processes"
LOOK_SECONDS = 0.2


def measure(bench: Bench) -> list[Row]:
    """`smt-billing run` is all of it: door, worker, mailer, scheduler, database and queue. The peer's servers are not
    counted."""
    load = bench.load("lives", bench.care.posted)
    taken = bench.rounds({"memory": lambda: ours(bench, load), "memory, peer": lambda: peer(bench, load)})
    rows = []
    for place, when in enumerate(("idle", "under load")):
        one, other = (Figure.of([seen[place] for seen in rounds]) for rounds in taken.values())
        rows.append(Row(f"memory of `smt-billing run`, {when}", PEER, "MiB", one, other, 2, smaller_is_better=True))
    return rows


def ours(bench: Bench, load: Load) -> tuple[float, float]:
    """MiB idle, and the most under load."""
    sink = Sink(bench.folder)
    home = Home(bench.new_folder(), smtp=sink.url)
    home.prepare(load.signer)
    home.close()
    with home.role("run") as processes:
        found = _watch(processes, lambda: tools.post(load, home.url, bench.care.post_seconds))
    sink.stop()
    return found


def peer(bench: Bench, load: Load) -> tuple[float, float]:
    """The same of uvicorn, Celery and its two children."""
    with bench.servers.database() as database:
        bench.servers.empty(QUEUE)
        side = Peer(bench.new_folder(), bench.bins, database=database, broker=bench.servers.rabbitmq.url)
        side.prepare(load.signer)
        with side.web() as web, side.worker() as worker:
            found = _watch([web, worker], lambda: tools.post(load, side.url, bench.care.post_seconds))
        bench.servers.empty(QUEUE)
    return found


def _watch(processes: list[ManagedProcess], work: Callable[[], object]) -> tuple[float, float]:
    time.sleep(3)
    idle, most, ended = _mebibytes(processes), 0.0, threading.Event()

    def look() -> None:
        nonlocal most
        while not ended.wait(LOOK_SECONDS):
            most = max(most, _mebibytes(processes))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        work()
    finally:
        ended.set()
        watching.join()
    return idle, most


def _mebibytes(processes: list[ManagedProcess]) -> float:
    pids = {pid for process in processes for pid in (process.pid, *_below(process.pid))}
    return sum(map(_pss, pids)) / 1024


def _below(pid: int) -> list[int]:
    """Every process below this one."""
    try:
        told = [path.read_text("utf-8") for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return []
    children = [int(child) for text in told for child in text.split()]
    return children + [below for child in children for below in _below(child)]


def _pss(pid: int) -> int:
    """Kibibytes; 0 if it has just ended."""
    try:
        told = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8")
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:"))
