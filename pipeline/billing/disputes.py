"""Disputes: what a buyer disputes, until when the vendor must answer, and how it ended.

A dispute itself changes no payment: PayPal takes money by a reversal, which has its own event. After a won dispute PayPal
sends no event for the money that it returns, so the reversals of the payment are looked up.
https://developer.paypal.com/docs/disputes/
"""

from datetime import timedelta
from typing import Any

from pipeline.billing.unit_of_work import UnitOfWork
from pipeline.clock import format_time, parse_time
from pipeline.db import lww_map
from pipeline.db.rows import DisputeRow
from pipeline.inbox.event import Event
from pipeline.outbox import store as outbox

FIELDS = ("sale", "status", "stage", "reason", "amount", "due_at", "outcome", "created_at")
RESOLVED = "RESOLVED"
# PayPal returns the money of a won dispute within minutes to hours.
LOOKUP_DELAY = timedelta(hours=1)


def apply_event(uow: UnitOfWork, event: Event) -> DisputeRow:
    """Store what an event reports about a dispute. Return the dispute. Raises ParkEvent without an id or a time."""
    row, at = uow.dispute(event.require("dispute")), event.require_time("at")
    row.known = lww_map.merge(row.known, at, {field: event.facts.get(field) for field in FIELDS})
    if event.facts.get("status") == RESOLVED or event.facts.get("outcome"):
        row.known = lww_map.merge(row.known, at, {"resolved": True})
    _update(row)
    if uow.may_read and not uow.is_history:
        _look_up_unknown(uow, event, row)
        if row.resolved_at is not None:
            _look_up_reversals(uow, row)
    return row


def mail_operator(uow: UnitOfWork, row: DisputeRow) -> None:
    """Queue the operator's mail: one when the dispute is opened, one for each new deadline, one when it has ended."""
    due = format_time(row.due_at) if row.due_at else ""
    stage = f"resolved:{row.outcome}" if row.resolved_at else due
    payment = uow.payment(row.payment_id) if row.payment_id else None
    facts = {
        "dispute": row.id,
        "payment": row.payment_id or "",
        "subscription": (payment and payment.subscription_id) or "",
        "amount": {"amount": row.amount, "currency": row.currency} if row.amount is not None else None,
        "due_at": due or None,
        "reason": _words(row.reason),
        "stage": _words(row.stage),
        "outcome": _words(row.outcome) or ("resolved" if row.resolved_at else None),
    }
    uow.add_mail(outbox.NewMail("dispute", f"dispute:{row.id}:{stage}", None, facts))


def _update(row: DisputeRow) -> None:
    """Recompute the columns from `known`."""
    known: dict[str, Any] = row.known
    row.payment_id = lww_map.value(known, "sale")
    row.status, row.stage = lww_map.value(known, "status"), lww_map.value(known, "stage")
    row.reason, row.outcome = lww_map.value(known, "reason"), lww_map.value(known, "outcome")
    row.amount, row.currency = lww_map.value(known, "amount") or (None, None)
    row.due_at, row.opened_at = (parse_time(lww_map.value(known, field)) for field in ("due_at", "created_at"))
    row.resolved_at = lww_map.updated_at(known, "resolved")


def _look_up_unknown(uow: UnitOfWork, event: Event, row: DisputeRow) -> None:
    """Look up the dispute if its events have named no payment, or the payment if its own event has not arrived."""
    if row.payment_id is None:
        if event.type != "READ.DISPUTE":
            uow.request_lookup("dispute", row.id, timedelta(0))
    elif not uow.payment(row.payment_id).known:
        uow.request_lookup("sale", row.payment_id, LOOKUP_DELAY)


def _look_up_reversals(uow: UnitOfWork, row: DisputeRow) -> None:
    reversals = [each for each in uow.refunds_of(row.payment_id or "") if each.kind == "reversal"]
    for each in reversals:
        uow.request_lookup("refund", each.id, LOOKUP_DELAY)
    if row.payment_id:
        uow.request_lookup("sale", row.payment_id, LOOKUP_DELAY)


def _words(code: str | None) -> str | None:
    """Return PayPal's code in words, such as `resolved buyer favour`."""
    return code.replace("_", " ").lower() if code else None
