"""Requests under the policy's section 6: deadlines, alarms, and what becomes of them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from pipeline.db.models import Mail, PrivacyRequest
from pipeline.privacy import requests
from tests.support.pipeline_under_test import River

ADA = "c0123456789abcdef0123456789abcd"


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-01-31T10:00", "2026-02-28T10:00"),  # the law's month ends before thirty days do
        ("2028-01-31T10:00", "2028-02-29T10:00"),
        ("2026-02-10T10:00", "2026-03-10T10:00"),
        ("2026-03-01T10:00", "2026-03-31T10:00"),  # the policy's thirty days end before the month does
        ("2026-12-31T23:59", "2027-01-30T23:59"),
    ],
)
def test_the_answer_is_due_after_thirty_days_or_a_month_whichever_is_earlier(received: str, due: str) -> None:
    assert requests.deadline(datetime.fromisoformat(received).replace(tzinfo=UTC)) == datetime.fromisoformat(
        due
    ).replace(tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda moment: 1900 < moment.year < 2200))
def test_no_deadline_is_later_than_thirty_days(received: datetime) -> None:
    assert timedelta(days=27) < requests.deadline(received) - received <= timedelta(days=30)


def open_one(river: River, kind: requests.Kind = "access", customer: str | None = ADA) -> str:
    with river.database.transaction() as session:
        details = {"sender": "ada@example.com"}
        row = requests.open_request(session, river.keyring(session), kind, customer, "page", river.now, details=details)
        return row.id


def all_mails(river: River) -> list[str]:
    with river.database.reading() as session:
        return list(
            session.execute(select(Mail.idempotency_key).order_by(Mail.created_at, Mail.idempotency_key)).scalars()
        )


def test_the_same_wish_of_the_same_customer_is_one_request_while_it_is_open(river: River) -> None:
    first = open_one(river)
    assert open_one(river) == first
    assert open_one(river, "erase") != first
    with river.database.transaction() as session:
        requests.close_request(session, first, "done", river.now)
    assert open_one(river) != first


def test_what_a_person_wrote_is_sealed(river: River) -> None:
    open_one(river)
    open_one(river, customer=None)
    with river.database.reading() as session:
        for row in session.execute(select(PrivacyRequest)).scalars():
            assert b"ada@example.com" not in (row.details or b"")
            assert row.details
            assert river.keyring(session).get(row.key_id).decrypt_json("privacy_request.details", row.details) == {  # type: ignore[union-attr]
                "sender": "ada@example.com"
            }


def test_the_operator_is_told_on_days_7_14_21_and_25_and_once_each(river: River) -> None:
    id = open_one(river)
    told: dict[int, list[str]] = {}
    for day in range(30):
        for _ in range(2):
            with river.database.transaction() as session:
                requests.queue_due_alerts(session, river.keyring(session), river.now)
        told[day] = all_mails(river)
        river.clock.advance(timedelta(days=1))
    new = {day: set(told[day]) - set(told.get(day - 1, [])) for day in told}
    assert {day: keys for day, keys in new.items() if keys} == {
        day: {f"request_due:{id}:{day}"} for day in (7, 14, 21, 25)
    }


def test_a_scheduler_that_slept_tells_the_last_alarm_only(river: River) -> None:
    id = open_one(river)
    river.clock.advance(timedelta(days=22))
    with river.database.transaction() as session:
        assert requests.queue_due_alerts(session, river.keyring(session), river.now) == 1
    assert all_mails(river) == [f"request_due:{id}:21"]


def test_what_is_answered_alarms_nobody(river: River) -> None:
    id = open_one(river)
    with river.database.transaction() as session:
        requests.close_request(session, id, "refused", river.now, "not the person")
    river.clock.advance(timedelta(days=22))
    with river.database.transaction() as session:
        assert requests.queue_due_alerts(session, river.keyring(session), river.now) == 0


def test_an_answer_to_what_is_not_open_says_so(river: River) -> None:
    id = open_one(river)
    with river.database.transaction() as session:
        requests.close_request(session, id, "done", river.now)
        for wrong in (id, "nothing"):
            with pytest.raises(requests.RequestNotFoundError, match=wrong):
                requests.close_request(session, wrong, "done", river.now)
