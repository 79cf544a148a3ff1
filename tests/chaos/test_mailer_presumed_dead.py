"""A mailer that is seen as dead, and is not: it begins no other mail, and finds its way back."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from handlers import HANDLERS
from pipeline.clock import MovableClock
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.mailer import liveness
from pipeline.mailer.mailer import Mailer
from pipeline.mailer.smtp_connection import DeliveryResult
from pipeline.mailer.smtp_relay import Relay as Way
from pipeline.outbox import store as outbox
from tests.chaos.proxy import Fault, Proxy
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts
from tests.support.servers import Relay, plain

PARKED = {"count": 1, "events": [{"id": "WH-1", "type": "TEST", "reason": "no reason"}]}


class Late(Way):
    """The way to the relay, on which the mailer's sign of life is lost."""

    database_url = ""

    async def send(self, *given: Any, **named: Any) -> DeliveryResult:
        end_presences(self.database_url)
        return await super().send(*given, **named)


def end_presences(database_url: str) -> None:
    """End the connections that hold a presence in this database, as its restart would."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
        connection.execute((held + here).encode())


def mailer_of(pipeline: PipelineUnderTest, relay: Relay) -> Mailer:
    parts = make_parts(
        pipeline.url,
        pipeline.folder,
        pipeline.clock,
        HANDLERS,
        smtp_url=relay.smtp_url,
        operator_email="op@example.com",
    )
    return parts.mailer()


async def test_a_mailer_that_is_taken_for_dead_sends_nothing_more(
    postgres_url: str, data_dir: Path, clock: MovableClock, mailbox: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "CHECK_SECONDS", -1.0)
    pipeline = PipelineUnderTest(postgres_url, data_dir, clock)
    mailer = mailer_of(pipeline, mailbox)
    mailer._relay, Late.database_url = Late(mailbox.smtp_url, connections=1), postgres_url
    pipeline.owe(outbox.NewMail("event_parked", "one", None, PARKED))
    assert await mailer.send_due() == 1
    assert pipeline.mails()["one"].state == "queued"
    assert "lost its claim" in (pipeline.mails()["one"].reason or "")
    mailer._relay = Way(mailbox.smtp_url, connections=1)
    clock.advance(outbox.DELAYS[0])
    assert await mailer.send_due() == 1
    await mailer.close()
    mailer._database.close()
    assert pipeline.mails()["one"].state == "sent"
    assert len(mailbox.wait_for(1)) == 1
    pipeline.database.close()


async def test_a_presence_that_cannot_be_had_again_at_once_is_had_later(
    postgres_url: str, data_dir: Path, clock: MovableClock, mailbox: Relay
) -> None:
    pipeline = PipelineUnderTest(postgres_url, data_dir, clock)
    port = pipeline.database.url.port or 5432
    with Proxy(port) as proxy:
        mailer = mailer_of(pipeline, mailbox)
        mailer._database = Database(postgres_url.replace(f":{port}/", f":{proxy.port}/"))
        assert await mailer.send_due() == 0
        proxy.fault = Fault("cut")
        for _ in range(2):
            with pytest.raises(DatabaseUnavailableError):
                await mailer.send_due()
        proxy.fault = Fault("pass")
        assert await mailer.send_due() == 0
        await mailer.close()
        mailer._database.close()
    pipeline.database.close()
