"""Personal data is only in the mailbox, and never in plain text in a file, in the queue or in the logs.

The tests use canaries: words that occur only in a customer's personal data. They post them, and then search the
database files, the write-ahead log, the messages of the broker, the log lines and all files of the installation.
"""

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
import orjson
import psycopg
import pytest

from handlers import HANDLERS
from pipeline.app.container import Container
from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import MovableClock
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Event, Mail
from pipeline.inbox.event import Event as ReceivedEvent
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.subscription import SimulatedSubscription
from tests.support.broker_fixtures import Wire
from tests.support.pipeline_under_test import PipelineUnderTest, happened, make_parts, sign
from tests.support.running_roles import Post, Roles, catcher, postman, running, work_left
from tests.support.servers import Postgres, Relay, plain
from tests.support.subprocesses import free_port, until

CANARY = SimulatedCustomer(
    "Canarina",
    "Vogelsang",
    "canarina.v@canary.example.com",
    "DE",
    "Kanarienstadt",
    "Zwitscherweg 7",
    "99998",
    "Piep AG",
)
REFUSED = SimulatedCustomer("Canarino", "Vogelhaus", "refused@canary.example.com", "DE")
CUSTOM = "canarina-custom@canary.example.com"
NEEDLES = [
    b"anarin", b"ogelsang", b"ogelhaus", b"canary.example", b"anarienstadt", b"witscherweg", b"KAN4R1", b"Piep AG",
    b"bye from the bird", CANARY.payer_id.encode(), REFUSED.payer_id.encode(),
]  # fmt: skip
IN_BASE64 = [base64.b64encode(CANARY.email.encode()[shift:]).rstrip(b"=")[:-2] for shift in range(3)]


def fail_with_personal_data(event: ReceivedEvent, uow: UnitOfWork) -> None:
    raise ValueError(f"no such customer: {CANARY.email}")


def bodies(clock: MovableClock) -> list[bytes]:
    """Return events that hold personal data, in all known forms and in some unknown ones."""
    events: list[bytes] = []
    for number, person in enumerate((CANARY, REFUSED)):
        simulated = SimulatedSubscription(person, CLOUD, clock.now() - timedelta(hours=3), Random(number))
        simulated.start()
        simulated.refund(next(iter(simulated.sales.values())), simulated.now + timedelta(minutes=1))
        simulated.suspend(simulated.now + timedelta(minutes=5), "bye from the bird")
        simulated.cancel(simulated.now + timedelta(minutes=10), "bye from the bird")
        events += [each.body.replace(person.custom_id.encode(), CUSTOM.encode()) for each in simulated.deliveries]
    payer = {
        "payer_info": {"email": CANARY.email, "first_name": "Canarina", "last_name": "Vogelsang", "payer_id": "X1"}
    }
    agreement = {"id": "I-OLD1", "state": "Active", "payer": payer, "description": "for Canarina", "plan": {}}
    events.append(orjson.dumps(happened("WH-OLD", "BILLING.SUBSCRIPTION.CREATED", resource=agreement)))
    events.append(orjson.dumps(happened("WH-1", "RISK.DISPUTE.CREATED", resource={"buyer": {"name": "Canarina"}})))
    events.append(orjson.dumps(happened("WH-1", "RISK.DISPUTE.CREATED", resource={"buyer": {"name": "Canarino"}})))
    events.append(orjson.dumps(happened("WH-2", "TEST.FAULT", summary=f"{CANARY.email} did it", resource=payer)))
    events.append(b'{"id": "WH-3", "canary": "' + CANARY.email.encode() + b'"')
    events.append(CANARY.email.encode())
    events.append(orjson.dumps({"event_type": CANARY.email, "id": ["Canarina"]}))
    return events


def play(container: Container, roles: Roles, look: Callable[[], None]) -> None:
    """Post each event twice and wait until all work is done. Then call `look` while the roles still run."""
    clock = container.clock
    assert isinstance(clock, MovableClock)
    endpoint = f"http://127.0.0.1:{container.settings.web_port}/webhooks/paypal"
    with running(roles):
        for body in bodies(clock) * 2:
            answer = httpx.post(endpoint, content=body, headers=sign(body), trust_env=False, timeout=30)
            assert answer.status_code == 200
            assert not found_in(answer.content)
            refused = httpx.post(endpoint, content=body + b" ", headers=sign(body), trust_env=False, timeout=30)
            assert (refused.status_code, found_in(refused.content)) == (403, [])
        monitoring = f"http://127.0.0.1:{container.settings.metrics_port}"
        for path in ("/healthz", "/metrics"):
            shown = httpx.get(monitoring + path, trust_env=False, timeout=30)
            assert "unfinished" in shown.text
            assert not found_in(shown.content)
        until(
            lambda: set(work_left(container.database, clock.now())) <= {"events", "questions"},
            60,
            "all events except the failing one are handled",
        )
        clock.advance(timedelta(minutes=2))  # The worker retries the failed event, and the operator gets an alert.
        until(lambda: any(row.kind == "event_parked" for row in mails(container)), 60, "the operator gets an alert")
        until(
            lambda: {row.state for row in mails(container)} <= {"sent", "withheld", "failed"}, 60, "no mail is queued"
        )
        look()


