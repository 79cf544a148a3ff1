"""A mailer that is presumed dead sends no further mail and recovers later."""

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
from pipeline.mailer.smtp_relay import Relay as SmtpRelay
from pipeline.outbox import store as outbox
from tests.chaos.proxy import Fault, Proxy
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts
from tests.support.servers import Relay, plain

PARKED = {"count": 1, "events": [{"id": "WH-1", "type": "TEST", "reason": "no reason"}]}


class RelayWithLostLock(SmtpRelay):
    """Relay connection that ends the mailer's liveness lock before it sends."""

    database_url = ""

    async def send(self, *args: Any, **options: Any) -> DeliveryResult:
        end_liveness_locks(self.database_url)
        return await super().send(*args, **options)


def end_liveness_locks(database_url: str) -> None:
    """End the connections that hold an advisory lock in this database, like a restart would."""
    with psycopg.connect(plain(database_url), autocommit=True) as connection:
        here = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        held = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND "
        connection.execute((held + here).encode())


def mailer_of(pipeline: PipelineUnderTest, relay: Relay) -> Mailer:
    container = make_parts(
        pipeline.url,
        pipeline.folder,
        pipeline.clock,
        HANDLERS,
        smtp_url=relay.smtp_url,
        operator_email="op@example.com",
    )
    return container.mailer()


async def test_mailer_that_is_presumed_dead_sends_nothing(
    postgres_url: str, data_dir: Path, clock: MovableClock, mailbox: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "CHECK_SECONDS", -1.0)
    pipeline = PipelineUnderTest(postgres_url, data_dir, clock)
    mailer = mailer_of(pipeline, mailbox)
    mailer._relay, RelayWithLostLock.database_url = RelayWithLostLock(mailbox.smtp_url, connections=1), postgres_url
    pipeline.owe(outbox.NewMail("event_parked", "one", None, PARKED))
    assert await mailer.send_due() == 1
    assert pipeline.mails()["one"].state == "queued"
    assert "lost its claim" in (pipeline.mails()["one"].reason or "")
    mailer._relay = SmtpRelay(mailbox.smtp_url, connections=1)
    clock.advance(outbox.DELAYS[0])
    assert await mailer.send_due() == 1
    await mailer.close()
    mailer._database.close()
    assert pipeline.mails()["one"].state == "sent"
    assert len(mailbox.wait_for(1)) == 1
    pipeline.database.close()


async def test_mailer_gets_its_lock_again_after_database_failure(
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
