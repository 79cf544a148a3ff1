"""After a sweep nothing is older than its period, and nothing younger was touched; over years, for any mixture of people."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import inspect

from pipeline.crypto.keyring import Keyring
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
from tests.support.pipeline_under_test import River

START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
days = st.integers(0, 5 * 365)


class PayPal:
    def cancel_subscription(self, id: str, reason: str) -> None:
        pass


def sweep(river: River, country: str = "", *, dry: bool = False) -> dict[str, int]:
    def end(id: str) -> bool:
        workflow.carry_out(
            river.database,
            river.master,
            river.clock,
            ErasureDependencies(PayPal(), country=country),
            id,
            basis="retention",
        )
        return True

    return retention.apply_retention(river.database, river.now, country, dry, erase=end)


def put(river: River, *rows: Base) -> None:
    with river.database.transaction() as session:
        session.add_all(rows)


def customer(river: River, id: str, at: datetime) -> None:
    with river.database.transaction() as session:
        person = (
            Keyring(river.master, session, at)
            .system_key(id)
            .encrypt_json("customer.personal_data", {"email": ["", "a@example.com"]})
        )
        session.add(
            Customer(id=id, created_at=at, personal_data=person, wants_marketing=False, wants_service_mail=True)
        )


def subscription(river: River, id: str, of: str | None, at: datetime, status: str, end: datetime) -> None:
    with river.database.transaction() as session:
        person = Keyring(river.master, session, at).system_key(id).encrypt_json("subscription.personal_data", {})
        session.add(
            Subscription(
                id=id, known={}, customer_id=of, personal_data=person, status=status, status_at=end, created_at=at
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
    sweeps=st.lists(days, min_size=1, max_size=4),
    country=st.sampled_from(["", "DE", "US"]),
)
def test_nothing_is_older_than_its_period_and_nothing_younger_is_touched(
    brook: River, people: list[tuple[int, int, str]], moments: list[int], sweeps: list[int], country: str
) -> None:
    brook.empty()
    ends = {}
    for number, (begin, length, status) in enumerate(people):
        came, end = START + begin * DAY, START + (begin + length) * DAY
        customer(brook, f"c{number}", came)
        subscription(brook, f"I-{number}", f"c{number}", came, status, end)
        ends[f"c{number}"] = (status, end)
    at = {str(place + 1): START + moment * DAY for place, moment in enumerate(moments)}
    put(brook, *[row for id, when in at.items() for row in aging(id, when)])
    for moment in sorted(sweeps):
        brook.clock.move_to(START + moment * DAY + timedelta(hours=3))
        sweep(brook, country)
        assert_kept(brook, ends, at)
        with brook.database.reading() as session:
            assert not any(retention.due_counts(session, brook.now, country).values())


def aging(id: str, at: datetime) -> list[Base]:
    """One row of each kind that is deleted at an age."""
    zero = "0" * 64
    return [
        Redelivery(transmission_id=id, event_id="E", body_sha256=zero, received_at=at),
        Link(sha256=id, customer_id="c", purpose="account", created_at=at, expires_at=at, used_at=None),
        RateLimitCounter(id=id, count=1, expires_at=at),
        InboundMail(id=id, customer_id=None, key_id=f"letter:{id}", kind="support", content=b"", received_at=at),
        AccessLogEntry(id=int(id), at=at, key_id=f"smt:visits:{at:%Y-%m-%d}", action="GET /", status=200, visitor=None),
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


def assert_kept(river: River, ends: dict[str, tuple[str, datetime]], at: dict[str, datetime]) -> None:
    now = river.now
    for table, period in AGES:
        swept = {START - DAY, *[row.at for row in river.rows(RetentionRun)]}
        key = inspect(table).primary_key[0].name
        there = {str(getattr(row, key)) for row in river.rows(table)}
        assert there >= {id for id, when in at.items() if when >= now - period}, f"{table.__tablename__} lost"
        assert there <= {id for id, when in at.items() if when >= now - period}, f"{table.__tablename__} stayed"
        assert swept
    oldest = (now - timedelta(days=90)).date()
    assert names(river.rows(AccessLogEntry)) == {id for id, when in at.items() if when.date() > oldest}
    for row in river.rows(Customer):
        status, end = ends[row.id]
        due = status != "ACTIVE" and end < now - 2 * YEAR
        assert (row.erased_at is not None) == due, f"{row.id} {status} ended {end}"


def test_who_is_still_active_is_never_erased(river: River) -> None:
    customer(river, "c1", START)
    subscription(river, "I-1", "c1", START, "ACTIVE", START)
    subscription(river, "I-2", "c1", START, "CANCELLED", START)
    river.clock.move_to(START + 30 * YEAR)
    assert sweep(river)["accounts"] == 0


def test_a_customer_is_erased_two_years_after_the_end_of_what_was_paid(river: River) -> None:
    customer(river, "c1", START)
    subscription(river, "I-1", "c1", START, "CANCELLED", START + 10 * DAY)
    [row] = river.rows(Subscription)
    river.set(row, paid_through=START + YEAR)
    river.clock.move_to(START + 3 * YEAR - DAY)
    assert sweep(river)["accounts"] == 0
    river.clock.move_to(START + 3 * YEAR + DAY)
    assert sweep(river)["accounts"] == 1
    assert river.rows(Customer)[0].erased_at == river.now
    assert [erasure.receipt["basis"] for erasure in river.rows(Erasure)] == ["retention"]


def test_who_signed_up_and_never_bought_is_erased_two_years_later(river: River) -> None:
    customer(river, "c1", START)
    river.clock.move_to(START + 2 * YEAR - DAY)
    assert sweep(river)["accounts"] == 0
    river.clock.move_to(START + 2 * YEAR + DAY)
    assert sweep(river)["accounts"] == 1


def test_a_subscription_of_nobody_known_is_erased_like_a_customer(river: River) -> None:
    subscription(river, "I-1", None, START, "CANCELLED", START)
    river.clock.move_to(START + 2 * YEAR + DAY)
    assert sweep(river, "DE")["subscriptions of nobody known"] == 1
    [row] = river.rows(Subscription)
    assert (row.personal_data, [key.wrapped_key for key in river.rows(EncryptionKey) if key.key_id == "I-1"]) == (
        None,
        [None],
    )
    assert sweep(river, "DE")["subscriptions of nobody known"] == 0


@pytest.mark.parametrize(("country", "years"), [("", 2), ("DE", 9), ("US", 8), ("CH", 11)])
def test_the_books_of_the_erased_go_when_the_hold_of_the_country_ends(brook: River, country: str, years: int) -> None:
    """A hold is counted from the end of the calendar year: what was paid on 1 January is kept nearly a year longer."""
    customer(brook, "c1", START)
    subscription(brook, "I-1", "c1", START, "CANCELLED", START)
    brook.clock.move_to(START + 2 * YEAR + DAY)
    sweep(brook, country)
    brook.clock.move_to(START.replace(year=START.year + years) - DAY)
    sweep(brook, country)
    assert brook.count(Payment) == (1 if country else 0)
    brook.clock.move_to(START.replace(year=START.year + years) + 2 * DAY)
    sweep(brook, country)
    assert (brook.count(Payment), brook.count(Subscription)) == (0, 0)
    assert [row.wrapped_key for row in brook.rows(EncryptionKey) if row.key_id == "I-1"] == [
        None
    ]  # and nobody comes back


def test_a_hold_and_what_it_keeps_are_the_same_thing_told_twice() -> None:
    for country in ("", "DE", "US", "FR", "XX"):
        for days_after in range(0, 4000, 37):
            now, paid = START + days_after * DAY, START + 100 * DAY
            assert (paid >= keeps_since(now, country)) == (now <= kept_until(paid, country)), (country, now)


def test_proof_of_consent_outlives_the_person_by_its_own_period(brook: River) -> None:
    customer(brook, "c1", START)
    at = START + 2 * YEAR - DAY
    given = {"kind": "marketing", "given": True, "source": "sign-up", "text_version": "1"}
    put(brook, Consent(customer_id="c1", at=at, **given), Consent(customer_id="c1", at=START, **given))
    brook.clock.move_to(START + 2 * YEAR + DAY)
    sweep(brook)
    assert brook.count(Consent) == 2
    brook.clock.move_to(START + 3 * YEAR + DAY)
    sweep(brook)
    assert brook.count(Consent) == 1
    brook.clock.move_to(at + 3 * YEAR + DAY)
    sweep(brook)
    assert (brook.count(Consent), brook.count(Customer)) == (0, 0)


def test_a_day_of_the_access_log_goes_with_its_key(river: River) -> None:
    with river.database.transaction() as session:
        for number, day in enumerate((START, START + DAY)):
            label = f"smt:visits:{day:%Y-%m-%d}"
            visitor = Keyring(river.master, session, day).system_key(label).encrypt("access_log.visitor", b"192.0.2.1")
            session.add(AccessLogEntry(id=number, at=day, key_id=label, action="GET /", status=200, visitor=visitor))
    river.clock.move_to(START + timedelta(days=90, hours=1))
    assert sweep(river)["access log"] == 1
    assert [row.key_id for row in river.rows(EncryptionKey)] == ["smt:visits:2020-01-02"]


def test_a_dry_sweep_tells_the_same_and_changes_nothing(river: River) -> None:
    customer(river, "c1", START)
    put(river, *aging("1", START))
    river.clock.move_to(START + 4 * YEAR)
    told = sweep(river, dry=True)
    assert (river.count(RetentionRun), river.rows(Customer)[0].erased_at) == (0, None)
    assert sweep(river) == told
    assert sum(told.values()) >= 8


def test_a_sweep_is_on_record_once_a_day_and_whenever_it_did_something(river: River) -> None:
    sweep(river)
    river.clock.advance(timedelta(hours=1))
    sweep(river)
    assert [row.counts for row in river.rows(RetentionRun)] == [{}]
    put(river, RateLimitCounter(id="k", count=1, expires_at=START))
    sweep(river)
    river.clock.advance(DAY)
    sweep(river)
    assert [row.counts for row in river.rows(RetentionRun)] == [{}, {"knocks": 1}, {}]


def test_who_cannot_be_erased_yet_stays_due(river: River) -> None:
    customer(river, "c1", START)
    river.clock.move_to(START + 3 * YEAR)
    assert retention.apply_retention(river.database, river.now, "")["accounts"] == 0
    with river.database.reading() as session:
        assert retention.due_counts(session, river.now, "")["accounts"] == 1


def test_what_was_stored_while_its_key_went_is_emptied(river: River) -> None:
    put(river, *aging("1", START))
    [row] = river.rows(Event)
    river.set(row, state="handled")
    [key] = river.rows(EncryptionKey)
    river.set(key, wrapped_key=None, erased_at=START)
    river.clock.move_to(START + timedelta(hours=1))
    sweep(river)
    assert river.rows(Event)[0].body is None


def test_the_log_of_reads_is_cut_and_still_holds_together(river: River) -> None:
    from pipeline.privacy import audit_log

    with river.database.transaction() as session:
        for number in range(5):
            audit_log.record_read(session, START + number * DAY, actor="ada", action="x", purpose="test", subject=None)
    river.clock.move_to(START + YEAR + 2.5 * DAY)
    assert sweep(river)["log of reads"] == 3
    with river.database.transaction() as session:
        assert audit_log.verify_chain(session) is None
        assert audit_log.count(session) == 2
    assert sweep(river)["log of reads"] == 0
    assert river.count(ReadAudit) == 3


def test_every_table_with_personal_data_is_swept_or_goes_with_the_person() -> None:
    from pipeline.privacy import data_categories

    swept = {rule.category for rule in RULES}
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
        assert category in swept
        assert data_categories.columns_holding(category)
