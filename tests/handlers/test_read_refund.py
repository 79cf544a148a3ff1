"""PayPal's answer about a refund: which sale it is of."""

from tests.support.event_feeder import Teller
from tests.support.sample_events import GONE, sample

READ, SALE, REFUND = "READ.REFUND", "6BB30571942218835", "1BB69035148820067"


def test_it_is_booked_with_its_sale(teller: Teller) -> None:
    teller.hear(sample("READ.SALE"), sample(READ))
    assert teller.refunds()[REFUND].payment_id == SALE
    assert (teller.payments()[SALE].status, teller.payments()[SALE].refunded) == ("refunded", 49900)


def test_nobody_is_written_to_before_paypal_announced_it(teller: Teller) -> None:
    teller.hear(sample("READ.SALE"), sample(READ))
    assert teller.owed() == ["receipt"]
    teller.hear(sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | {"sale_id": None, "links": None}))
    assert teller.owed() == ["receipt", "refund_receipt"]


def test_where_it_tells_that_a_pending_refund_is_done_the_customer_is_told(teller: Teller) -> None:
    pending = {"state": "pending", "update_time": "2026-02-28T07:51:10Z", "links": None}
    teller.hear(sample("READ.SALE"), sample("PAYMENT.SALE.REFUNDED", sample(READ)["resource"] | pending))
    assert teller.owed() == ["receipt"]
    teller.hear(sample(READ))
    assert teller.owed() == ["receipt", "refund_receipt"]


def test_of_a_stranger_it_waits_for_the_sale(teller: Teller) -> None:
    teller.hear(sample(READ))
    assert teller.payments()[SALE].status is None
    assert teller.mails() == {}


def test_one_that_names_no_sale_is_parked(teller: Teller) -> None:
    teller.hear(sample(READ, {"sale_id": GONE, "links": GONE}))
    assert teller.reasons() == ["PayPal's own record of this refund names no sale"]
    assert teller.refunds() == {}


def test_told_twice_it_is_once(teller: Teller) -> None:
    teller.hear(sample(READ), sample(READ))
    assert (teller.states(), list(teller.refunds())) == (["handled"], [REFUND])
