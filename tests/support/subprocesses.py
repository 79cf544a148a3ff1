"""Start programs that are killed when this process ends, even if this process is killed.

Tests and benchmarks use this to run servers and the roles of `smt-billing`. All ports are on loopback.
"""

import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import TypedDict

ROOT = Path(__file__).parents[2]
START_SECONDS = 60  # RabbitMQ needs 10 on a busy machine with two cores.
STOP_SECONDS = 20
# Below the ephemeral ports of the kernel, so no client gets a server's port while the server is down.
PORTS = range(20000, 32000)
_PORTS = cycle(random.sample(PORTS, len(PORTS)))


class Account(TypedDict, total=False):
    """User and groups of a program, as arguments of `subprocess.Popen`. Empty means the current user."""

    user: int
    group: int
    extra_groups: list[int]


class ManagedProcess:
    """A running program. A guard shell kills it when the pipe from this process breaks.

    The program gets only `environment`, PATH and LANG, so a developer's own settings do not reach it.
    """

    def __init__(
        self,
        command: Iterable[str | Path | int],
        folder: Path,
        account: Account | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        words = [str(word) for word in command]
        self.log = folder / f"{Path(words[0]).name}.output"
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                words,
                cwd=folder,
                env=surroundings(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **(account or {}),
            )
        self.pid = self._child.pid
        self._guard = subprocess.Popen(
            ["sh", "-c", 'read -r line || kill -9 "-$0"', str(self.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait_until(self, ready: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        """Wait until the program is ready.

        Raises RuntimeError with the end of its output if it exits first or takes too long.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            if self._child.poll() is not None or time.monotonic() > deadline:
                self.end(kill=True)
                output = self.log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"not ready: {self._child.args!r} ended with {self._child.returncode}\n{output}")
            time.sleep(0.02)

    def wait(self, seconds: float) -> int:
        """Wait until the program ends by itself, and return the exit code. Raises subprocess.TimeoutExpired."""
        self._child.wait(seconds)
        return self.end()

    def end(self, how: signal.Signals = signal.SIGTERM, *, kill: bool = False) -> int:
        """Send the signal, wait, and return the exit code.

        With `kill`, or after STOP_SECONDS, kill the program and all its descendants.
        """
        if not kill and self._child.poll() is None:
            self._child.send_signal(how)
            self._wait()
        if self._child.poll() is None:
            for pid in [self.pid, *_descendants(self.pid)]:
                _kill(pid)
        self._child.wait()
        if self._guard.poll() is None:
            self._guard.communicate(b"released\n")
        return self._child.returncode

    def _wait(self) -> None:
        try:
            self._child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return


def run(
    command: Iterable[str | Path | int],
    folder: Path,
    account: Account | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return its output. Raises RuntimeError with the output if the command fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=folder, env=surroundings(environment), capture_output=True, text=True, check=False, **(account or {})
    )
    if done.returncode:
        raise RuntimeError(f"{words} ended with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done.stdout


def surroundings(more: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment of a managed program: PATH, LANG and `more`. It has no listener on a fixed port."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "SMT_METRICS_HOST": "", **(more or {})}


def account(*names: str) -> Account:
    """Return the first of these users that exists if this process is root, else the current user."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in names if os.geteuid() == 0 else ():
        if entry := known.get(name):
            return Account(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
    return Account()


def free_port() -> int:
    """Return an unused loopback port outside the kernel's ephemeral range. No port is returned twice in a short time."""
    for port in islice(_PORTS, 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise RuntimeError("no free port on loopback")


def answers(port: int, greeting: bytes = b"") -> bool:
    """Return whether the loopback port accepts connections and, if a greeting is sent, answers it."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.sendall(greeting)
            return not greeting or bool(connection.recv(1))
    except OSError:
        return False


def until(happened: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until `happened` returns true. Raises AssertionError with `what` after the timeout."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"did not happen within {seconds:g} seconds: {what}"
        time.sleep(0.02)


def _descendants(pid: int) -> list[int]:
    """Return all descendants of a process from /proc. A session is not enough: PostgreSQL's children have their own."""
    children: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += [int(child) for child in path.read_text().split()]
        except OSError:
            continue
    return children + [below for child in children for below in _descendants(child)]


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def running(code: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Run this code in a new Python process and wait until it prints `ready`. Kill it at the end."""
    command = [sys.executable, "-c", code, *words]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
