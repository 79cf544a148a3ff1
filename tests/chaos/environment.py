"""The servers and roles of a chaos run, as real processes. A role that dies is restarted, like systemd does it.

`Ground` has the servers that all seeds share: PostgreSQL, RabbitMQ and Postfix. A `Stage` belongs to one seed: a folder,
a database, a virtual host, a proxy for each server, a simulated PayPal API, and the roles.
"""

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, Self

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from pipeline.crypto.master_key import MasterKey, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.paypal.certificates import CertificateStore
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.signing import Signer
from pipeline.simulator.world import PaypalState
from tests.chaos.proxy import Proxy
from tests.support.servers import Postfix, Postgres, RabbitMQ, Server, plain
from tests.support.subprocesses import STOP_SECONDS, ManagedProcess, free_port, until
from tests.support.vendor import ENVIRONMENT

Column = Literal["right", "embedded"]

ROOT = Path(__file__).parents[2]
WEBHOOK_ID = "8PT597110X687430L"
RESTART_SECONDS = 0.3  # Delay before a dead role is restarted.
# Two workers and two mailers, so that one can meet the unfinished work or the locks of the other.
ROLES = {
    "right": ("web", "worker-1", "worker-2", "mailer-1", "mailer-2", "scheduler"),
    "embedded": ("run",),
}
# Seconds in each direction. With a slow relay, the mailers are sending most of the time, so faults hit them there.
LATENCY = {"relay": 0.015, "database": 0.001}
# Sizes of separate file systems that can become full, for an embedded seed and for PostgreSQL. Only root can mount them.
SMALL_DISK, POSTGRES_DISK = "32m", "640m"
SMALL_WAL = {"max_wal_size": "64MB", "min_wal_size": "32MB"}
LOG_REACHES_BACK = timedelta(hours=3)  # More than any clock is set back.


class Ground:
    """The shared servers, started when first needed. A context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._signer: Signer | None = None
        self._started: list[Server] = []
        self.folder = Path(tempfile.mkdtemp(prefix="smt-chaos-"))
        self.folder.chmod(0o711)
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.disk = self.folder / "postgres"
        self.small_disk = self._stack.enter_context(_own_disk(self.disk, POSTGRES_DISK))
        self.postgres, self.rabbitmq, self.postfix = Postgres(self.disk, SMALL_WAL), RabbitMQ(), Postfix()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, column: Column) -> None:
        wanted: tuple[Server, ...] = (
            (self.postgres, self.rabbitmq, self.postfix) if column == "right" else (self.postfix,)
        )
        for server in wanted:
            if server not in self._started:
                self._started.append(self._stack.enter_context(server))

    @property
    def signer(self) -> Signer:
        if self._signer is None:
            now = datetime.now(UTC)  # noqa: TID251 - the roles read the machine's clock
            self._signer = Signer(since=now - timedelta(days=1), until=now + timedelta(days=1))
        return self._signer


class Actor:
    """One role in its own process, restarted whenever it ends, until `stop`."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.folder = name, folder
        self.folder.mkdir()
        self._environment = environment | _movable_clock(folder / "clock")
        self._clock = folder / "clock"
        self.set_clock("+0")
        self.killed = 0
        self.died: list[int] = []  # Exit codes of unexpected exits.
        self._stopping = False
        self._lock = threading.Lock()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name=f"watcher of {name}", daemon=True)
        self._watcher.start()

    def kill(self) -> None:
        """Send SIGKILL."""
        with self._lock:
            self.killed += self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def unfreeze(self) -> None:
        self._signal(signal.SIGCONT)

    def set_clock(self, offset: str) -> None:
        """Set the offset of the role's clock in seconds, e.g. `-3600`. It applies after a second and survives restarts."""
        written = self._clock.with_suffix(".new")
        written.write_text(f"{offset}\n")
        written.replace(self._clock)

    def begin_to_stop(self) -> None:
        """Send SIGTERM once. An exiting Python process has no handler for a second one."""
        with self._lock:
            self._stopping = True
            self._signal(signal.SIGTERM)

    def stop(self) -> int:
        """Wait for the end after `begin_to_stop` and return the exit code. 0 means a clean shutdown."""
        with suppress(subprocess.TimeoutExpired):
            self._process._child.wait(STOP_SECONDS)
        code = self._process.end(kill=True)
        self._watcher.join()
        _forget_clock(self._process.pid)
        return code

    @property
    def output(self) -> str:
        return self._process.log.read_text("utf-8", "replace")

    def _start(self) -> ManagedProcess:
        command = [sys.executable, "-m", "pipeline", self.name.partition("-")[0]]
        return ManagedProcess(command, self.folder, environment=self._environment)

    def _watch(self) -> None:
        while True:
            code = self._process._child.wait()
            with self._lock:
                if self._is_stopping():
                    return
                if code != -signal.SIGKILL:
                    self.died.append(code)
            self._process.end(kill=True)
            _forget_clock(self._process.pid)
            time.sleep(RESTART_SECONDS)
            with self._lock:
                if self._is_stopping():
                    return
                self._process = self._start()

    def _is_stopping(self) -> bool:
        return self._stopping

    def _signal(self, number: signal.Signals) -> bool:
        try:
            os.kill(self._process.pid, number)
        except ProcessLookupError:
            return False
        return True


