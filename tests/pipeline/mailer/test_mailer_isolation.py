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
from tests.support.misbehaving_relay import House, Serve
from tests.support.outbox_fixtures import ADA, TEMPLATES, Make, meet, only, owe, receipt, states
from tests.support.pipeline_under_test import River


async def test_unrenderable_mail_does_not_stop_others(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    meet(river, "I-BEA", email="bea@@example..com")
    meet(river, "I-CYD")
    river.owe(
        NewMail("receipt", "bad:1", "I-ADA", {"payment": "a fact is missing"}),
        NewMail("receipt", "bad:2", "I-ADA", {}),
        receipt(3, "I-BEA"),
        receipt(4, "I-CYD"),
        receipt(5),
        receipt(6),
    )
    mails = river.mails()
    river.set(mails["bad:2"], kind="no_such_mail")
    river.set(mails["receipt:SALE4"], facts=b"broken beyond repair, and long enough")
    river.set(mails["receipt:SALE5"], frozen=b"broken beyond repair, and long enough", recipient=b"the same, as well")
    fake_relay = House()
    with capture_logs() as logs:
        await make(await serve(fake_relay)).send_due()
    found = {key: (row.state, row.reason) for key, row in river.mails().items()}
    assert found.pop("receipt:SALE6") == ("sent", None)
    assert {state for state, _ in found.values()} == {"failed"}
    assert all(reason for _, reason in found.values())
    assert "bea@" not in str(found) + str(logs)
    assert len(fake_relay.received) == 1


async def test_damaged_key_fails_only_its_mail(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    meet(river, "I-BEA")
    river.owe(receipt(1), receipt(2, "I-BEA"))
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "I-BEA"),
        wrapped_key=b"a broken row of a good table",
    )
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    assert {key: row.state for key, row in river.mails().items()} == {
        "receipt:SALE1": "sent",
        "receipt:SALE2": "failed",
    }


async def test_template_error_fails_mail_without_personal_data(
    river: River, serve: Serve, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    meet(river)
    owe(river)

    def fail(*_: object) -> None:
        raise RuntimeError(ADA)

    mailer = make(await serve(House()))
    monkeypatch.setattr(TEMPLATES, "render", fail)
    with capture_logs() as logs:
        await mailer.send_due()
    assert (only(river).state, only(river).reason) == ("failed", "internal error: RuntimeError")
    assert ADA not in str(logs)


async def test_wrong_master_key_fails_no_mail(river: River, serve: Serve, make: Make) -> None:
    """The mailer ends with an error, and the mails stay queued."""
    meet(river)
    owe(river, 2)
    fake_relay, right = House(), river.master
    url = await serve(fake_relay)
    river.master = MasterKey(os.urandom(32))
    with pytest.raises(MasterKeyError, match="restore the right key file"):
        await make(url).send_due()
    assert states(river) == ["queued", "queued"]
    river.master = right
    assert await make(url).send_due() == 2


async def test_unexpected_relay_error_affects_only_one_mail(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river, 3)
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    send, failures = mailer._relay.send, iter([True, False, False])

    async def fail(*arguments: Any, **options: Any) -> Any:
        if next(failures):
            raise RuntimeError(ADA)
        return await send(*arguments, **options)

    mailer._relay.send = fail  # type: ignore[method-assign]
    with capture_logs() as logs:
        await mailer.send_due()
    assert states(river) == ["doubt", "sent", "sent"]
    assert ADA not in str(logs) + str([row.reason for row in river.rows(Mail)])


async def test_mail_waits_until_an_address_is_known(river: River, serve: Serve, make: Make) -> None:
    meet(river, email=None)
    owe(river)
    fake_relay = House()
    mailer = make(await serve(fake_relay))
    await mailer.send_due()
    row = only(river)
    assert (row.state, row.due_at, row.frozen) == ("queued", None, None)
    assert await mailer.send_due() == 0
    assert fake_relay.received == []
    meet(river)
    river.set(row, due_at=river.now)
    await mailer.send_due()
    assert states(river) == ["sent"]


async def test_operator_mail_waits_without_operator_address(river: River, serve: Serve) -> None:
    river.owe(NewMail("event_parked", "event_parked:1", None, TEMPLATES.example("event_parked")))
    sender = Sender("SMT", "billing@example.com", "help@example.com", "example.com", "en_US")
    relay = Relay(await serve(House()), connections=1)
    mailer = Mailer(river.database, river.master, river.clock, TEMPLATES, relay, sender)
    await mailer.send_due()
    await mailer.close()
    assert (only(river).state, only(river).due_at) == ("queued", None)


async def test_queued_mail_of_erased_customer_is_withheld(river: River, serve: Serve, make: Make) -> None:
    meet(river)
    owe(river)
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "I-ADA"), wrapped_key=None, erased_at=river.now
    )
    fake_relay = House()
    await make(await serve(fake_relay)).send_due()
    assert (only(river).state, only(river).reason) == ("withheld", "the customer's data has been erased")
    assert fake_relay.received == []
