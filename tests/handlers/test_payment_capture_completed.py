"""PAYMENT.CAPTURE.COMPLETED stores a one-off payment."""

from tests.support.event_feeder import EventFeeder
from tests.support.sample_events import sample

EVENT = "PAYMENT.CAPTURE.COMPLETED"
CAPTURE = "5CA31924877811803"


def test_payment_has_every_figure_in_its_own_currency(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT))
    row = feeder.payments()[CAPTURE]
    assert (row.status, row.amount, row.currency, row.subscription_id) == ("completed", 10000, "USD", None)
    assert (row.fee, row.fee_currency) == (398, "USD")
    assert (row.received, row.received_currency, row.exchange_rate) == (8810, "EUR", "0.9175")


def test_one_off_payment_queues_no_mail_and_no_look_up(feeder: EventFeeder) -> None:
    feeder.hear(sample(EVENT), sample(EVENT))
    assert (feeder.states(), feeder.mails(), feeder.questions()) == (["handled"], {}, [])
