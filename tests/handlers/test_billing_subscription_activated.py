"""BILLING.SUBSCRIPTION.ACTIVATED gives access until the next billing time and queues one set-up mail."""

from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE
from tests.support.sample_events import GONE, renamed, sample

ACTIVATED = "BILLING.SUBSCRIPTION.ACTIVATED"


def test_access_lasts_until_the_next_billing_time(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED))
    row = feeder.subscription(ALICE)
    assert (row.status, row.plan_id) == ("ACTIVE", ALICE.plan)
    assert row.status_at == at("2026-02-24T09:16:40Z")
    assert row.paid_through == row.next_billing_at == at("2026-03-24T10:00Z")
    assert row.remind_at == at("2026-03-21T10:00Z")
    assert feeder.moves() == [(None, "ACTIVE")]


def test_subscriber_is_stored_and_setup_mail_is_queued(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED))
    assert feeder.known(ALICE) == {
        "custom": ALICE.custom_id, "payer": ALICE.payer_id,
        "given_name": "Alice", "surname": "Andersson", "email": "alice@example.com",
    }  # fmt: skip
    mail = feeder.mail("account_setup")
    assert (mail.state, mail.due, mail.key) == ("queued", True, f"account_setup:{ALICE.subscription}")
    assert mail.facts == {"subscription": ALICE.subscription, "plan": "", "next_billing_at": "2026-03-24T10:00:00Z"}


def test_setup_mail_contains_known_plan_name(feeder: EventFeeder) -> None:
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED))
    assert feeder.mail("account_setup").facts["plan"] == "SMT-CRM managed cloud, monthly"
    assert feeder.questions() == []


def test_setup_mail_waits_for_an_address(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED, {"subscriber.email_address": GONE}))
    assert not feeder.mail("account_setup").due
    feeder.hear(sample("BILLING.SUBSCRIPTION.UPDATED"))
    assert feeder.mail("account_setup").due


def test_repeated_event_changes_nothing_even_under_another_id(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), sample(ACTIVATED), renamed(sample(ACTIVATED)))
    assert feeder.states() == ["handled", "handled"]
    assert feeder.moves() == [(None, "ACTIVE")]
    assert feeder.owed() == ["account_setup"]


def test_setup_mail_is_withheld_after_cancellation(feeder: EventFeeder) -> None:
    feeder.hear(sample("BILLING.SUBSCRIPTION.CANCELLED"), sample(ACTIVATED))
    assert feeder.subscription(ALICE).status == "CANCELLED"
    setup_mail = feeder.mail("account_setup")
    assert setup_mail.state == "withheld"
    assert setup_mail.reason == "superseded: the subscription is CANCELLED since 2026-03-10 18:22Z"


def test_setup_mail_is_withheld_after_a_week(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED), at="2026-03-03T09:16:46Z")
    assert feeder.subscription(ALICE).status == "ACTIVE"
    assert "older than 7 days" in (feeder.mail("account_setup").reason or "")


def test_event_without_valid_time_is_parked(feeder: EventFeeder) -> None:
    month_19 = dict.fromkeys(("update_time", "status_update_time", "create_time"), "2018-19-12T22:20:32Z")
    feeder.hear(sample(ACTIVATED, month_19, at="2018-19-12T22:20:32.000Z"), at="2026-03-01T12:00:00Z")
    assert feeder.states() == ["parked"]
    assert feeder.reasons() == [
        "BILLING.SUBSCRIPTION.ACTIVATED has no at (unreadable fields: status_update_time, update_time, create_time)"
    ]


def test_event_is_handled_if_only_its_envelope_has_month_19(feeder: EventFeeder) -> None:
    feeder.hear(sample(ACTIVATED, at="2018-19-12T22:20:32.000Z"))
    assert feeder.subscription(ALICE).status == "ACTIVE"
