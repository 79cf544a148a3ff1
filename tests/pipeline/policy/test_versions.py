"""Versions of the policy text: planned texts, notices, and the date on which a text takes effect."""

from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import update

from pipeline.clock import MovableClock
from pipeline.customers import accounts
from pipeline.db.models import Customer, Mail, Policy
from pipeline.policy import public_pages, versions
from pipeline.policy.clauses import PolicyOwner
from tests.support.pipeline_under_test import River

VENDOR = PolicyOwner("Example Works", "Example Ledger", "https://works.example.com", "privacy@example.com")
FIRST = date(2025, 5, 1)
NEW = "# Privacy Policy\n\nAnother text.\n"
JUNE = date(2026, 6, 1)


@pytest.fixture(autouse=True)
def _first_text(river: River) -> None:
    for name in ("ada", "bob"):
        sign_up(river, name)
    with river.database.transaction() as session:
        assert versions.store_first_text(session, VENDOR, FIRST, river.now) is not None
    river.clock.advance(timedelta(days=1))


def sign_up(river: River, name: str) -> str:
    with river.database.transaction() as session:
        person = accounts.SignUpData(name=name.title(), email=f"{name}@example.com")
        return accounts.create_account(
            session, river.keyring(session), person, adult_text="1", news=False, now=river.now, source="sign-up"
        )


def propose(river: River, effective: date = JUNE, *, text: str = NEW, material: bool = True) -> None:
    with river.database.transaction() as session:
        versions.propose(session, text, effective, river.now, material=material)


def notify(river: River) -> int:
    with river.database.transaction() as session:
        return versions.queue_notices(
            session, river.keyring(session), river.now, lambda day: f"https://example.com/{day}"
        )


def accept(river: River, *, except_first: int = 0) -> None:
    """Mark the queued notices as sent, except the first ones."""
    queued = [row for row in river.rows(Mail) if row.state == "queued"]
    with river.database.transaction() as session:
        ids = [row.id for row in queued[except_first:]]
        session.execute(update(Mail).where(Mail.id.in_(ids)).values(state="sent", sent_at=river.now, due_at=None))


def in_force(river: River) -> str:
    with river.database.reading() as session:
        row = versions.in_force(session, river.now)
        return row.id if row else ""


def move_to(river: River, day: date) -> None:
    river.clock.move_to(datetime(day.year, day.month, day.day, 12, tzinfo=UTC))


def test_first_text_is_stored_once(river: River) -> None:
    with river.database.transaction() as session:
        assert versions.store_first_text(session, VENDOR, date(2026, 1, 1), river.now) is None
    assert in_force(river) == "2025-05-01"


def test_material_text_needs_thirty_days_notice(river: River) -> None:
    with pytest.raises(versions.PolicyRejectedError, match="2026-04-02 is the earliest"):
        propose(river, date(2026, 4, 1) - timedelta(days=1))
    propose(river, date(2026, 4, 2))


def test_every_customer_is_notified_once_before_text_takes_effect(river: River) -> None:
    propose(river)
    assert [notify(river), notify(river)] == [2, 0]
    accept(river)
    move_to(river, JUNE - timedelta(days=1))
    assert in_force(river) == "2025-05-01"
    move_to(river, JUNE)
    assert in_force(river) == "2026-06-01"


def test_thirty_days_start_with_last_accepted_notice(river: River) -> None:
    propose(river)
    notify(river)
    accept(river, except_first=1)
    move_to(river, date(2026, 5, 20))
    accept(river)
    move_to(river, date(2026, 6, 18))
    assert in_force(river) == "2025-05-01"
    move_to(river, date(2026, 6, 19))
    assert in_force(river) == "2026-06-01"
    with river.database.reading() as session:
        assert public_pages.page(session, river.now, VENDOR)[2] == date(2026, 6, 19)


