"""Bulk statements and row sets: exactly the changed values are written, for any content."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.db.bulk import RowSet, bulk_update_partial, in_list, insert_new, table_of
from pipeline.db.models import Base, Customer, Payment, Plan, Refund, Subscription
from pipeline.db.rows import PaymentRow, PlanRow, RefundRow, SubscriptionRow
from tests.support.pipeline_under_test import PipelineUnderTest

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
BLANK = {"known": {}, "created_at": NOON}
ODD = 'a\\"b{},\x00\n\u2028é'


@pytest.mark.parametrize(
    ("table", "row"), [(Plan, PlanRow), (Subscription, SubscriptionRow), (Payment, PaymentRow), (Refund, RefundRow)]
)
def test_plain_row_has_columns_of_its_table(table: type[Base], row: type[Any]) -> None:
    assert {field.name for field in fields(row)} == set(table_of(table).c.keys())


def test_missing_row_is_locked_as_placeholder_and_filled(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        rows = RowSet(session, Subscription, SubscriptionRow)
        rows.lock(["I-2", "I-1", "I-2"], BLANK)
        assert list(rows) == ["I-1", "I-2"]
        rows["I-1"].known, rows["I-1"].personal_data, rows["I-1"].paid_through = (
            {"custom": ["x", ODD]},
            b"\x00\xff",
            NOON,
        )
        rows.write()
    one, two = sorted(pipeline.rows(Subscription), key=lambda row: row.id)
    assert (one.known, one.personal_data, one.paid_through) == ({"custom": ["x", ODD]}, b"\x00\xff", NOON)
    assert (two.known, two.personal_data, two.created_at) == ({}, None, NOON)


def test_written_row_can_be_changed_again(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        rows = RowSet(session, Subscription, SubscriptionRow)
        rows.lock(["I-1", "I-2"], BLANK)
        rows["I-2"].status = "ACTIVE"
        rows.write()
        rows["I-2"].status = None
        rows.write()
    assert [row.status for row in pipeline.rows(Subscription)] == [None, None]


def test_row_is_inserted_and_found_by_any_text(pipeline: PipelineUnderTest) -> None:
    odd = ODD.replace("\x00", "")
    with pipeline.database.transaction() as session:
        rows = RowSet(session, Payment, PaymentRow)
        rows.add(PaymentRow(odd, {}, subscription_id="I-1"))
        rows.write()
        again = RowSet(session, Payment, PaymentRow)
        again.read(in_list(Payment.id, ["other", odd, "", "NULL"]))
        assert list(again) == [odd]
        again.read(in_list(Payment.subscription_id, []))
        assert list(again) == [odd]


def test_update_sets_named_columns_of_allowed_rows(pipeline: PipelineUnderTest) -> None:
    odd = ODD.replace("\x00", "")
    with pipeline.database.transaction() as session:
        rows = RowSet(session, Subscription, SubscriptionRow)
        rows.lock([odd, "I-1", "I-2", "I-3"], BLANK)
        for id in rows:
            rows[id].status = "SUSPENDED" if id == "I-3" else "ACTIVE"
        rows.write()
        changes: list[dict[str, object]] = [
            {"id": odd, "status": odd, "known": {"x": [ODD]}, "personal_data": b"\x00\xff\\", "paid_through": NOON},
            {"id": "I-1", "status": None, "known": {}, "personal_data": None, "paid_through": None},
            {"id": "I-2", "paid_through": NOON},
            {"id": "I-3", "paid_through": NOON},
            {"id": "I-4", "paid_through": NOON},
        ]
        assert bulk_update_partial(session, Subscription, changes, only={"status": ["ACTIVE", "EXPIRED"]}) == 3
        assert bulk_update_partial(session, Subscription, []) == 0
    found = {
        row.id: (row.status, row.known, row.personal_data, row.paid_through) for row in pipeline.rows(Subscription)
    }
    assert found == {
        odd: (odd, {"x": [ODD]}, b"\x00\xff\\", NOON),
        "I-1": (None, {}, None, None),
        "I-2": ("ACTIVE", {}, None, NOON),
        "I-3": ("SUSPENDED", {}, None, None),
    }


def test_new_rows_with_and_without_bytes_are_inserted_together(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        rows = RowSet(session, Subscription, SubscriptionRow)
        rows.add(SubscriptionRow(id="I-1", known={"x": ODD}, created_at=NOON, personal_data=b"\x00\xff\\"))
        rows.add(SubscriptionRow(id="I-2", known={}, created_at=NOON, personal_data=None))
        rows.write()
    found = {row.id: (row.known, row.personal_data) for row in pipeline.rows(Subscription)}
    assert found == {"I-1": ({"x": ODD}, b"\x00\xff\\"), "I-2": ({}, None)}


def test_insert_new_skips_existing_rows_and_returns_inserted_ids(pipeline: PipelineUnderTest) -> None:
    with pipeline.database.transaction() as session:
        session.add(Customer(id="bea", created_at=NOON))
    later = NOON + timedelta(days=1)
    rows = [{"id": name, "created_at": later} for name in ("ada", "bea", "cyd")]
    with pipeline.database.transaction() as session:
        assert sorted(insert_new(session, Customer, rows, returning=Customer.id)) == ["ada", "cyd"]
        assert insert_new(session, Customer, rows, returning=Customer.id) == []
        assert insert_new(session, Customer, [], returning=Customer.id) == []
    assert {row.id: row.created_at for row in pipeline.rows(Customer)} == {"ada": later, "bea": NOON, "cyd": later}


def test_insert_new_accepts_more_rows_than_statement_parameters(pipeline: PipelineUnderTest) -> None:
    rows = [{"id": f"c{number:05}", "created_at": NOON} for number in range(20_000)]
    with pipeline.database.transaction() as session:
        assert len(insert_new(session, Customer, rows, returning=Customer.id)) == len(rows)
