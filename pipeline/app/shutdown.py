"""Orderly shutdown: SIGTERM finishes in-flight work, and a role that fails ends the process."""

import signal
import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)


class StopSignal:
    """Set by SIGTERM and SIGINT: the roles finish in-flight work, then end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.failed = False  # whether a role failed; the process then exits with 1

    def set(self) -> None:
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the signal, at most this long. Return whether it is set."""
        return self._event.wait(seconds)

    def install(self) -> None:
        """Set this on SIGTERM and SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())


def start_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Start a daemon thread."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


def supervised_thread(name: str, work: Callable[[], object], stop: StopSignal) -> threading.Thread:
    """Start a thread that ends the whole process if it fails. The supervisor then restarts all roles of the process."""

    def run() -> None:
        try:
            work()
        except Exception:
            log.exception("role_failed", role=name)
            stop.failed = True
            stop.set()

    return start_thread(name, run)


def call_at_stop(stop: StopSignal, callback: Callable[[], object]) -> threading.Thread:
    """Start a thread that calls `callback` when `stop` is set."""

    def run() -> None:
        while not stop.wait(3600):
            pass
        callback()

    return start_thread("stop", run)
