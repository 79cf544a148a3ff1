"""Seeds side by side: lanes are processes, each with servers of its own that its seeds use one after the other."""

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
LOOK_SECONDS = 5.0  # between two looks whether a lane is still there


def play(tasks: Sequence[Task], fire: Fire, lanes: int, keep: Path | None) -> Iterator[Result]:
    """What came of each seed, as it ends. Raises Missing where a server cannot be had."""
    context = multiprocessing.get_context("spawn")
    waiting: Queue[Task | None] = context.Queue()
    done: Queue[Result | Missing] = context.Queue()
    for task in [*tasks, *[None] * lanes]:
        waiting.put(task)
    processes = [
        context.Process(target=_lane, args=(number, lanes, fire, keep, waiting, done)) for number in range(lanes)
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
    """What comes next. Raises RuntimeError if nothing more can come."""
    while True:
        try:
            result: Result | Missing = done.get(timeout=LOOK_SECONDS)
            return result
        except Empty:
            if not any(process.is_alive() for process in processes):
                raise RuntimeError("all lanes have ended, and not all seeds are played") from None


def _lane(number: int, lanes: int, fire: Fire, keep: Path | None, waiting: Any, done: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all is put away
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    subprocesses.PORTS = subprocesses.PORTS[
        number::lanes
    ]  # a port of one lane's server is not taken by another while it is down
    with Ground() as ground:
        while (task := waiting.get()) is not None:
            column, seed_number = task
            try:
                folder = keep / f"{column}-{seed_number}" if keep else None
                done.put(seed(ground, column, seed_number, fire, folder))
            except Missing as reason:
                done.put(reason)
            except Exception as error:  # noqa: BLE001 - it is reported with its seed, and the others go on
                what = f"the test failed: {type(error).__name__}: {error}"
                done.put(Result(seed_number, column, violations=[what]))