class Stage:
    """The environment of one seed. A context manager: the roles run inside `with`."""

    def __init__(self, ground: Ground, column: Column, world: PaypalState) -> None:
        self.ground, self.column, self.world = ground, column, world
        self.folder = Path(tempfile.mkdtemp(prefix="smt-chaos-"))
        self.data = self.folder / "data"
        self.small_disk = False
        self.actors: dict[str, Actor] = {}
        self.proxies: dict[str, Proxy] = {}
        self.unclean: Counter[str] = Counter()  # Roles that did not shut down cleanly.
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        size = SMALL_DISK if self.column == "embedded" else None
        self.small_disk = self._stack.enter_context(_own_disk(self.data, size))
        self.ground.postfix.clear()
        _begin_log(self.ground.postfix.folder / "mail.log")
        database = self._stack.enter_context(self._database())
        self.database = Database(database)
        self._stack.callback(self.database.close)
        migrations.upgrade(self.database)
        self.master: MasterKey = open_master_key(self.data / "keys" / "master.key")
        self._store_certificate()
        self.broker = self._broker()
        web_port = free_port()
        self.url = f"http://127.0.0.1:{self._proxy('web', web_port)}/webhooks/paypal"
        environment = self._environment(database, web_port)
        self._stack.callback(self._end)
        for name in ROLES[self.column]:
            self.actors[name] = Actor(name, self.folder / name, environment)
        until(lambda: _answers(web_port), 30, "the web role answers")

    def actor(self, prefix: str) -> list[Actor]:
        """Return the roles of that kind."""
        return [actor for name, actor in self.actors.items() if name.partition("-")[0] == prefix]

    def _environment(self, database: str, web_port: int) -> dict[str, str]:
        paypal = self._stack.enter_context(FakePaypalApi(self.world).serve())
        return {
            **ENVIRONMENT,
            "PYTHONPATH": str(ROOT),
            "SMT_DATA_DIR": str(self.data),
            "SMT_DATABASE_URL": self._through("database", database),
            "SMT_BROKER_URL": self._through("broker", self.broker),
            "SMT_SMTP_URL": f"smtp://127.0.0.1:{self._proxy('relay', self.ground.postfix.port)}",
            "SMT_RELAY_LOG": str(self.ground.postfix.folder / "mail.log"),
            "SMT_PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
            "SMT_PAYPAL_BASE_URL": paypal,
            "SMT_PAYPAL_MAX_AHEAD_DAYS": "36500",  # the posted subscriptions begin now
            "SMT_PAYPAL_CLIENT_ID": "simulator",
            "SMT_PAYPAL_CLIENT_SECRET": "simulator-secret",
            "SMT_WEB_PORT": str(web_port),
        }

    def _through(self, name: str, url: str) -> str:
        """Return the URL with a proxy's port. A URL without a port (SQLite, memory) is returned unchanged."""
        port = make_url(url).port
        return url.replace(f":{port}", f":{self._proxy(name, port)}") if port else url

    def _proxy(self, name: str, port: int) -> int:
        self.proxies[name] = self._stack.enter_context(Proxy(port, LATENCY.get(name, 0.0)))
        return self.proxies[name].port

    @contextmanager
    def _database(self) -> Iterator[str]:
        if self.column == "embedded":
            yield f"sqlite:///{self.data / 'smt-billing.db'}"
            return
        server, name = self.ground.postgres, f"chaos_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(plain(server.url), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_url(server.url).set(database=name).render_as_string(hide_password=False)
        with psycopg.connect(plain(server.url), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _broker(self) -> str:
        if self.column == "embedded":
            return "memory://"
        return self._stack.enter_context(self.ground.rabbitmq.vhost(f"chaos-{uuid.uuid4().hex[:12]}"))

    def _store_certificate(self) -> None:
        """Put the simulated PayPal's certificate into the web role's certificate cache."""
        signer = self.ground.signer
        path = CertificateStore._path(self.data / "certificates", signer.cert_url)
        path.parent.mkdir(mode=0o700)
        path.write_bytes(signer.leaf_pem)

    def _end(self) -> None:
        for actor in self.actors.values():
            actor.unfreeze()
            actor.begin_to_stop()
        for actor in self.actors.values():
            code = actor.stop()
            if code:
                self.unclean[f"{actor.name} exited with {code}"] += 1


@contextmanager
def _own_disk(folder: Path, size: str | None) -> Iterator[bool]:
    """Create a folder, as a separate small file system if possible (root only). Yield whether it is one."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    can_mount = size is not None and os.geteuid() == 0
    mounted = can_mount and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=False)


def libfaketime() -> Path | None:
    """Return the library that changes a process's clock, or None if it is not installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _movable_clock(file: Path) -> dict[str, str]:
    """Return the environment that makes a process's clock follow the file. The monotonic clock does not change."""
    if (library := libfaketime()) is None:
        return {}
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def _forget_clock(pid: int) -> None:
    """Delete the shared memory files that libfaketime leaves after a killed process."""
    for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):  # noqa: S108 - it is named by the library
        path.unlink(missing_ok=True)


def _begin_log(path: Path) -> None:
    """Empty the relay's log, which would become long. Its first line is old enough for a role whose clock is set back."""
    begin = datetime.now().astimezone() - LOG_REACHES_BACK  # noqa: TID251
    path.write_text(f"{begin:%b %e %H:%M:%S} relay postfix/postlog: the log begins\n")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
