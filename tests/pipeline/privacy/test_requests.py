"""Privacy requests: deadlines, encryption of details, alerts to the operator, and answers."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from pipeline.db.models import Mail, PrivacyRequest
from pipeline.privacy import requests
from tests.support.pipeline_under_test import PipelineUnderTest

ADA = "c0123456789abcdef0123456789abcd"


@pytest.mark.parametrize(
    ("received", "due"),
    [
        ("2026-01-31T10:00", "2026-02-28T10:00"),  # the legal month ends before 30 days
        ("2028-01-31T10:00", "2028-02-29T10:00"),
        ("2026-02-10T10:00", "2026-03-10T10:00"),
        ("2026-03-01T10:00", "2026-03-31T10:00"),  # the 30 days of the policy end before the month
        ("2026-12-31T23:59", "2027-01-30T23:59"),
    ],
)
def test_deadline_is_earlier_of_thirty_days_and_a_month(received: str, due: str) -> None:
    assert requests.deadline(datetime.fromisoformat(received).replace(tzinfo=UTC)) == datetime.fromisoformat(
        due
    ).replace(tzinfo=UTC)


@given(st.datetimes(timezones=st.just(UTC)).filter(lambda moment: 1900 < moment.year < 2200))
def test_deadline_is_at_most_thirty_days(received: datetime) -> None:
    assert timedelta(days=27) < requests.deadline(received) - received <= timedelta(days=30)


def open_one(pipeline: PipelineUnderTest, kind: requests.Kind = "access", customer: str | None = ADA) -> str:
    with pipeline.database.transaction() as session:
        details = {"sender": "ada@example.com"}
        row = requests.open_request(
            session, pipeline.keyring(session), kind, customer, "page", pipeline.now, details=details
        )
        return row.id


def all_mails(pipeline: PipelineUnderTest) -> list[str]:
    with pipeline.database.reading() as session:
        return list(
            session.execute(select(Mail.idempotency_key).order_by(Mail.created_at, Mail.idempotency_key)).scalars()
        )


def test_same_request_is_stored_once_while_open(pipeline: PipelineUnderTest) -> None:
    first = open_one(pipeline)
    assert open_one(pipeline) == first
    assert open_one(pipeline, "erase") != first
    with pipeline.database.transaction() as session:
        requests.close_request(session, first, "done", pipeline.now)
    assert open_one(pipeline) != first


def test_details_are_encrypted(pipeline: PipelineUnderTest) -> None:
    open_one(pipeline)
    open_one(pipeline, customer=None)
    with pipeline.database.reading() as session:
        for row in session.execute(select(PrivacyRequest)).scalars():
            assert b"ada@example.com" not in (row.details or b"")
            assert row.details
            assert pipeline.keyring(session).get(row.key_id).decrypt_json("privacy_request.details", row.details) == {  # type: ignore[union-attr]
                "sender": "ada@example.com"
            }


def test_operator_is_alerted_once_on_days_7_14_21_and_25(pipeline: PipelineUnderTest) -> None:
    id = open_one(pipeline)
    mails_by_day: dict[int, list[str]] = {}
    for day in range(30):
        for _ in range(2):
            with pipeline.database.transaction() as session:
                requests.queue_due_alerts(session, pipeline.keyring(session), pipeline.now)
        mails_by_day[day] = all_mails(pipeline)
        pipeline.clock.advance(timedelta(days=1))
    new = {day: set(mails_by_day[day]) - set(mails_by_day.get(day - 1, [])) for day in mails_by_day}
    assert {day: keys for day, keys in new.items() if keys} == {
        day: {f"request_due:{id}:{day}"} for day in (7, 14, 21, 25)
    }


def test_only_latest_alert_is_sent_after_a_pause(pipeline: PipelineUnderTest) -> None:
    id = open_one(pipeline)
    pipeline.clock.advance(timedelta(days=22))
    with pipeline.database.transaction() as session:
        assert requests.queue_due_alerts(session, pipeline.keyring(session), pipeline.now) == 1
    assert all_mails(pipeline) == [f"request_due:{id}:21"]


def test_closed_request_causes_no_alert(pipeline: PipelineUnderTest) -> None:
    id = open_one(pipeline)
    with pipeline.database.transaction() as session:
        requests.close_request(session, id, "refused", pipeline.now, "not the person")
    pipeline.clock.advance(timedelta(days=22))
    with pipeline.database.transaction() as session:
        assert requests.queue_due_alerts(session, pipeline.keyring(session), pipeline.now) == 0


def test_closing_a_request_that_is_not_open_fails(pipeline: PipelineUnderTest) -> None:
    id = open_one(pipeline)
    with pipeline.database.transaction() as session:
        requests.close_request(session, id, "done", pipeline.now)
        for wrong in (id, "nothing"):
            with pytest.raises(requests.RequestNotFoundError, match=wrong):
                requests.close_request(session, wrong, "done", pipeline.now)


@pytest.mark.parametrize(
    ("customer", "state", "mailed"), [(ADA, "refused", True), (ADA, "done", False), (None, "refused", False)]
)
def test_refusal_is_mailed_with_its_reason_to_a_known_customer(
    pipeline: PipelineUnderTest, customer: str | None, state: requests.State, mailed: bool
) -> None:
    """GDPR article 12(4). Without a customer no address is proved."""
    id = open_one(pipeline, customer=customer)
    reason = "Tax law obliges us to keep it."
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        assert requests.answer_request(session, keyring, id, state, pipeline.now, reason) is mailed
    found = [row for row in pipeline.rows(Mail) if row.kind == "request_refused"]
    assert [row.customer_id for row in found] == ([ADA] if mailed else [])
    with pipeline.database.transaction() as session:
        for row in found:
            key = pipeline.keyring(session).system_key(row.key_id)
            assert (key.decrypt_json("mail.facts", row.facts) or {})["reason"] == reason
