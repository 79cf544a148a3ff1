"""BILLING.SUBSCRIPTION.ACTIVATED gives access until the next billing time and queues one set-up mail."""

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


def test_subscriber_is_stored_and_setup_mail_is_queued(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED))
    assert teller.known(ALICE) == {
        "custom": ALICE.custom_id, "payer": ALICE.payer_id,
        "given_name": "Alice", "surname": "Andersson", "email": "alice@example.com",
    }  # fmt: skip
    mail = teller.mail("account_setup")
    assert (mail.state, mail.due, mail.key) == ("queued", True, f"account_setup:{ALICE.subscription}")
    assert mail.facts == {"subscription": ALICE.subscription, "plan": "", "next_billing_at": "2026-03-24T10:00:00Z"}


def test_setup_mail_contains_known_plan_name(teller: Teller) -> None:
    teller.hear(sample("READ.PLAN"), sample(ACTIVATED))
    assert teller.mail("account_setup").facts["plan"] == "SMT-CRM managed cloud, monthly"
    assert teller.questions() == []


def test_setup_mail_waits_for_an_address(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert not teller.mail("account_setup").due
    teller.hear(sample("BILLING.SUBSCRIPTION.UPDATED"))
    assert teller.mail("account_setup").due


def test_repeated_event_changes_nothing_even_under_another_id(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), sample(ACTIVATED), renamed(sample(ACTIVATED)))
    assert teller.states() == ["handled", "handled"]
    assert teller.moves() == [(None, "ACTIVE")]
    assert teller.owed() == ["account_setup"]


def test_setup_mail_is_withheld_after_cancellation(teller: Teller) -> None:
    teller.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(ACTIVATED))
    assert teller.subscription(ALICE).status == "CANCELLED"
    setup_mail = teller.mail("account_setup")
    assert setup_mail.state == "withheld"
    assert setup_mail.reason == "superseded: the subscription is CANCELLED since 2026-03-10 18:22Z"


def test_setup_mail_is_withheld_after_a_week(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED), at="2026-03-03T09:16:46Z")
    assert teller.subscription(ALICE).status == "ACTIVE"
    assert "older than 7 days" in (teller.mail("account_setup").reason or "")


def test_event_without_valid_time_is_parked(teller: Teller) -> None:
    month_19 = dict.fromkeys(("update_time", "status_update_time", "create_time"), "2018-19-12T22:20:32Z")
    teller.hear(sample(ACTIVATED, month_19, at="2018-19-12T22:20:32.000Z"))
    assert teller.states() == ["parked"]
    assert teller.reasons() == [
        "BILLING.SUBSCRIPTION.ACTIVATED has no at (unreadable fields: status_update_time, update_time, create_time)"
    ]


def test_event_is_handled_if_only_its_envelope_has_month_19(teller: Teller) -> None:
    teller.hear(sample(ACTIVATED, at="2018-19-12T22:20:32.000Z"))
    assert teller.subscription(ALICE).status == "ACTIVE"
