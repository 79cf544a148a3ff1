"""Run all roles in threads of the test, wait until no work is left, and read the delivered mails."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from time import monotonic, sleep
from typing import Any, cast

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope
from sqlalchemy import func, select
from sqlalchemy.sql import ColumnElement

from pipeline.app import roles
from pipeline.app.container import Container
from pipeline.app.shutdown import StopSignal
from pipeline.clock import Clock
from pipeline.db.engine import Database
from pipeline.db.models import Event, Mail, PaypalLookup, Subscription
from pipeline.inbox.lookup_fetcher import LEASE
from tests.support.servers import Relay
from tests.support.subprocesses import answers, until

Roles = Mapping[str, Container]  # role -> its container


@dataclass(frozen=True, slots=True)
class Post:
    """A relay's URL and its delivered mails."""

    url: str
    mails: Callable[[], list[bytes]]


class Caught(list[bytes]):
    """SMTP handler that keeps every mail and refuses those to `refused@`, like the tests' Postfix."""

    async def handle_RCPT(  # noqa: N802
        self, server: object, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.startswith("refused@"):
            return f"550 5.1.1 <{address}>: unknown"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        self.append(cast(bytes, envelope.original_content))
        return "250 2.0.0 caught"


@contextmanager
def catcher(port: int) -> Iterator[Post]:
    """Run a relay inside this process."""
    caught = Caught()
    controller = Controller(caught, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield Post(f"smtp://127.0.0.1:{port}", lambda: list(caught))
    finally:
        controller.stop()


def postman(mailbox: Relay) -> Post:
    return Post(mailbox.smtp_url, mailbox.mails)


@contextmanager
def running(containers: Roles) -> Iterator[None]:
    """Run each role in a thread until the end of the block. Raises AssertionError if one failed."""
    stop, died = StopSignal(), list[str]()

    def run(role: str, its: Container) -> None:
        try:
            getattr(roles, "run_all" if role == "everything" else f"run_{role}")(its, stop)
        except Exception as error:  # noqa: BLE001 - reported at the end
            died.append(f"{role}: {error!r}")
            stop.set()

    threads = [threading.Thread(target=run, args=each, name=each[0]) for each in containers.items()]
    for thread in threads:
        thread.start()
    try:
        for port in [its.settings.web_port for role, its in containers.items() if role in ("web", "everything")]:
            until(lambda port=port: answers(port), 30, "the web role accepts connections")  # type: ignore[misc]
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        for its in containers.values():
            its.database.close()
    assert died == []
    assert not stop.failed


def work_left(database: Database, now: datetime) -> dict[str, int]:
    """Count the due work by kind, in one query: a look-up becomes an event and an event becomes a mail."""
    conditions: dict[str, ColumnElement[bool]] = {
        # A new event is published at once, so it counts before its due time for the recovery.
        "events": (Event.state == "received") & (Event.attempts == 0) & Event.reason.is_(None)
        | (Event.state == "received") & (Event.due_at <= now),
        "mails": (Mail.state == "sending") | (Mail.state == "queued") & (Mail.due_at <= now),
        # A running look-up has its due time moved by the lease.
        "questions": (PaypalLookup.due_at <= now)
        | (PaypalLookup.due_at <= now + LEASE) & (PaypalLookup.due_at != PaypalLookup.first_due_at),
        "reminders": Subscription.remind_at <= now,
    }
    counts = [select(func.count()).where(each).scalar_subquery().label(what) for what, each in conditions.items()]
    with database.reading() as session:
        found = session.execute(select(*counts)).one()._asdict()
    return {what: count for what, count in found.items() if count}


def _lookups(database: Database) -> list[str]:
    with database.reading() as session:
        return [f"{row.kind} {row.due_at} {row.reason}" for row in session.execute(select(PaypalLookup)).scalars()]


def wait_until_idle(
    database: Database, clock: Clock, seconds: float = 60, pass_time: Callable[[], object] = lambda: None
) -> None:
    """Wait until no work is due. Raises AssertionError with the remaining work. `pass_time` can move a clock."""
    deadline = monotonic() + seconds
    while left := work_left(database, clock.now()):
        assert monotonic() < deadline, f"after {seconds:g} seconds, work is still due: {left} {_lookups(database)}"
        sleep(0.02)
        pass_time()


def letters(post: Post, count: int) -> list[EmailMessage]:
    """Wait for this many mails and return all, parsed. A relay delivers a mail after it has accepted it."""
    until(lambda: len(post.mails()) >= count, 30, f"{count} mails are delivered")
    return [message_from_bytes(data, policy=policy.default) for data in post.mails()]


def text_of(mail: EmailMessage) -> str:
    """Return the plain text part."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


def count_by(items: list[Any]) -> dict[Any, int]:
    return {item: items.count(item) for item in sorted(set(items))}
