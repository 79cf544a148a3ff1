"""Versions of the policy text: planned texts, notices, and the date on which a text takes effect."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import update

from pipeline.clock import MovableClock
from pipeline.customers import accounts, merging
from pipeline.db.models import Customer, Mail, Policy
from pipeline.policy import public_pages, versions
from pipeline.policy.clauses import PolicyOwner
from tests.support.pipeline_under_test import PipelineUnderTest

VENDOR = PolicyOwner("Example Works", "Example Ledger", "https://works.example.com", "privacy@example.com")
FIRST = date(2025, 5, 1)
NEW = "# Privacy Policy\n\nAnother text.\n"
JUNE = date(2026, 6, 1)


@pytest.fixture(autouse=True)
def _first_text(pipeline: PipelineUnderTest) -> None:
    for name in ("ada", "bob"):
        sign_up(pipeline, name)
    with pipeline.database.transaction() as session:
        assert versions.store_first_text(session, VENDOR, FIRST, pipeline.now) is not None
    pipeline.clock.advance(timedelta(days=1))


def sign_up(pipeline: PipelineUnderTest, name: str) -> str:
    with pipeline.database.transaction() as session:
        person = accounts.SignUpData(name=name.title(), email=f"{name}@example.com")
        keyring = pipeline.keyring(session)
        id = accounts.create_account(
            session, keyring, person, adult_text="1", news=False, now=pipeline.now, source="sign-up"
        )
        accounts.confirm_entered_address(session, keyring, id, pipeline.now)
        return id


def propose(pipeline: PipelineUnderTest, effective: date = JUNE, *, text: str = NEW, material: bool = True) -> None:
    with pipeline.database.transaction() as session:
        versions.propose(session, text, effective, pipeline.now, material=material)


def notify(pipeline: PipelineUnderTest) -> int:
    with pipeline.database.transaction() as session:
        return versions.queue_notices(
            session, pipeline.keyring(session), pipeline.now, lambda day: f"https://example.com/{day}"
        )


def accept(pipeline: PipelineUnderTest, *, except_first: int = 0) -> None:
    """Mark the queued notices as sent, except the first ones."""
    queued = [row for row in pipeline.rows(Mail) if row.state == "queued"]
    with pipeline.database.transaction() as session:
        ids = [row.id for row in queued[except_first:]]
        session.execute(update(Mail).where(Mail.id.in_(ids)).values(state="sent", sent_at=pipeline.now, due_at=None))


def in_force(pipeline: PipelineUnderTest) -> str:
    with pipeline.database.reading() as session:
        row = versions.in_force(session, pipeline.now)
        return row.id if row else ""


def move_to(pipeline: PipelineUnderTest, day: date) -> None:
    pipeline.clock.move_to(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))


def test_first_text_is_stored_once(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        assert versions.store_first_text(session, VENDOR, date(2026, 1, 1), pipeline.now) is None
    assert in_force(pipeline) == "2025-05-01"


def test_material_text_needs_thirty_days_notice(pipeline: PipelineUnderTest) -> None:
    with pytest.raises(versions.PolicyRejectedError, match="2026-04-02 is the earliest"):
        propose(pipeline, date(2026, 4, 1) - timedelta(days=1))
    propose(pipeline, date(2026, 4, 2))


def test_every_customer_is_notified_once_before_text_takes_effect(pipeline: PipelineUnderTest) -> None:
    propose(pipeline)
    assert [notify(pipeline), notify(pipeline)] == [2, 0]
    accept(pipeline)
    move_to(pipeline, JUNE - timedelta(days=1))
    assert in_force(pipeline) == "2025-05-01"
    move_to(pipeline, JUNE)
    assert in_force(pipeline) == "2026-06-01"


def test_merged_account_gets_one_notice(pipeline: PipelineUnderTest) -> None:
    kept, merged = sign_up(pipeline, "eve"), sign_up(pipeline, "eve")
    with pipeline.database.transaction() as session:
        assert merging.merge_by_address(
            session, pipeline.keyring(session), merged, "eve@example.com", pipeline.now
        ) in (kept, merged)
    propose(pipeline)
    assert [notify(pipeline), notify(pipeline)] == [3, 0]


def test_thirty_days_start_with_last_accepted_notice(pipeline: PipelineUnderTest) -> None:
    propose(pipeline)
    notify(pipeline)
    accept(pipeline, except_first=1)
    move_to(pipeline, date(2026, 5, 20))
    accept(pipeline)
    move_to(pipeline, date(2026, 6, 18))
    assert in_force(pipeline) == "2025-05-01"
    move_to(pipeline, date(2026, 6, 19))
    assert in_force(pipeline) == "2026-06-01"
    with pipeline.database.reading() as session:
        assert public_pages.page(session, pipeline.now, VENDOR)[2] == date(2026, 6, 19)


def test_text_without_notices_never_takes_effect(pipeline: PipelineUnderTest) -> None:
    propose(pipeline)
    move_to(pipeline, date(2027, 6, 1))
    assert in_force(pipeline) == "2025-05-01"
    notify(pipeline)
    assert in_force(pipeline) == "2025-05-01"


def test_new_erased_and_unreachable_customers_delay_nothing(pipeline: PipelineUnderTest) -> None:
    propose(pipeline)
    pipeline.clock.advance(timedelta(hours=1))
    sign_up(pipeline, "late")
    with pipeline.database.transaction() as session:
        session.add(Customer(id="gone", created_at=datetime(2026, 1, 1, tzinfo=UTC), erased_at=pipeline.now))
        session.add(Customer(id="nowhere", created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert notify(pipeline) == 3
    accept(pipeline, except_first=0)
    with pipeline.database.transaction() as session:
        session.execute(
            update(Mail).where(Mail.customer_id == "nowhere").values(state="queued", sent_at=None, due_at=None)
        )
    move_to(pipeline, JUNE)
    assert in_force(pipeline) == "2026-06-01"


def test_immaterial_change_needs_no_notice(pipeline: PipelineUnderTest) -> None:
    propose(pipeline, date(2026, 3, 10), material=False)
    assert notify(pipeline) == 0
    move_to(pipeline, date(2026, 3, 10))
    assert in_force(pipeline) == "2026-03-10"


def test_same_text_past_day_and_used_day_are_rejected(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.reading() as session:
        row = versions.in_force(session, pipeline.now)
        assert row is not None
        same = row.text
    with pytest.raises(versions.PolicyRejectedError, match="identical to the text in force"):
        propose(pipeline, text=same)
    with pytest.raises(versions.PolicyRejectedError, match="earliest day"):
        propose(pipeline, date(2026, 3, 2), material=False)
    propose(pipeline)
    with pytest.raises(versions.PolicyRejectedError, match="2026-06-01 already"):
        propose(pipeline, text=NEW + "\nMore.\n")


def test_withdrawn_text_never_takes_effect(pipeline: PipelineUnderTest) -> None:
    propose(pipeline, date(2026, 3, 10), material=False)
    with pipeline.database.transaction() as session:
        versions.withdraw(session, "2026-03-10", pipeline.now)
    move_to(pipeline, JUNE)
    assert in_force(pipeline) == "2025-05-01"
    with pipeline.database.transaction() as session, pytest.raises(versions.PolicyRejectedError):
        versions.withdraw(session, "2025-05-01", pipeline.now)


def test_earlier_texts_are_available_by_day(pipeline: PipelineUnderTest) -> None:
    propose(pipeline, date(2026, 3, 10), material=False)
    move_to(pipeline, JUNE)
    with pipeline.database.reading() as session:
        shown, plain, _ = public_pages.page(session, pipeline.now, VENDOR)
        assert "Another text." in plain
        assert 'href="/privacy/2025-05-01"' in shown
        old = public_pages.page_of(session, "2025-05-01")
        assert old is not None
        assert "Example Ledger is a business software product" in old[1]
        assert public_pages.page_of(session, "2024-01-01") is None


def test_notices_list_each_customer(pipeline: PipelineUnderTest) -> None:
    propose(pipeline)
    notify(pipeline)
    accept(pipeline)
    with pipeline.database.reading() as session:
        row = session.get(Policy, "2026-06-01")
        assert row is not None
        found = list(versions.notices(session, row))
    assert {each.customer for each in found} == {row.id for row in pipeline.rows(Customer)}
    assert {(each.state, each.sent_at) for each in found} == {("sent", pipeline.now)}


def test_changes_are_removed_and_added_sentences() -> None:
    old, new = "# T\n\nKept 90 days.\n\nSame.\n", "# T\n\nKept 60 days.\n\nSame.\n"
    assert versions.changes(old, new) == (["Kept 90 days."], ["Kept 60 days."])


def test_page_shows_text_of_program_if_none_is_stored(sqlite_pipeline: PipelineUnderTest, clock: MovableClock) -> None:
    with sqlite_pipeline.database.transaction() as session:
        session.execute(Policy.__table__.delete())  # type: ignore[attr-defined]
    with sqlite_pipeline.database.reading() as session:
        shown, _, effective = public_pages.page(session, clock.now(), VENDOR, FIRST)
    assert effective == FIRST
    assert "May 1, 2025" in shown
