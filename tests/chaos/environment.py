"""The servers and the roles of one run, as real processes: restarted when they die, as systemd would, and ended by us.

`Ground` is what all seeds share: PostgreSQL, RabbitMQ, Postfix. A `Stage` is one seed's own: a folder, a database, a
virtual host, proxies before everything, a pretend PayPal that can be asked, and the roles.
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

Column = Literal["right", "embedded"]

ROOT = Path(__file__).parents[2]
WEBHOOK_ID = "8PT597110X687430L"
AGAIN_SECONDS = 0.3  # before a dead role is started anew
# Two of each that may be many: what one leaves behind, or holds on to while frozen, the other may come upon.
ROLES = {
    "right": ("web", "worker-1", "worker-2", "mailer-1", "mailer-2", "scheduler"),
    "embedded": ("run",),
}
# Seconds each way. A relay at some distance keeps the mailers at it for most of the time, so that they are hit at it.
LATENCY = {"relay": 0.015, "database": 0.001}
# File systems of their own, where root may mount some: they can be full. Of one embedded seed, and of all of PostgreSQL.
SMALL_DISK, POSTGRES_DISK = "32m", "640m"
SMALL_WAL = {"max_wal_size": "64MB", "min_wal_size": "32MB"}
LOG_REACHES_BACK = timedelta(hours=3)  # further than any clock is set back


class Ground:
    """The servers, started when first asked for. A context manager."""

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
    """One role in a process of its own, started anew whenever it ends until `stop`."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.folder = name, folder
        self.folder.mkdir()
        self._environment = environment | _movable_clock(folder / "clock")
        self._clock = folder / "clock"
        self.set_clock("+0")
        self.killed = 0
        self.died: list[int] = []  # exit codes, of ends that nobody of us brought about
        self._stopping = False
        self._lock = threading.Lock()
        self._process = self._start()
        self._watcher = threading.Thread(target=self._watch, name=f"watcher of {name}", daemon=True)
        self._watcher.start()

    def kill(self) -> None:
        """kill -9, at once."""
        with self._lock:
            self.killed += self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def set_clock(self, offset: str) -> None:
        """From a second later its clock is so far off, in seconds such as `-3600`; also when it is started anew."""
        written = self._clock.with_suffix(".new")
        written.write_text(f"{offset}\n")
        written.replace(self._clock)

    def begin_to_stop(self) -> None:
        """SIGTERM, once: Python at its end has no handler for it any more."""
        with self._lock:
            self._stopping = True
            self._signal(signal.SIGTERM)

    def stop(self) -> int:
        """Its exit code, after `begin_to_stop`; 0 is an end in good order."""
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
            time.sleep(AGAIN_SECONDS)
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
    """One seed's own. A context manager: the roles run inside `with`."""

    def __init__(self, ground: Ground, column: Column, world: PaypalState) -> None:
        self.ground, self.column, self.world = ground, column, world
        self.folder = Path(tempfile.mkdtemp(prefix="smt-chaos-"))
        self.data = self.folder / "data"
        self.small_disk = False
        self.actors: dict[str, Actor] = {}
        self.proxies: dict[str, Proxy] = {}
        self.unclean: Counter[str] = Counter()  # roles that did not end in good order when asked to
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
        self._vouch()
        self.broker = self._broker()
        web_port = free_port()
        self.url = f"http://127.0.0.1:{self._proxy('web', web_port)}/webhooks/paypal"
        environment = self._environment(database, web_port)
        self._stack.callback(self._end)
        for name in ROLES[self.column]:
            self.actors[name] = Actor(name, self.folder / name, environment)
        until(lambda: _answers(web_port), 30, "the web role answers")

    def actor(self, prefix: str) -> list[Actor]:
        """The roles of that kind."""
        return [actor for name, actor in self.actors.items() if name.partition("-")[0] == prefix]

    def _environment(self, database: str, web_port: int) -> dict[str, str]:
        paypal = self._stack.enter_context(FakePaypalApi(self.world).serve())
        return {
            "PYTHONPATH": str(ROOT),
            "SMT_DATA_DIR": str(self.data),
            "SMT_DATABASE_URL": self._through("database", database),
            "SMT_BROKER_URL": self._through("broker", self.broker),
            "SMT_SMTP_URL": f"smtp://127.0.0.1:{self._proxy('relay', self.ground.postfix.port)}",
            "SMT_RELAY_LOG": str(self.ground.postfix.folder / "mail.log"),
            "SMT_PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
            "SMT_PAYPAL_BASE_URL": paypal,
            "SMT_PAYPAL_CLIENT_ID": "simulator",
            "SMT_PAYPAL_CLIENT_SECRET": "simulator-secret",
            "SMT_WEB_PORT": str(web_port),
        }

    def _through(self, name: str, url: str) -> str:
        """The URL with a proxy's port in it; one without a port is a file, or this process."""
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

    def _vouch(self) -> None:
        """Put the pretend PayPal's certificate where the web role keeps those it has fetched."""
        signer = self.ground.signer
        path = CertificateStore._path(self.data / "certificates", signer.cert_url)
        path.parent.mkdir(mode=0o700)
        path.write_bytes(signer.leaf_pem)

    def _end(self) -> None:
        for actor in self.actors.values():
            actor.thaw()
            actor.begin_to_stop()
        for actor in self.actors.values():
            code = actor.stop()
            if code:
                self.unclean[f"{actor.name} ended with {code}"] += 1


@contextmanager
def _own_disk(folder: Path, size: str | None) -> Iterator[bool]:
    """A new folder; whether it is a small file system of its own, which only root may mount."""
    folder.mkdir(mode=0o700)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)]
    may = size is not None and os.geteuid() == 0
    mounted = may and subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", folder], check=False)


def libfaketime() -> Path | None:
    """The library that moves a process's clock, where it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def _movable_clock(file: Path) -> dict[str, str]:
    """What a process needs so that its clock follows that file. Its pauses are told by another clock, which stays."""
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
    """What libfaketime leaves behind of a process that was killed."""
    for path in Path("/dev/shm").glob(f"*faketime_*_{pid}"):  # noqa: S108 - it is named by the library
        path.unlink(missing_ok=True)


def _begin_log(path: Path) -> None:
    """Empty, as after many seeds it would be long; but it reaches back to what a clock that is late takes for now."""
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
