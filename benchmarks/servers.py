"""The servers both sides share, started when first asked for, and what is looked up in them."""

import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from kombu.connection import Connection
from psycopg import sql
from sqlalchemy.engine import make_url

from benchmarks import machine
from tests.support.servers import Postfix, Postgres, RabbitMQ, plain
from tests.support.subprocesses import ManagedProcess, account, answers, free_port

RELAY = Path(__file__).parents[1] / "deploy" / "postfix" / "main.cf"
# Nothing is delivered: what is measured is how fast mail is accepted.
DISCARDING = {"virtual_mailbox_domains": "", "virtual_mailbox_maps": "", "default_transport": "discard:"}
ELSEWHERE = ("queue_directory", "data_directory", "maillog_file", "inet_interfaces")  # of a Postfix that is private


class Wrong(Exception):
    """Counted after a round, something is not there, or twice: the round's figure means nothing."""


class Servers:
    """PostgreSQL, RabbitMQ and Postfix, private and on loopback. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._stack = folder, ExitStack()

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @cached_property
    def postgres(self) -> Postgres:
        server = self._stack.enter_context(Postgres())
        with self._admin(server) as connection:
            # So that both sides' rows tell when they were committed.
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
            connection.execute("ALTER SYSTEM SET max_wal_size = '4GB'")  # no checkpoint amid a round
        server.restart()
        return server

    @cached_property
    def rabbitmq(self) -> RabbitMQ:
        return self._stack.enter_context(RabbitMQ())

    @cached_property
    def postfix(self) -> "Accepting":
        return self._stack.enter_context(Accepting(settings=as_deployed() | DISCARDING))

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """The URL of a database that exists inside `with`, empty or a copy of the template."""
        name = f"bench_{uuid.uuid4().hex[:12]}"
        with self._admin(self.postgres) as connection:
            copy = sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template else sql.SQL("")
            connection.execute(sql.SQL("CREATE DATABASE {}{}").format(sql.Identifier(name), copy))
            connection.execute("CHECKPOINT")
        try:
            yield make_url(self.postgres.url).set(database=name).render_as_string(hide_password=False)
        finally:
            with self._admin(self.postgres) as connection:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def empty(self, queue: str) -> None:
        """Delete a queue and what is in it."""
        with Connection(self.rabbitmq.url) as connection, suppress(connection.channel_errors):  # type: ignore[no-untyped-call]
            connection.default_channel.queue_delete(queue)

    def waiting_in(self, queue: str) -> int:
        """How many messages wait in a queue."""
        with Connection(self.rabbitmq.url) as connection:  # type: ignore[no-untyped-call]
            return int(connection.default_channel.queue_declare(queue, passive=True).message_count)

    @contextmanager
    def _admin(self, server: Postgres) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(plain(server.url), autocommit=True) as connection:
            yield connection


class Accepting(Postfix):
    """A Postfix that counts what it took."""

    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__(settings=settings)
        self._seen = 0

    def accepted(self, *, alike: bool = False) -> int:
        """How many mails it took since this was asked last. Raises Wrong if it took one twice, unless they are all alike."""
        text = self.log
        end = text.rfind("\n") + 1  # a line that is being written is for the next time
        found = re.findall(r"cleanup\[\d+\]: \S+ message-id=(\S+)", text[self._seen : end])
        self._seen = end
        if len(set(found)) != len(found) and not alike:
            raise Wrong(f"Postfix took {len(found) - len(set(found))} mails twice")
        return len(found)

    def wait_for(self, count: int, seconds: float = 30) -> list[bytes]:
        raise NotImplementedError("it keeps no mails: ask for `accepted`")


def as_deployed() -> dict[str, str]:
    """What the relay of docker-compose.yml is told, but for where it lies and listens."""
    set_there = (line.split(" =", 1) for line in RELAY.read_text().splitlines() if " =" in line and line[0] != "#")
    told = {name: value.strip() for name, value in set_there if name not in ELSEWHERE}
    return {"smtpd_recipient_restrictions": "", **told}


class Sink:
    """smtp-sink: takes every mail and throws it away; `stop` tells how many."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        command = [machine.find("smtp-sink") or "smtp-sink", "-c", f"127.0.0.1:{self.port}", "200"]
        self._process = ManagedProcess(command, folder, account("nobody"))
        self._process.wait_until(lambda: answers(self.port))

    def stop(self) -> int:
        """End it; how many mails it took."""
        self._process.end()
        counted = re.findall(r"mesg=(\d+)", self._process.log.read_text("utf-8", "replace"))
        return int(counted[-1]) if counted else 0


def commits(url: str, table: str, where: str = "true") -> list[float]:
    """When each of these rows was last committed, in seconds since 1970, oldest first."""
    statement = f"SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin)) FROM {table} WHERE {where} ORDER BY 1"
    return [float(row[0]) for row in ask(url, statement)]


def ask(url: str, statement: str) -> list[tuple[Any, ...]]:
    """The rows that a statement finds."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        return connection.execute(statement.encode()).fetchall()


def tell(url: str, statement: str) -> None:
    """Run a statement that finds nothing."""
    with psycopg.connect(plain(url), autocommit=True) as connection:
        connection.execute(statement.encode())


def count(url: str, table: str, where: str = "true") -> int:
    return int(ask(url, f"SELECT count(*) FROM {table} WHERE {where}")[0][0])


def pace(moments: list[float], skip: float = 0.15) -> float:
    """How many a second, without the first of them: programs take a moment to get going."""
    start = moments[int(len(moments) * skip)]
    later = [moment for moment in moments if moment > start]
    if not later:
        raise Wrong("all of it was committed at once: too little to tell a pace from")
    return len(later) / (later[-1] - start)


def wait(done: Callable[[], bool], seconds: float, what: str, pause: float = 0.1) -> None:
    """Wait until it is done, asking again after each pause: what asks costs time as well. Raises Wrong."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Wrong(f"not within {seconds:g} s: {what}")
        time.sleep(pause)


def expect(found: int, wanted: int, what: str) -> None:
    """Raises Wrong if the count is another."""
    if found != wanted:
        raise Wrong(f"{what}: {found}, not {wanted}")


def output_of(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """What a command printed on stdout; its errors are raised with the end of stderr."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
