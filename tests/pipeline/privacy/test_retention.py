"""Retention runs delete everything past its period and nothing else."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.customers.accounts import SignUpData
from pipeline.db.models import (
    AccessLogEntry,
    Base,
    Consent,
    Customer,
    EncryptionKey,
    Erasure,
    Event,
    InboundMail,
    Link,
    Mail,
    Payment,
    PrivacyRequest,
    RateLimitCounter,
    ReadAudit,
    Redelivery,
    RetentionRun,
    Subscription,
)
from pipeline.privacy.erasure import workflow
from pipeline.privacy.erasure.workflow import ErasureDependencies
from pipeline.privacy.retention import sweep as retention
from pipeline.privacy.retention.legal_holds import YEAR, keeps_since, kept_until
from pipeline.privacy.retention.rules import RULES
from tests.support.event_feeder import EventFeeder
from tests.support.example_people import ALICE
from tests.support.pipeline_under_test import PipelineUnderTest
from tests.support.sample_events import sample

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
days = st.integers(0, 5 * 365)


class PayPal:
    def cancel_subscription(self, id: str, reason: str) -> None:
        pass


def run_retention(pipeline: PipelineUnderTest, country: str = "", *, dry: bool = False) -> dict[str, int]:
    def erase(id: str) -> bool:
        workflow.carry_out(
            pipeline.database,
            pipeline.master,
            pipeline.clock,
            ErasureDependencies(PayPal(), country=country),
            id,
            basis="retention",
        )
        return True

    return retention.apply_retention(pipeline.database, pipeline.now, country, dry, erase=erase)


def insert(pipeline: PipelineUnderTest, *rows: Base) -> None:
    with pipeline.database.transaction() as session:
        session.add_all(rows)


def customer(pipeline: PipelineUnderTest, id: str, at: datetime) -> None:
    with pipeline.database.transaction() as session:
        person = (
            Keyring(pipeline.master, session, at)
            .system_key(id)
            .encrypt_json("customer.personal_data", {"email": ["", "a@example.com"]})
        )
        session.add(
            Customer(id=id, created_at=at, personal_data=person, wants_marketing=False, wants_service_mail=True)
        )


def subscription(
    pipeline: PipelineUnderTest, id: str, of: str | None, at: datetime, status: str, end: datetime
) -> None:
    with pipeline.database.transaction() as session:
        person = Keyring(pipeline.master, session, at).system_key(id).encrypt_json("subscription.personal_data", {})
        session.add(
            Subscription(
                id=id, known={}, customer_id=of, personal_data=person, status=status, status_at=end, created_at=at,
                is_established=True,
            )
        )  # fmt: skip
        session.add(
            Payment(id=f"S{id}", known={}, subscription_id=id, status="completed", amount=1, refunded=0, occurred_at=at)
        )


def names(rows: list[Any]) -> set[str]:
    return {str(row.id) for row in rows}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    people=st.lists(
        st.tuples(days, days, st.sampled_from(["ACTIVE", "CANCELLED", "EXPIRED", "SUSPENDED"])), max_size=6
    ),
    moments=st.lists(days, max_size=8),
    runs=st.lists(days, min_size=1, max_size=4),
    country=st.sampled_from(["", "DE", "US"]),
)
def test_only_data_past_its_period_is_deleted(
    sqlite_pipeline: PipelineUnderTest,
    people: list[tuple[int, int, str]],
    moments: list[int],
    runs: list[int],
    country: str,
) -> None:
    sqlite_pipeline.empty()
    ends = {}
    for number, (begin, length, status) in enumerate(people):
        created, end = START + begin * DAY, START + (begin + length) * DAY
        customer(sqlite_pipeline, f"c{number}", created)
        subscription(sqlite_pipeline, f"I-{number}", f"c{number}", created, status, end)
        ends[f"c{number}"] = (status, end)
    at = {str(place + 1): START + moment * DAY for place, moment in enumerate(moments)}
    insert(sqlite_pipeline, *[row for id, when in at.items() for row in rows_created_at(id, when)])
    for moment in sorted(runs):
        sqlite_pipeline.clock.move_to(START + moment * DAY + timedelta(hours=3))
        run_retention(sqlite_pipeline, country)
        assert_kept(sqlite_pipeline, ends, at)
        with sqlite_pipeline.database.reading() as session:
            assert not any(retention.due_counts(session, sqlite_pipeline.now, country).values())


def rows_created_at(id: str, at: datetime) -> list[Base]:
    """Return one row of each kind that is deleted after a period."""
    zero = "0" * 64
    return [
        Redelivery(transmission_id=id, event_id="E", body_sha256=zero, received_at=at),
        Link(sha256=id, customer_id="c", purpose="account", created_at=at, expires_at=at, used_at=None),
        RateLimitCounter(id=id, count=1, expires_at=at),
        InboundMail(id=id, customer_id=None, key_id=f"letter:{id}", kind="support", content=b"", received_at=at),
        AccessLogEntry(id=int(id), at=at, key_id=f"visits:{at:%Y-%m-%d}", action="GET /", status=200, visitor=None),
        PrivacyRequest(
            id=id, customer_id=None, key_id="x", kind="other", state="done", source="mail", received_at=at, due_at=at,
            done_at=at, last_alarm_day=0,
        ),
        Event(
            id=id, type="X", source="webhook", state="ignored", key_id=id, facts={}, body=b"x", body_sha256=zero,
            content_sha256=zero, signature_verdict="", received_at=at, attempts=0,
        ),
        Mail(id=id, idempotency_key=id, kind="event_parked", key_id="smt:operator", state="sent", attempts=1, created_at=at),
        EncryptionKey(key_id=id, wrapped_key=b"x", created_at=at, erased_at=None),
    ]  # fmt: skip


AGES: list[tuple[type[Base], timedelta]] = [
    (Redelivery, 2 * YEAR), (Link, DAY), (RateLimitCounter, timedelta(0)), (InboundMail, 2 * YEAR), (PrivacyRequest, 3 * YEAR),
    (Event, 2 * YEAR), (Mail, 2 * YEAR),
]  # fmt: skip


def assert_kept(pipeline: PipelineUnderTest, ends: dict[str, tuple[str, datetime]], at: dict[str, datetime]) -> None:
    now = pipeline.now
    for table, period in AGES:
        run_times = {START - DAY, *[row.at for row in pipeline.rows(RetentionRun)]}
        key = inspect(table).primary_key[0].name
        present = {str(getattr(row, key)) for row in pipeline.rows(table)}
        assert present >= {id for id, when in at.items() if when >= now - period}, (
            f"{table.__tablename__}: rows were deleted too early"
        )
        assert present <= {id for id, when in at.items() if when >= now - period}, (
            f"{table.__tablename__}: rows were not deleted"
        )
        assert run_times
    oldest = (now - timedelta(days=90)).date()
    assert names(pipeline.rows(AccessLogEntry)) == {id for id, when in at.items() if when.date() > oldest}
    for row in pipeline.rows(Customer):
        status, end = ends[row.id]
        due = status != "ACTIVE" and end < now - 2 * YEAR
        assert (row.erased_at is not None) == due, f"{row.id} {status} ended {end}"


def test_abandoned_sign_up_is_erased_after_seven_days(pipeline: PipelineUnderTest) -> None:
    abandoned, confirmed = (sign_up(pipeline, SignUpData("Ada", f"{name}@example.com"), name) for name in ("a", "b"))
    with pipeline.database.transaction() as session:
        accounts.confirm_entered_address(session, pipeline.keyring(session), confirmed, pipeline.now)
    pipeline.clock.advance(timedelta(days=7))
    assert run_retention(pipeline)["abandoned sign-ups"] == 0
    pipeline.clock.advance(timedelta(seconds=1))
    assert run_retention(pipeline)["abandoned sign-ups"] == 1
    assert [row.id for row in pipeline.rows(Customer) if row.erased_at] == [abandoned]


def test_pending_subscription_is_emptied_and_can_be_approved_later(pipeline: PipelineUnderTest) -> None:
    feeder = EventFeeder(pipeline)
    feeder.hear(sample("BILLING.SUBSCRIPTION.CREATED"))
    pipeline.clock.advance(timedelta(days=7, seconds=1))
    assert run_retention(pipeline)["pending subscriptions"] == 1
    assert run_retention(pipeline)["pending subscriptions"] == 0
    assert [row.body for row in pipeline.rows(Event)] == [None]
    feeder.hear(sample("BILLING.SUBSCRIPTION.ACTIVATED"))
    assert feeder.known(ALICE)["email"] == ALICE.email


def sign_up(pipeline: PipelineUnderTest, person: SignUpData, custom: str) -> str:
    with pipeline.database.transaction() as session:
        return accounts.create_account(
            session, pipeline.keyring(session), person,
            adult_text="1", news=False, now=pipeline.now, source="sign-up", custom=custom,
        )  # fmt: skip


def test_active_customer_is_never_erased(pipeline: PipelineUnderTest) -> None:
    customer(pipeline, "c1", START)
    subscription(pipeline, "I-1", "c1", START, "ACTIVE", START)
    subscription(pipeline, "I-2", "c1", START, "CANCELLED", START)
    pipeline.clock.move_to(START + 30 * YEAR)
    assert run_retention(pipeline)["accounts"] == 0


def test_customer_is_erased_two_years_after_paid_through_date(pipeline: PipelineUnderTest) -> None:
    customer(pipeline, "c1", START)
    subscription(pipeline, "I-1", "c1", START, "CANCELLED", START + 10 * DAY)
    [row] = pipeline.rows(Subscription)
    pipeline.set(row, paid_through=START + YEAR)
    pipeline.clock.move_to(START + 3 * YEAR - DAY)
    assert run_retention(pipeline)["accounts"] == 0
    pipeline.clock.move_to(START + 3 * YEAR + DAY)
    assert run_retention(pipeline)["accounts"] == 1
    assert pipeline.rows(Customer)[0].erased_at == pipeline.now
    assert [erasure.receipt["basis"] for erasure in pipeline.rows(Erasure)] == ["retention"]


def test_customer_without_subscription_is_erased_after_two_years(pipeline: PipelineUnderTest) -> None:
    customer(pipeline, "c1", START)
    pipeline.clock.move_to(START + 2 * YEAR - DAY)
    assert run_retention(pipeline)["accounts"] == 0
    pipeline.clock.move_to(START + 2 * YEAR + DAY)
    assert run_retention(pipeline)["accounts"] == 1


def test_subscription_without_customer_is_erased_after_two_years(pipeline: PipelineUnderTest) -> None:
    subscription(pipeline, "I-1", None, START, "CANCELLED", START)
    pipeline.clock.move_to(START + 2 * YEAR + DAY)
    assert run_retention(pipeline, "DE")["subscriptions without customer"] == 1
    [row] = pipeline.rows(Subscription)
    assert (row.personal_data, [key.wrapped_key for key in pipeline.rows(EncryptionKey) if key.key_id == "I-1"]) == (
        None,
        [None],
    )
    assert run_retention(pipeline, "DE")["subscriptions without customer"] == 0


@pytest.mark.parametrize(("country", "years"), [("", 2), ("DE", 9), ("US", 8), ("CH", 11)])
def test_billing_records_are_deleted_after_legal_period(
    sqlite_pipeline: PipelineUnderTest, country: str, years: int
) -> None:
    """The legal period counts from the end of the year: a payment of 1 January is kept almost a year longer."""
    customer(sqlite_pipeline, "c1", START)
    subscription(sqlite_pipeline, "I-1", "c1", START, "CANCELLED", START)
    sqlite_pipeline.clock.move_to(START + 2 * YEAR + DAY)
    run_retention(sqlite_pipeline, country)
    sqlite_pipeline.clock.move_to(START.replace(year=START.year + years) - DAY)
    run_retention(sqlite_pipeline, country)
    assert sqlite_pipeline.count(Payment) == (1 if country else 0)
    sqlite_pipeline.clock.move_to(START.replace(year=START.year + years) + 2 * DAY)
    run_retention(sqlite_pipeline, country)
    assert (sqlite_pipeline.count(Payment), sqlite_pipeline.count(Subscription)) == (0, 0)
    assert [row.wrapped_key for row in sqlite_pipeline.rows(EncryptionKey) if row.key_id == "I-1"] == [
        None
    ]  # the tombstone stays


def test_keeps_since_is_inverse_of_kept_until() -> None:
    for country in ("", "DE", "US", "FR", "XX"):
        for days_after in range(0, 4000, 37):
            now, paid = START + days_after * DAY, START + 100 * DAY
            assert (paid >= keeps_since(now, country)) == (now <= kept_until(paid, country)), (country, now)


def test_consent_is_kept_three_years_after_erasure(sqlite_pipeline: PipelineUnderTest) -> None:
    """The proof counts from the end, however old the consent is: Bus. & Prof. Code section 17602 (California)."""
    customer(sqlite_pipeline, "c1", START)
    at = START + 2 * YEAR - DAY
    consent = {"kind": "marketing", "given": True, "source": "sign-up", "text_version": "1"}
    insert(sqlite_pipeline, Consent(customer_id="c1", at=at, **consent), Consent(customer_id="c1", at=START, **consent))
    sqlite_pipeline.clock.move_to(START + 2 * YEAR + DAY)
    run_retention(sqlite_pipeline)
    assert sqlite_pipeline.count(Consent) == 2
    for moment in (START + 3 * YEAR + DAY, at + 3 * YEAR, START + 5 * YEAR):
        sqlite_pipeline.clock.move_to(moment)
        run_retention(sqlite_pipeline)
        assert sqlite_pipeline.count(Consent) == 2
    sqlite_pipeline.clock.move_to(START + 5 * YEAR + 2 * DAY)
    run_retention(sqlite_pipeline)
    assert (sqlite_pipeline.count(Consent), sqlite_pipeline.count(Customer)) == (0, 0)


def test_access_log_day_is_deleted_with_its_key(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        for number, day in enumerate((START, START + DAY)):
            key_id = f"visits:{day:%Y-%m-%d}"
            visitor = (
                Keyring(pipeline.master, session, day).system_key(key_id).encrypt("access_log.visitor", b"192.0.2.1")
            )
            session.add(AccessLogEntry(id=number, at=day, key_id=key_id, action="GET /", status=200, visitor=visitor))
    pipeline.clock.move_to(START + timedelta(days=90, hours=1))
    assert run_retention(pipeline)["access log"] == 1
    assert [row.key_id for row in pipeline.rows(EncryptionKey)] == ["visits:2020-01-02"]


def test_dry_run_returns_same_counts_and_changes_nothing(pipeline: PipelineUnderTest) -> None:
    customer(pipeline, "c1", START)
    insert(pipeline, *rows_created_at("1", START))
    pipeline.clock.move_to(START + 4 * YEAR)
    counts = run_retention(pipeline, dry=True)
    assert (pipeline.count(RetentionRun), pipeline.rows(Customer)[0].erased_at) == (0, None)
    assert run_retention(pipeline) == counts
    assert sum(counts.values()) >= 8


def test_run_is_recorded_daily_and_after_each_deletion(pipeline: PipelineUnderTest) -> None:
    run_retention(pipeline)
    pipeline.clock.advance(timedelta(hours=1))
    run_retention(pipeline)
    assert [row.counts for row in pipeline.rows(RetentionRun)] == [{}]
    insert(pipeline, RateLimitCounter(id="k", count=1, expires_at=START))
    run_retention(pipeline)
    pipeline.clock.advance(DAY)
    run_retention(pipeline)
    assert [row.counts for row in pipeline.rows(RetentionRun)] == [{}, {"rate limit counters": 1}, {}]


def test_customer_who_cannot_be_erased_stays_due(pipeline: PipelineUnderTest) -> None:
    customer(pipeline, "c1", START)
    pipeline.clock.move_to(START + 3 * YEAR)
    assert retention.apply_retention(pipeline.database, pipeline.now, "")["accounts"] == 0
    with pipeline.database.reading() as session:
        assert retention.due_counts(session, pipeline.now, "")["accounts"] == 1


def test_event_with_destroyed_key_is_emptied(pipeline: PipelineUnderTest) -> None:
    insert(pipeline, *rows_created_at("1", START))
    [row] = pipeline.rows(Event)
    pipeline.set(row, state="handled")
    [key] = pipeline.rows(EncryptionKey)
    pipeline.set(key, wrapped_key=None, erased_at=START)
    pipeline.clock.move_to(START + timedelta(hours=1))
    run_retention(pipeline)
    assert pipeline.rows(Event)[0].body is None


def test_pruned_audit_log_is_still_valid(pipeline: PipelineUnderTest) -> None:
    from pipeline.privacy import audit_log

    with pipeline.database.transaction() as session:
        for number in range(5):
            at, keyring = START + number * DAY, pipeline.keyring(session)
            audit_log.record_read(session, keyring, at, actor="ada", action="x", purpose="test", subject=None)
    pipeline.clock.move_to(START + YEAR + 2.5 * DAY)
    assert run_retention(pipeline)["audit log"] == 3
    with pipeline.database.transaction() as session:
        assert audit_log.verify_chain(session, pipeline.keyring(session)) is None
        assert audit_log.count(session) == 2
    assert run_retention(pipeline)["audit log"] == 0
    assert pipeline.count(ReadAudit) == 3


def test_every_category_has_a_retention_rule() -> None:
    from pipeline.privacy import data_categories

    covered = {rule.category for rule in RULES}
    for category in (
        "contact",
        "payment",
        "communication",
        "usage",
        "consent",
        "request",
        "accountability",
        "security",
    ):
        assert category in covered
        assert data_categories.columns_holding(category)


def test_money_of_an_invoice_outlives_its_person_until_the_legal_period_ends(pipeline: PipelineUnderTest) -> None:
    EventFeeder(pipeline).hear(sample("INVOICING.INVOICE.PAID"))
    pipeline.clock.advance(3 * YEAR)
    run_retention(pipeline, "DE")
    [row] = pipeline.rows(Event)
    assert (row.body, row.personal_data) == (None, None)
    assert (row.facts["amount"], row.facts["tax"]) == ([11900, "EUR"], [1900, "EUR"])
    pipeline.clock.advance(9 * YEAR)
    run_retention(pipeline, "DE")
    assert pipeline.rows(Event) == []
