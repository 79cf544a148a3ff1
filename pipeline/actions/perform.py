"""Carry out ordered actions at PayPal, outside any transaction.

A process may stop at any point: the row is due again after a lease. Capture and refund have a key, so PayPal carries them
out once. The others have none; before each of them PayPal is asked whether it has been done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.db.engine import Database
from pipeline.db.models import Action, Payment
from pipeline.inbox import lookups
from pipeline.inbox.lookups import LookupRequest
from pipeline.money import Money
from pipeline.paypal import actions as calls
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError, PaypalUnavailableError

log = structlog.get_logger(__name__)

LEASE = timedelta(minutes=2)  # longer than two exchanges with PayPal
RETRY_DELAYS = (timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=3))
GIVE_UP_AFTER = timedelta(days=1)  # PayPal keeps a request's key for longer
LIMIT = 100
TARGETS = {"cancel": "CANCELLED", "suspend": "SUSPENDED", "activate": "ACTIVE"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action ended, in a sentence. `state`: done, refused, failed, or requested if it is tried again."""

    state: str
    text: str
    lookups: tuple[tuple[str, str], ...] = ()


def perform(database: Database, clock: Clock, paypal: PaypalApi, id: str) -> Outcome:
    """Carry out one action now, unless it has ended or another process does it. Return its outcome."""
    with database.transaction() as session:
        row = session.get(Action, id, with_for_update=True)
        now = clock.now()
        if row is None or row.due_at is None or row.due_at > now:
            return Outcome(row.state if row else "failed", (row and row.outcome) or "another process carries it out")
        row.due_at = now + LEASE
        kind, object_id, parameters, reason = row.kind, row.object_id, row.parameters, f"ordered by {row.actor}"
    outcome = _ask(lambda: CALLS[kind](paypal, id, object_id, parameters, reason))
    with database.transaction() as session:
        row = session.get(Action, id, with_for_update=True)
        return outcome if row is None else _settle(session, row, outcome, clock.now())


def perform_due(database: Database, clock: Clock, paypal: PaypalApi) -> int:
    """Carry out the actions that are due. Return how many."""
    with database.reading() as session:
        due = select(Action.id).where(Action.due_at <= clock.now()).order_by(Action.due_at).limit(LIMIT)
        ids = list(session.execute(due).scalars())
    for id in ids:
        perform(database, clock, paypal, id)
    return len(ids)


def _settle(session: Session, row: Action, outcome: Outcome, now: datetime) -> Outcome:
    row.attempts += 1
    if outcome.state == "requested" and now - row.requested_at >= GIVE_UP_AFTER:
        outcome = Outcome("failed", f"given up after a day: {outcome.text}", outcome.lookups)
    row.state, row.outcome = outcome.state, outcome.text
    if outcome.state == "requested":
        row.due_at = now + RETRY_DELAYS[min(row.attempts, len(RETRY_DELAYS)) - 1]
    else:
        row.due_at, row.done_at = None, now
    wanted = [*outcome.lookups, *_related(session, row)]
    lookups.enqueue(session, [LookupRequest(kind, id, now, now) for kind, id in wanted])  # type: ignore[arg-type]
    log.info("action", id=row.id, kind=row.kind, object_id=row.object_id, state=row.state, attempts=row.attempts)
    return outcome


def _related(session: Session, row: Action) -> list[tuple[str, str]]:
    """Return what PayPal is asked about afterwards, whatever the outcome: state changes only by its answer."""
    if row.kind != "refund":
        return [("subscription", row.object_id)]
    payment = session.get(Payment, row.object_id)
    of = [("subscription", payment.subscription_id)] if payment and payment.subscription_id else []
    return [("sale", row.object_id), *of]


def _ask(call: Callable[[], Outcome]) -> Outcome:
    try:
        return call()
    except PaypalNotFoundError as error:
        return Outcome("refused", str(error))
    except PaypalRejectedError as error:
        is_about_credentials = error.status in (401, 403)
        return Outcome("requested" if is_about_credentials else "refused", str(error))
    except PaypalUnavailableError as error:
        return Outcome("requested", str(error))


def _change_status(verb: str) -> "Call":
    def change(paypal: PaypalApi, _key: str, id: str, _parameters: dict[str, Any], reason: str) -> Outcome:
        target = TARGETS[verb]
        if paypal.get("subscription", id).get("status") == target:
            return Outcome("done", f"the subscription is {target} at PayPal")
        try:
            calls.change_status(paypal, id, verb, reason)
        except PaypalRejectedError as error:
            # A call whose answer was lost may have done it: PayPal then refuses the repetition.
            if error.status != 422 or paypal.get("subscription", id).get("status") != target:
                raise
        return Outcome("done", f"PayPal accepted: {verb}")

    return change


def _capture(paypal: PaypalApi, key: str, id: str, parameters: dict[str, Any], reason: str) -> Outcome:
    calls.capture_balance(paypal, id, _money(parameters), reason, key)
    return Outcome("done", "PayPal accepted: capture")


def _revise(paypal: PaypalApi, _key: str, id: str, parameters: dict[str, Any], _reason: str) -> Outcome:
    found = paypal.get("subscription", id)
    plan, quantity = parameters.get("plan"), parameters.get("quantity")
    if plan in (None, found.get("plan_id")) and str(quantity) in ("None", str(found.get("quantity"))):
        return Outcome("done", "the subscription has this plan and quantity at PayPal")
    consent = calls.revise(paypal, id, plan, quantity)
    return Outcome("done", f"the buyer must agree at {consent}" if consent else "PayPal accepted: revise")


def _refund(paypal: PaypalApi, key: str, id: str, parameters: dict[str, Any], _reason: str) -> Outcome:
    try:
        refund = calls.refund_sale(paypal, id, _money(parameters), key)
    except PaypalNotFoundError:  # PayPal's two APIs serve different payments, and the id does not tell which
        refund = calls.refund_capture(paypal, id, _money(parameters), key)
    return Outcome("done", f"PayPal accepted: refund {refund}", (("refund", refund),) if refund else ())


def _money(parameters: dict[str, Any]) -> Money:
    return Money(parameters["amount"], parameters["currency"])


Call = Callable[[PaypalApi, str, str, dict[str, Any], str], Outcome]
CALLS: dict[str, Call] = {
    **{verb: _change_status(verb) for verb in TARGETS},
    "capture": _capture,
    "revise": _revise,
    "refund": _refund,
}