def test_text_without_notices_never_takes_effect(river: River) -> None:
    propose(river)
    move_to(river, date(2027, 6, 1))
    assert in_force(river) == "2025-05-01"
    notify(river)
    assert in_force(river) == "2025-05-01"


def test_new_erased_and_unreachable_customers_delay_nothing(river: River) -> None:
    propose(river)
    river.clock.advance(timedelta(hours=1))
    sign_up(river, "late")
    with river.database.transaction() as session:
        session.add(Customer(id="gone", created_at=datetime(2026, 1, 1, tzinfo=UTC), erased_at=river.now))
        session.add(Customer(id="nowhere", created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    assert notify(river) == 3
    accept(river, except_first=0)
    with river.database.transaction() as session:
        session.execute(
            update(Mail).where(Mail.customer_id == "nowhere").values(state="queued", sent_at=None, due_at=None)
        )
    move_to(river, JUNE)
    assert in_force(river) == "2026-06-01"


def test_immaterial_change_needs_no_notice(river: River) -> None:
    propose(river, date(2026, 3, 10), material=False)
    assert notify(river) == 0
    move_to(river, date(2026, 3, 10))
    assert in_force(river) == "2026-03-10"


def test_same_text_past_day_and_used_day_are_rejected(river: River) -> None:
    with river.database.reading() as session:
        row = versions.in_force(session, river.now)
        assert row is not None
        same = row.text
    with pytest.raises(versions.PolicyRejectedError, match="identical to the text in force"):
        propose(river, text=same)
    with pytest.raises(versions.PolicyRejectedError, match="earliest day"):
        propose(river, date(2026, 3, 2), material=False)
    propose(river)
    with pytest.raises(versions.PolicyRejectedError, match="2026-06-01 already"):
        propose(river, text=NEW + "\nMore.\n")


def test_withdrawn_text_never_takes_effect(river: River) -> None:
    propose(river, date(2026, 3, 10), material=False)
    with river.database.transaction() as session:
        versions.withdraw(session, "2026-03-10", river.now)
    move_to(river, JUNE)
    assert in_force(river) == "2025-05-01"
    with river.database.transaction() as session, pytest.raises(versions.PolicyRejectedError):
        versions.withdraw(session, "2025-05-01", river.now)


def test_earlier_texts_are_available_by_day(river: River) -> None:
    propose(river, date(2026, 3, 10), material=False)
    move_to(river, JUNE)
    with river.database.reading() as session:
        shown, plain, _ = public_pages.page(session, river.now, VENDOR)
        assert "Another text." in plain
        assert 'href="/privacy/2025-05-01"' in shown
        old = public_pages.page_of(session, "2025-05-01")
        assert old is not None
        assert "Example Ledger is a business software product" in old[1]
        assert public_pages.page_of(session, "2024-01-01") is None


def test_notices_list_each_customer(river: River) -> None:
    propose(river)
    notify(river)
    accept(river)
    with river.database.reading() as session:
        row = session.get(Policy, "2026-06-01")
        assert row is not None
        found = list(versions.notices(session, row))
    assert {each.customer for each in found} == {row.id for row in river.rows(Customer)}
    assert {(each.state, each.sent_at) for each in found} == {("sent", river.now)}


def test_changes_are_removed_and_added_sentences() -> None:
    old, new = "# T\n\nKept 90 days.\n\nSame.\n", "# T\n\nKept 60 days.\n\nSame.\n"
    assert versions.changes(old, new) == (["Kept 90 days."], ["Kept 60 days."])


def test_page_shows_text_of_program_if_none_is_stored(brook: River, clock: MovableClock) -> None:
    with brook.database.transaction() as session:
        session.execute(Policy.__table__.delete())  # type: ignore[attr-defined]
    with brook.database.reading() as session:
        shown, _, effective = public_pages.page(session, clock.now(), VENDOR, FIRST)
    assert effective == FIRST
    assert "May 1, 2025" in shown
