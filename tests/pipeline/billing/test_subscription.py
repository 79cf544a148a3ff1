"""A subscription's row depends on the facts only, and its status follows the table of transitions."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.billing.entitlement import BillingCycle
from pipeline.billing.notifications import renewal_reminder
from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.subscription import STATUS_PHASE, STATUS_TIE_BREAK, TRANSITIONS, supersedes
from pipeline.db.models import Customer, StatusHistoryEntry
from tests.support.event_feeder import EventFeeder, at
from tests.support.example_people import ALICE, BOB, CHARLIE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import GONE, sample

ACTIVATED, SUSPENDED = "BILLING.SUBSCRIPTION.ACTIVATED", "BILLING.SUBSCRIPTION.SUSPENDED"
CANCELLED, UPDATED = "BILLING.SUBSCRIPTION.CANCELLED", "BILLING.SUBSCRIPTION.UPDATED"
COMPLETED = "PAYMENT.SALE.COMPLETED"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
timed_statuses = st.tuples(
    st.sampled_from(sorted(STATUS_TIE_BREAK)), st.integers(0, 3).map(lambda hours: NOON + timedelta(hours=hours))
)
thorough = settings(max_examples=500, deadline=None, derandomize=True)


# -- which status wins


@thorough
@given(timed_statuses, timed_statuses)
def test_exactly_one_of_two_statuses_supersedes_the_other(
    one: tuple[str, datetime], other: tuple[str, datetime]
) -> None:
    assert supersedes(one, other) + supersedes(other, one) == (one != other)


@thorough
@given(timed_statuses, timed_statuses, timed_statuses)
def test_supersedes_is_transitive(
    one: tuple[str, datetime], two: tuple[str, datetime], three: tuple[str, datetime]
) -> None:
    assert not (supersedes(one, two) and supersedes(two, three)) or supersedes(one, three)


@thorough
@given(timed_statuses, timed_statuses)
def test_every_superseding_change_is_an_allowed_transition(
    new: tuple[str, datetime], old: tuple[str, datetime]
) -> None:
    if supersedes(new, old) and new[0] != old[0]:
        assert new[0] in TRANSITIONS[old[0]]


def test_transitions_contain_exactly_the_known_statuses() -> None:
    assert TRANSITIONS.keys() - {None} == STATUS_TIE_BREAK.keys() == STATUS_PHASE.keys() == TRANSITIONS[None]


def test_priority_decides_at_equal_times() -> None:
    by_priority = ["CANCELLED", "EXPIRED", "SUSPENDED", "ACTIVE", "APPROVED", "APPROVAL_PENDING"]
    for higher, lower in pairwise(by_priority):
        assert supersedes((higher, NOON), (lower, NOON))


def test_ended_subscription_never_becomes_active() -> None:
    late = NOON + timedelta(days=365)
    for end in ("CANCELLED", "EXPIRED"):
        assert not any(supersedes((status, late), (end, NOON)) for status in ("ACTIVE", "SUSPENDED", "APPROVED", end))


# -- the row


def agreement(day: int, kind: str, state: str, **details: str) -> dict[str, object]:
    """Return an event of Bob's old billing agreement. It has no time other than the envelope's."""
    definition = {"type": "REGULAR", "frequency": "Month", "frequency_interval": "1", "amount": {"value": "10.00"}}
    resource = {
        "id": BOB.subscription,
        "state": state,
        "plan": {"curr_code": "USD", "payment_definitions": [definition]},
        "payer": {"payer_info": {"email": BOB.email, "first_name": "Bob", "payer_id": BOB.payer_id}},
        "agreement_details": {"failed_payment_count": "0", **details},
    }
    envelope = {"id": f"WH-{day}", "event_type": kind, "create_time": f"2026-03-{day:02}T10:00:00Z"}
    return {**envelope, "resource": resource}


def test_old_agreement_is_processed_like_a_subscription(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(
        agreement(1, ACTIVATED, "Active", next_billing_date="2026-04-01T10:00:00Z"),
        agreement(20, SUSPENDED, "Suspended"),
        agreement(21, UPDATED, "Suspended"),  # no status change, so no second mail
        agreement(25, CANCELLED, "Cancelled"),
    )
    row = feeder.subscription(BOB)
    assert (row.status, row.paid_through) == ("CANCELLED", at("2026-04-01T10:00Z"))
    assert feeder.known(BOB)["email"] == BOB.email
    assert feeder.moves() == [(None, "ACTIVE"), ("ACTIVE", "SUSPENDED"), ("SUSPENDED", "CANCELLED")]
    assert feeder.owed() == ["account_setup", "subscription_cancelled", "subscription_suspended"]


def test_every_order_gives_the_same_row(sqlite_pipeline: PipelineUnderTest) -> None:
    found = set()
    for order in permutations([ACTIVATED, SUSPENDED, "BILLING.SUBSCRIPTION.RE-ACTIVATED", COMPLETED]):
        sqlite_pipeline.empty()
        feeder = EventFeeder(sqlite_pipeline)
        feeder.tell(*[sample(kind) for kind in order])
        feeder.work(batch=1)
        row = feeder.subscription(ALICE)
        found.add((row.status, row.status_at, row.paid_through, row.next_billing_at, row.plan_id))
    end = at("2026-04-24T10:00Z")
    assert found == {("ACTIVE", at("2026-04-05T08:30:12Z"), end, end, ALICE.plan)}


def test_custom_id_or_payer_id_identifies_the_customer(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(
        sample(ACTIVATED),
        sample(ACTIVATED, {"id": BOB.subscription}),
        sample(ACTIVATED, {"id": CHARLIE.subscription, "custom_id": GONE}),
    )
    alice, bob, charlie = (feeder.subscription(person).customer_id for person in (ALICE, BOB, CHARLIE))
    assert alice == bob != charlie
    assert {row.id for row in sqlite_pipeline.rows(Customer)} == {alice, charlie}


def test_address_hash_ignores_case(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    upper_case = {"id": BOB.subscription, "subscriber.email_address": "ALICE@EXAMPLE.COM"}
    feeder.hear(sample(ACTIVATED), sample(ACTIVATED, upper_case))
    alice, bob = feeder.subscription(ALICE), feeder.subscription(BOB)
    assert alice.email_hash == bob.email_hash
    assert alice.email_hash is not None
    assert alice.personal_data is not None
    assert b"alice" not in alice.personal_data.lower() + alice.email_hash


def test_status_history_contains_event_and_reason(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED), sample(SUSPENDED))
    history = [
        (row.subscription_id, row.reason, row.event_id, row.at) for row in sqlite_pipeline.rows(StatusHistoryEntry)
    ]
    assert history == [
        (ALICE.subscription, kind, sample(kind)["id"], at(sample(kind)["resource"]["status_update_time"]))
        for kind in (ACTIVATED, SUSPENDED)
    ]


def test_quantity_is_one_if_missing(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample("READ.PLAN"), sample(ACTIVATED, {"quantity": GONE}))
    row, plan = feeder.subscription(ALICE), feeder.plans()[ALICE.plan]
    reminder = renewal_reminder(row, plan, 3, sqlite_pipeline.now, has_address=True, is_confirmed=True)
    assert reminder.facts["amount"] == {"amount": 2900, "currency": "EUR"}


@pytest.mark.parametrize(("cycle", "days"), [
    (BillingCycle("YEAR", 1), 30), (BillingCycle("MONTH", 12), 30), (BillingCycle("MONTH", 1), 3), (BillingCycle("MONTH", 6), 3),
    (BillingCycle("DAY", 30), 3), (BillingCycle("DAY", 365), 30), (BillingCycle("WEEK", 52), 30),
    (BillingCycle("WEEK", 1), None), (BillingCycle("DAY", 7), None), (None, 3),
])  # fmt: skip
def test_longer_cycle_gets_an_earlier_reminder(cycle: BillingCycle | None, days: int | None) -> None:
    assert ReminderPolicy(yearly=30, monthly=3).days_before_renewal(cycle) == days


def test_event_from_the_future_changes_nothing(sqlite_pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(sqlite_pipeline)
    feeder.hear(sample(ACTIVATED))
    ahead = dict.fromkeys(("status_update_time", "update_time"), "2036-03-01T10:00:00Z")
    feeder.hear(sample(CANCELLED, ahead, at="2036-03-01T10:00:00Z"), at="2026-03-02T10:00:00Z")
    assert feeder.states() == ["handled", "parked"]
    feeder.hear(sample(SUSPENDED))
    assert feeder.subscription(ALICE).status == "SUSPENDED"


# -- a pause


def restarted(at_: str, next_billing: str, paid: str) -> dict[str, object]:
    """Return the event that a suspended subscription is active again, without a charge since `paid`."""
    changes = {
        "status_update_time": at_,
        "update_time": at_,
        "billing_info.next_billing_time": next_billing,
        "billing_info.last_payment.time": paid,
    }
    return sample("BILLING.SUBSCRIPTION.RE-ACTIVATED", changes, at=at_)


def paid_until(pipeline: PipelineUnderTest, *events: dict[str, object]) -> datetime | None:
    feeder = EventFeeder(pipeline)
    feeder.hear(sample("READ.PLAN"), *events)
    return feeder.subscription(ALICE).paid_through


def test_pause_longer_than_the_paid_cycle_gives_no_free_access(sqlite_pipeline: PipelineUnderTest) -> None:
    """PayPal skips the charges of a pause and reports the next one. Nobody has paid for the time until then."""
    before = paid_until(sqlite_pipeline, sample(ACTIVATED), sample(COMPLETED), sample(SUSPENDED))
    after = restarted("2026-04-10T09:00:00Z", "2026-04-24T10:00:00Z", "2026-02-24T09:16:38Z")
    assert paid_until(sqlite_pipeline, after) == before == at("2026-03-24T10:00Z")
    charge = {"id": "9AL51924877811803", "create_time": "2026-04-24T10:20:00Z", "update_time": "2026-04-24T10:20:00Z"}
    assert paid_until(sqlite_pipeline, sample(COMPLETED, charge)) == at("2026-05-24T10:20Z")


def test_pause_within_the_paid_cycle_keeps_its_end(sqlite_pipeline: PipelineUnderTest) -> None:
    paid_until(sqlite_pipeline, sample(ACTIVATED), sample(COMPLETED), sample(SUSPENDED))
    after = restarted("2026-03-20T09:00:00Z", "2026-03-24T10:00:00Z", "2026-02-24T09:16:38Z")
    assert paid_until(sqlite_pipeline, after) == at("2026-03-24T10:00Z")


def test_subscription_first_seen_after_its_pause_has_paypals_date(sqlite_pipeline: PipelineUnderTest) -> None:
    after = restarted("2026-04-10T09:00:00Z", "2026-04-24T10:00:00Z", "2026-03-24T09:16:38Z")
    assert paid_until(sqlite_pipeline, after) == at("2026-04-24T10:00Z")
