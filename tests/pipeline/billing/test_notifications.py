"""A mail is owed once, for the newest news only, and to nobody who is not told by it."""

from datetime import timedelta
from typing import Any

import pytest

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import River
from tests.support.sample_events import GONE, sample

ACTIVATED, CANCELLED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.CANCELLED"
SUSPENDED, BACK = "BILLING.SUBSCRIPTION.SUSPENDED", "BILLING.SUBSCRIPTION.RE-ACTIVATED"
FAILED, COMPLETED = "BILLING.SUBSCRIPTION.PAYMENT.FAILED", "PAYMENT.SALE.COMPLETED"
REFUNDED, DENIED = "PAYMENT.SALE.REFUNDED", "PAYMENT.SALE.DENIED"
# What each of these says happened, as part of the mail's key.
KEYS = {
    ACTIVATED: f"account_setup:{ALICE.subscription}",
    CANCELLED: f"subscription_cancelled:{ALICE.subscription}",
    SUSPENDED: f"subscription_suspended:{ALICE.subscription}:2026-04-03T10:41:50Z",
    FAILED: f"payment_failed:{ALICE.subscription}:2026-03-24T11:13:07Z",
    COMPLETED: "receipt:3AL51924877811803",
    DENIED: "payment_failed:8CH77410296635520",
}


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_made_of_ids_and_paypals_times(brook: River, kind: str) -> None:
    teller = Teller(brook)
    teller.hear(sample(kind))
    assert KEYS[kind] in teller.mails()


@pytest.mark.parametrize("kind", KEYS)
def test_what_reaches_us_in_time_is_owed_and_a_second_later_it_is_not(brook: River, kind: str) -> None:
    resource = sample(kind)["resource"]
    news = at(resource["billing_info"]["last_failed_payment"]["time"] if kind == FAILED else _moment(resource))
    for seconds, state in ((0, "queued"), (1, "withheld")):
        brook.empty()
        brook.clock.move_to(news + timedelta(days=7, seconds=seconds))
        teller = Teller(brook)
        teller.hear(sample(kind, at=news.isoformat()))
        mail = teller.mails()[KEYS[kind]]
        assert mail.state == state, mail.reason


@pytest.mark.parametrize(("news", "late", "mail"), [
    ([CANCELLED], ACTIVATED, "account_setup"),
    ([SUSPENDED], ACTIVATED, "account_setup"),
    ([BACK], SUSPENDED, "subscription_suspended"),
    ([CANCELLED], SUSPENDED, "subscription_suspended"),
    ([SUSPENDED], FAILED, "payment_failed"),
])  # fmt: skip
def test_what_was_overtaken_is_withheld_and_says_by_what(brook: River, news: list[str], late: str, mail: str) -> None:
    teller = Teller(brook)
    teller.hear(*[sample(kind) for kind in news], sample(late))
    withheld = teller.mail(mail)
    assert (withheld.state, withheld.due) == ("withheld", False)
    assert str(withheld.reason).startswith("overtaken: the subscription is ")


@pytest.mark.parametrize("back", [BACK, ACTIVATED])
def test_a_failed_charge_stays_news_when_the_subscription_is_active_again_without_a_payment(
    brook: River, back: str
) -> None:
    teller = Teller(brook)
    after = "2026-03-25T08:00:00Z"  # the charge failed the day before
    teller.hear(sample(back, {"status_update_time": after, "update_time": after}, at=after), sample(FAILED))
    assert teller.subscription(ALICE).status == "ACTIVE"
    mail = teller.mail("payment_failed")
    assert (mail.state, mail.reason) == ("owed", None)


def test_of_two_suspensions_told_the_wrong_way_round_only_the_present_one_is_news(brook: River) -> None:
    teller = Teller(brook)
    later = {"status_update_time": "2026-04-05T10:41:50Z", "update_time": "2026-04-05T10:41:50Z"}
    teller.hear(sample(SUSPENDED, later), sample(SUSPENDED))
    assert [mail.state for _, mail in sorted(teller.mails().items())] == ["withheld", "queued"]


