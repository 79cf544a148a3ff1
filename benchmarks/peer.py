"""The peers: an environment of their own, their processes, their databases."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.load import WEBHOOK_ID
from benchmarks.servers import output_of
from pipeline.simulator.server.signing import Signer
from tests.support.subprocesses import ManagedProcess, answers, free_port, surroundings

ROOT = Path(__file__).parents[1]
LOCK = Path(__file__).parent / "peers" / "requirements.lock"
QUEUE = "celery"  # Celery's own name for its default queue


def environment(cache: Path, step: Callable[[str], None]) -> Path:
    """The bin folder of the peers' environment; made at first use, and again when the lock changes."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]
    home = cache / f"peers-{version}-{digest}"
    if not (home / "ready").exists():
        step("installing the peers, once")
        for old in cache.glob("peers-*"):
            shutil.rmtree(old)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
        subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
        (home / "ready").touch()
    return home / "bin"


class Peer:
    """One installation of the peers. It sends mail when it is given an SMTP port."""

    def __init__(
        self, folder: Path, bins: Path, *, database: str = "", broker: str = "", smtp_port: int = 0, mails: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self.folder, self._bins, self.port = folder, bins, free_port()
        self._variables = {
            "PEER_DATABASE_URL": database,
            "PEER_BROKER_URL": broker,
            "PEER_SMTP_PORT": str(smtp_port),
            "PEER_CERTIFICATE": str(folder / "paypal.pem"),
            "PEER_WEBHOOK_ID": WEBHOOK_ID,
            "PEER_SENDS_MAIL": "1" if mails else "",
            "PYTHONPATH": str(ROOT),
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/webhooks/paypal"

    def prepare(self, signer: Signer) -> None:
        """PayPal's certificate; and the tables, if there is a database."""
        (self.folder / "paypal.pem").write_bytes(signer.leaf_pem)
        if self._variables["PEER_DATABASE_URL"]:
            self.call("tables")

    def call(self, *words: str) -> dict[str, Any]:
        """Run one job of benchmarks/peers/call.py; what it says."""
        command = [str(self._bins / "python"), "-m", "benchmarks.peers.call", *words]
        found: dict[str, Any] = json.loads(output_of(command, surroundings(self._variables), self.folder))
        return found

    @contextmanager
    def web(self) -> Iterator[ManagedProcess]:
        """uvicorn with uvloop and httptools, one process, as for us; it listens inside `with`."""
        words: list[str | int] = ["--host", "127.0.0.1", "--port", self.port, "--loop", "uvloop", "--http", "httptools"]
        words += ["--timeout-keep-alive", 300]  # the load's connections rest until all is handled
        with self._running("uvicorn", "benchmarks.peers.app:app", *words, "--no-access-log") as process:
            process.wait_until(lambda: answers(self.port))
            yield process

    @contextmanager
    def worker(self) -> Iterator[ManagedProcess]:
        """Celery with two processes that fork, its default kind."""
        words: list[str | int] = ["worker", "--concurrency", 2, "--loglevel", "WARNING"]
        with self._running("celery", "-A", "benchmarks.peers.tasks", *words) as process:
            yield process

    @contextmanager
    def _running(self, program: str, *words: str | int) -> Iterator[ManagedProcess]:
        process = ManagedProcess([self._bins / program, *words], self.folder, None, self._variables)
        try:
            yield process
        finally:
            process.end()
