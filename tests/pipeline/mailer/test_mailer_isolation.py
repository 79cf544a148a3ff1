"""A mail that cannot be sent does not stop other mails."""

import os
from typing import Any

import pytest
from structlog.testing import capture_logs

from pipeline.crypto.master_key import MasterKey, MasterKeyError
from pipeline.db.models import EncryptionKey, Mail
from pipeline.mailer.mailer import Mailer, Sender
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox.store import NewMail
from tests.support.misbehaving_relay import MisbehavingRelay, Serve
from tests.support.outbox_fixtures import ADA, TEMPLATES, Make, meet, only, owe, receipt, states
from tests.support.pipeline_under_test import PipelineUnderTest


async def test_unrenderable_mail_does_not_stop_others(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    meet(pipeline, "I-BEA", email="bea@@example..com")
    meet(pipeline, "I-CYD")
    pipeline.owe(
        NewMail("receipt", "bad:1", "I-ADA", {"payment": "a fact is missing"}),
        NewMail("receipt", "bad:2", "I-ADA", {}),
        receipt(3, "I-BEA"),
        receipt(4, "I-CYD"),
        receipt(5),
        receipt(6),
    )
    mails = pipeline.mails()
    pipeline.set(mails["bad:2"], kind="no_such_mail")
    pipeline.set(mails["receipt:SALE4"], facts=b"broken beyond repair, and long enough")
    pipeline.set(
        mails["receipt:SALE5"], frozen=b"broken beyond repair, and long enough", recipient=b"the same, as well"
    )
    fake_relay = MisbehavingRelay()
    with capture_logs() as logs:
        await make(await serve(fake_relay)).send_due()
    found = {key: (row.state, row.reason) for key, row in pipeline.mails().items()}
    assert found.pop("receipt:SALE6") == ("sent", None)
    assert {state for state, _ in found.values()} == {"failed"}
    assert all(reason for _, reason in found.values())
    assert "bea@" not in str(found) + str(logs)
    assert len(fake_relay.received) == 1


async def test_damaged_key_fails_only_its_mail(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline)
    meet(pipeline, "I-BEA")
    pipeline.owe(receipt(1), receipt(2, "I-BEA"))
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "I-BEA"),
        wrapped_key=b"a broken row of a good table",
    )
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    assert {key: row.state for key, row in pipeline.mails().items()} == {
        "receipt:SALE1": "sent",
        "receipt:SALE2": "failed",
    }


async def test_template_error_fails_mail_without_personal_data(
    pipeline: PipelineUnderTest, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(pipeline)
    owe(pipeline)

    def fail(*_: object) -> None:
        raise RuntimeError(ADA)

    mailer = make(await serve(MisbehavingRelay()))
    monkeypatch.setattr(TEMPLATES, "render", fail)
    with capture_logs() as logs:
        await mailer.send_due()
    assert (only(pipeline).state, only(pipeline).reason) == ("failed", f"internal error at {__name__}:72")
    assert ADA not in str(logs)


async def test_wrong_master_key_fails_no_mail(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    """The mailer ends with an error, and the mails stay queued."""
    meet(pipeline)
    owe(pipeline, 2)
    fake_relay, right = MisbehavingRelay(), pipeline.master
    url = await serve(fake_relay)
    pipeline.master = MasterKey(os.urandom(32))
    with pytest.raises(MasterKeyError, match="restore the right key file"):
        await make(url).send_due()
    assert states(pipeline) == ["queued", "queued"]
    pipeline.master = right
    assert await make(url).send_due() == 2


async def test_unexpected_relay_error_affects_only_one_mail(
    pipeline: PipelineUnderTest, serve: Serve, make: Make
) -> None:
    meet(pipeline)
    owe(pipeline, 3)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    send, failures = mailer._relay.send, iter([True, False, False])

    async def fail(*arguments: Any, **options: Any) -> Any:
        if next(failures):
            raise RuntimeError(ADA)
        return await send(*arguments, **options)

    mailer._relay.send = fail  # type: ignore[method-assign]
    with capture_logs() as logs:
        await mailer.send_due()
    assert states(pipeline) == ["doubt", "sent", "sent"]
    assert ADA not in str(logs) + str([row.reason for row in pipeline.rows(Mail)])


async def test_mail_waits_until_an_address_is_known(pipeline: PipelineUnderTest, serve: Serve, make: Make) -> None:
    meet(pipeline, email=None)
    owe(pipeline)
    fake_relay = MisbehavingRelay()
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(pipeline)
    assert (row.state, row.due_at, row.frozen) == ("queued", None, None)
    assert await mailer.send_due() == 0
    assert fake_relay.received == []
    meet(pipeline)
    pipeline.set(row, due_at=pipeline.now)
    await mailer.send_due()
    assert states(pipeline) == ["sent"]


async def test_operator_mail_waits_without_operator_address(pipeline: PipelineUnderTest, serve: Serve) -> None:
    pipeline.owe(NewMail("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    sender = Sender("SMT", "billing@example.com", "help@example.com", "example.com", "en_US")
    relay = Relay(await serve(MisbehavingRelay()), connections=1)
    mailer = Mailer(pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, relay, sender)
    await mailer.send_due()
    await mailer.close()
    assert (only(pipeline).state, only(pipeline).due_at) == ("queued", None)


async def test_queued_mail_of_erased_customer_is_withheld(
    pipeline: PipelineUnderTest, serve: Serve, make: Make
) -> None:
    meet(pipeline)
    owe(pipeline)
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "I-ADA"),
        wrapped_key=None,
        erased_at=pipeline.now,
    )
    fake_relay = MisbehavingRelay()
    await make(await serve(fake_relay)).send_due()
    assert (only(pipeline).state, only(pipeline).reason) == ("withheld", "the customer's data has been erased")
    assert fake_relay.received == []