def test_money_released_weeks_later_is_news_when_paypal_tells_it(brook: River) -> None:
    teller = Teller(brook)
    held = sample(COMPLETED, {"payment_hold_status": "HELD"})["resource"]
    teller.hear(sample(ACTIVATED), sample("PAYMENT.SALE.PENDING", held))
    teller.hear(sample(COMPLETED, {"payment_hold_status": "RELEASED"}, at="2026-03-17T09:16:40Z"))
    assert teller.mail("receipt").state == "queued"


def test_what_paypal_did_with_money_is_told_however_late_other_news_came_first(brook: River) -> None:
    teller = Teller(brook)
    teller.hear(sample(CANCELLED), sample(REFUNDED), at="2026-02-28T12:00:00Z")
    teller.hear(sample(COMPLETED), at="2026-02-28T12:00:01Z")
    assert [teller.mail(kind).state for kind in ("receipt", "refund_receipt")] == ["queued", "queued"]


def test_mails_wait_for_an_address_and_all_go_when_one_is_known(brook: River) -> None:
    teller = Teller(brook)
    nameless = {"subscriber": GONE}
    teller.hear(sample(ACTIVATED, nameless), sample(COMPLETED), sample(REFUNDED))
    assert [mail.due for mail in teller.mails().values()] == [False, False, False]
    teller.hear(sample("BILLING.SUBSCRIPTION.UPDATED"))
    assert [mail.due for mail in teller.mails().values()] == [True, True, True]


def test_an_address_in_the_same_batch_is_enough(brook: River) -> None:
    teller = Teller(brook)
    teller.tell(sample(COMPLETED), sample(ACTIVATED))
    teller.work()
    assert teller.mail("receipt").due


def test_what_a_mail_says_tells_nothing_of_the_person(brook: River) -> None:
    teller = Teller(brook)
    for kind in KEYS:
        teller.hear(sample(kind))
    said = repr([mail.facts for mail in teller.mails().values()])
    assert not [word for word in ("Alice", "Andersson", "example.com", ALICE.payer_id, ALICE.custom_id) if word in said]


def test_a_receipt_does_not_promise_a_date_before_its_own_payment(brook: River) -> None:
    teller = Teller(brook)
    on = "2026-03-24T11:13:00Z"
    teller.hear(sample(ACTIVATED), sample(COMPLETED, {"create_time": on, "update_time": on}, at=on))
    assert teller.mail("receipt").facts["paid_through"] is None  # no plan yet: what it pays for is not known


def test_each_of_two_refunds_says_whether_it_was_the_last_whichever_is_told_first(brook: River) -> None:
    rest: dict[str, Any] = {
        "id": "5AL88213640927999", "amount.total": "20.00", "total_refunded_amount.total": "29.00",
        "create_time": "2026-02-28T09:00:00Z", "update_time": "2026-02-28T09:00:00Z",
    }  # fmt: skip
    for order in ([sample(REFUNDED), sample(REFUNDED, rest)], [sample(REFUNDED, rest), sample(REFUNDED)]):
        brook.empty()
        teller = Teller(brook)
        teller.hear(sample(COMPLETED), *order)
        mails = [mail.facts for mail in teller.mails().values() if mail.kind == "refund_receipt"]
        assert {mail["refund"]: mail["in_full"] for mail in mails} == {"5AL88213640927754": False, rest["id"]: True}


def _moment(resource: dict[str, Any]) -> str:
    return str(resource.get("status_update_time") or resource["update_time"])


@pytest.mark.parametrize("kind", ["BILLING.SUBSCRIPTION.UPDATED", FAILED])
def test_nobody_is_welcomed_anew_because_we_hear_of_them_late(brook: River, kind: str) -> None:
    long_ago = {"status_update_time": "2025-02-24T09:16:40Z"}
    teller = Teller(brook)
    teller.hear(sample(kind, long_ago))
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert str(teller.mail("account_setup").reason).startswith("older than 7 days")


def test_a_snapshot_of_any_event_stands_for_the_news_that_was_lost(brook: River) -> None:
    teller = Teller(brook)
    suspended = {"status": "SUSPENDED", "status_update_time": "2026-03-24T11:13:08Z"}
    teller.hear(sample(ACTIVATED), sample(FAILED, suspended))
    assert teller.owed() == ["account_setup", "subscription_suspended"]
