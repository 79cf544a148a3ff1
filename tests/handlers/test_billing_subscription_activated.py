"""A subscription begins: access until the next billing time, and one welcome."""

from tests.support.event_feeder import Teller, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED = "BILLING.SUBSCRIPTION.ACTIVATED"


def test_access_lasts_until_the_next_billing_time(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED))
    row = teller.subscription(ALICE)
    assert (row.status, row.plan_id) == ("ACTIVE", ALICE.plan)
    assert row.status_at == at("2026-02-24T09:16:40Z")
    assert row.paid_through == row.next_billing_at == at("2026-03-24T10:00Z")
    assert row.remind_at == at("2026-03-21T10:00Z")
    assert teller.moves() == [(None, "ACTIVE")]


def test_the_customer_is_known_and_welcomed(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED))
    assert teller.known(ALICE) == {
        "custom": ALICE.custom_id, "payer": ALICE.payer_id,
        "given_name": "Alice", "surname": "Andersson", "email": "alice@example.com",
    }  # fmt: skip
    mail = teller.mail("account_setup")
    assert (mail.state, mail.due, mail.key) == ("queued", True, f"account_setup:{ALICE.subscription}")
    assert mail.facts == {"subscription": ALICE.subscription, "plan": "", "next_billing_at": "2026-03-24T10:00:00Z"}


def test_the_welcome_names_a_plan_that_is_known(teller: Teller) -> None:
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED))
    assert teller.mail("account_setup").facts["plan"] == "SMT-CRM managed cloud, monthly"
    assert teller.questions() == []


def test_without_an_address_the_welcome_waits(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert not teller.mail("account_setup").due
    teller.hear(sample("BILLING.SUBSCRIPTION.UPDATED"))
    assert teller.mail("account_setup").due


def test_told_twice_it_is_once_also_under_another_id(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(ACTIVATED), renamed(sample(ACTIVATED)))
    assert teller.states() == ["handled", "handled"]
    assert teller.moves() == [(None, "ACTIVE")]
    assert teller.owed() == ["account_setup"]


def test_nobody_is_welcomed_to_what_is_over(teller: Teller) -> None:
    teller.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(ACTIVATED))
    assert teller.subscription(ALICE).status == "CANCELLED"
    welcome = teller.mail("account_setup")
    assert welcome.state == "withheld"
    assert welcome.reason == "overtaken: the subscription is CANCELLED since 2026-03-10 18:22Z"


def test_nobody_is_welcomed_a_week_late(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), at="2026-03-03T09:16:46Z")
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert "older than 7 days" in (teller.mail("account_setup").reason or "")


def test_news_without_any_time_is_parked(teller: Teller) -> None:
    month_19 = dict.fromkeys(("update_time", "status_update_time", "create_time"), "2018-19-12T22:20:32Z")
    teller.hear(sample(ACTIVATED, month_19, at="2018-19-12T22:20:32.000Z"))
    assert teller.states() == ["parked"]
    assert teller.reasons() == [
        "BILLING.SUBSCRIPTION.ACTIVATED has no at (could not read: status_update_time, update_time, create_time)"
    ]


def test_news_whose_envelope_alone_has_month_19_is_taken_in(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED, at="2018-19-12T22:20:32.000Z"))
    assert teller.subscription(ALICE).status == "ACTIVE"
