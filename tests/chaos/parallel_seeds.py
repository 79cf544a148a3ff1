"""Run seeds in parallel worker processes. Each has its own servers, which its seeds use one after the other."""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any

import structlog

from tests.chaos.environment import Column, Ground
from tests.chaos.run import Fire, Result, seed
from tests.support import subprocesses
from tests.support.servers import Missing

Task = tuple[Column, int]
POLL_SECONDS = 5.0  # Interval of checking that a worker process is alive.


def play(tasks: Sequence[Task], fire: Fire, jobs: int, keep: Path | None) -> Iterator[Result]:
    """Yield the result of each seed when it ends. Raises Missing if a server is not installed."""
    context = multiprocessing.get_context("spawn")
    waiting: Queue[Task | None] = context.Queue()
    done: Queue[Result | Missing] = context.Queue()
    for task in [*tasks, *[None] * jobs]:
        waiting.put(task)
    processes = [
        context.Process(target=_run_seeds, args=(number, jobs, fire, keep, waiting, done)) for number in range(jobs)
    ]
    try:
        for process in processes:
            process.start()
        for _ in tasks:
            result = _next(done, processes)
            if isinstance(result, Missing):
                raise result
            yield result
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join()


def _next(done: Any, processes: Sequence[Any]) -> Result | Missing:
    """Wait for the next result. Raises RuntimeError if all worker processes have ended."""
    while True:
        try:
            result: Result | Missing = done.get(timeout=POLL_SECONDS)
            return result
        except Empty:
            if not any(process.is_alive() for process in processes):
                raise RuntimeError("all worker processes ended before all seeds were run") from None


def _run_seeds(number: int, jobs: int, fire: Fire, keep: Path | None, waiting: Any, done: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the context managers clean up.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    subprocesses.PORTS = subprocesses.PORTS[
        number::jobs
    ]  # Each job has its own ports, so no other job takes the port of a stopped server.
    with Ground() as ground:
        while (task := waiting.get()) is not None:
            column, seed_number = task
            try:
                folder = keep / f"{column}-{seed_number}" if keep else None
                done.put(seed(ground, column, seed_number, fire, folder))
            except Missing as reason:
                done.put(reason)
            except Exception as error:  # noqa: BLE001 - reported with its seed, and the other seeds continue
                what = f"the test failed: {type(error).__name__}: {error}"
                done.put(Result(seed_number, column, violations=[what]))
