"""PayPal is asked once about subscribers whose mail waits for an address."""

from datetime import timedelta

from pipeline.db.models import Mail, PaypalLookup
from pipeline.outbox import store as outbox
from pipeline.scheduler.address_lookups import ASKED, request_addresses
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest


def test_mail_that_waits_an_hour_asks_paypal_once(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(
        outbox.NewMail("receipt", "receipt:1", ALICE.subscription, {}, has_address=False),
        outbox.NewMail("receipt", "receipt:2", ALICE.subscription, {}, has_address=False),
    )
    pipeline.clock.advance(timedelta(minutes=59))
    assert request_addresses(pipeline.database, pipeline.clock) == 0
    pipeline.clock.advance(timedelta(minutes=1))
    assert request_addresses(pipeline.database, pipeline.clock) == 2
    [lookup] = pipeline.rows(PaypalLookup)
    assert (lookup.kind, lookup.id, lookup.due_at) == ("subscription", ALICE.subscription, pipeline.now)
    assert {row.reason for row in pipeline.rows(Mail)} == {ASKED}
    assert request_addresses(pipeline.database, pipeline.clock) == 0


def test_mail_that_is_due_asks_nothing(pipeline: PipelineUnderTest) -> None:
    pipeline.owe(outbox.NewMail("receipt", "receipt:1", ALICE.subscription, {}))
    pipeline.clock.advance(timedelta(days=1))
    assert request_addresses(pipeline.database, pipeline.clock) == 0