def mails(container: Container) -> list[Mail]:
    with container.database.reading() as session:
        return list(session.query(Mail))


def found_in(haystack: bytes) -> list[bytes]:
    return [needle for needle in [*NEEDLES, *IN_BASE64] if needle in haystack]


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every file below the folder. A running server may delete some of them."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if path.is_file():
                yield str(path), path.read_bytes()


def search(folder: Path) -> dict[str, list[bytes]]:
    """Return each file below the folder that contains a canary, with the canaries found."""
    found = {path: found_in(content) for path, content in contents(folder)}
    assert len(found) > 3
    return {name: needles for name, needles in found.items() if needles}


def assert_canaries_arrived(pipeline: PipelineUnderTest, post: Post) -> None:
    """Check that the canaries were processed. Otherwise an empty search result would prove nothing."""
    states = {row.state for row in pipeline.rows(Event)}
    assert states == {"handled", "ignored", "parked", "received"}
    mails = [row.state for row in pipeline.rows(Mail)]
    assert set(mails) >= {"sent", "failed"}
    until(lambda: len(post.mails()) >= mails.count("sent"), 30, "every sent mail is delivered")
    delivered = b"".join(post.mails())
    assert {b"anarin", b"ogelsang", b"canary.example"} <= set(found_in(delivered))
    failed = [row for row in pipeline.rows(Mail) if row.state == "failed"]
    assert all(row.relay_reply and "5.1.1" in row.relay_reply for row in failed)
    with pipeline.database.transaction() as session:
        key = pipeline.keyring(session).system_key("event:WH-2")
        assert CANARY.email.encode() in key.decrypt("event.body", pipeline.event("WH-2").body or b"")


@contextmanager
def logged(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, str]]:
    output: dict[str, str] = {}
    # The mail catcher stands for the relay, so its log is not part of the product.
    with caplog.at_level(logging.INFO), caplog.at_level(logging.WARNING, logger="mail.log"):
        yield output
    out, err = capfd.readouterr()
    output["log"] = out + err + caplog.text


def settings_of(post: Post, port: int) -> dict[str, Any]:
    monitoring = {"metrics_host": "127.0.0.1", "metrics_port": free_port()}
    return {"smtp_url": post.url, "web_port": port, "operator_email": "operator@example.com", **monitoring}


EVERY_HANDLER = {**HANDLERS, "TEST.FAULT": fail_with_personal_data}


def test_one_process_leaves_no_personal_data_on_disk(
    data_dir: Path, clock: MovableClock, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{data_dir / 'smt-billing.db'}"
    with catcher(free_port()) as post, logged(capfd, caplog) as output:
        container = make_parts(url, data_dir, clock, EVERY_HANDLER, **settings_of(post, free_port()))

        def look() -> None:
            assert (data_dir / "smt-billing.db-wal").stat().st_size > 0
            assert search(data_dir) == {}

        play(container, {"everything": container}, look)
        pipeline = PipelineUnderTest(url, data_dir, clock)
        assert_canaries_arrived(pipeline, post)
        pipeline.database.close()
    assert search(data_dir) == {}
    assert "handler_failed" in output["log"]
    assert "refused" in output["log"]
    assert [line for line in output["log"].splitlines() if found_in(line.encode())] == []


def test_separate_roles_leave_no_personal_data_on_disk(
    empty_broker_url: str,
    mailbox: Relay,
    data_dir: Path,
    clock: MovableClock,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    post, port = postman(mailbox), free_port()
    with Postgres() as server, Wire(empty_broker_url) as wire, logged(capfd, caplog) as output:
        database = Database(server.url)
        migrations.upgrade(database)
        settings = settings_of(post, port) | {"broker_url": wire.carry(empty_broker_url)}
        roles = {
            role: make_parts(server.url, data_dir, clock, EVERY_HANDLER, **settings)
            for role in ("web", "worker", "mailer", "scheduler")
        }

        def look() -> None:
            with psycopg.connect(plain(server.url), autocommit=True) as connection:
                connection.execute("CHECKPOINT")
                assert found_in(dump(connection)) == []

        play(roles["web"], roles, look)
        pipeline = PipelineUnderTest(server.url, data_dir, clock)
        assert_canaries_arrived(pipeline, post)
        pipeline.database.close()
        database.close()
        assert search(server.folder) == {}
        assert b"WH-2" in wire.heard
        assert found_in(wire.heard) == []
    assert search(data_dir.parent) == {}
    assert [line for line in output["log"].splitlines() if found_in(line.encode())] == []


def dump(connection: psycopg.Connection) -> bytes:
    """Return every row of every table as text. In the database files, long values can be compressed."""
    names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert len(names) > 10
    whole = b""
    for (name,) in names:
        with connection.cursor().copy(f'COPY "{name}" TO STDOUT') as copy:
            whole += b"".join(bytes(block) for block in copy)
    assert b"WH-2" in whole
    return whole
