"""Parse subscriptions, old billing agreements and plans into facts; `resources` lists their keys."""

from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pipeline.paypal.field_reader import Facts, FieldReader, Person, format_moment, person_of

# PayPal's status names: those of the Subscriptions API, and those of the old billing agreements.
STATUSES = {
    "APPROVAL_PENDING": "APPROVAL_PENDING",
    "APPROVED": "APPROVED",
    "ACTIVE": "ACTIVE",
    "SUSPENDED": "SUSPENDED",
    "CANCELLED": "CANCELLED",
    "EXPIRED": "EXPIRED",
    "PENDING": "APPROVAL_PENDING",
    "CREATED": "APPROVAL_PENDING",
    "REACTIVATED": "ACTIVE",
    "SUSPEND": "SUSPENDED",
    "CANCEL": "CANCELLED",
    "CANCELED": "CANCELLED",
    "COMPLETED": "EXPIRED",
}
# The status that follows from the event type, for resources without a status.
STATUS_OF_EVENT = {
    "BILLING.SUBSCRIPTION.CREATED": "APPROVAL_PENDING",
    "BILLING.SUBSCRIPTION.ACTIVATED": "ACTIVE",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED": "ACTIVE",
    "BILLING.SUBSCRIPTION.SUSPENDED": "SUSPENDED",
    "BILLING.SUBSCRIPTION.CANCELLED": "CANCELLED",
    "BILLING.SUBSCRIPTION.EXPIRED": "EXPIRED",
}
LONGEST = 366  # units of a billing cycle; PayPal allows 365 days, 52 weeks, 12 months or one year
UNITS = frozenset({"DAY", "WEEK", "MONTH", "YEAR"})


def read_subscription(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts and the personal data of a subscription or billing agreement."""
    if "agreement_details" in resource or "payer" in resource:
        return _agreement(kind, resource, occurred_at)
    read = FieldReader(resource)
    failed = ("billing_info", "last_failed_payment")
    status_at = read.time("status_update_time")
    facts = {
        "subscription": read.id("id"),
        "status": _status(kind, read.text("status")),
        "status_at": status_at or read.time("update_time") or format_moment(occurred_at),
        "at": _time_of_facts(kind, read, occurred_at)
        or status_at
        or format_moment(occurred_at)
        or read.time("create_time"),
        "status_changed_at": status_at,
        "plan": read.id("plan_id"),
        "terms": _own_terms(read),
        "quantity": read.number("quantity"),
        "start_at": read.time("start_time"),
        "next_billing_at": read.time("billing_info", "next_billing_time"),
        "last_payment_at": read.time("billing_info", "last_payment", "time"),
        "failed_count": read.number("billing_info", "failed_payments_count"),
        "outstanding": read.unsigned_money("billing_info", "outstanding_balance"),
        "shipping": read.unsigned_money("shipping_amount"),
        "cycles_left": _cycles_left(read.get("billing_info", "cycle_executions")),
        "final_at": read.time("billing_info", "final_payment_time"),
        "failed_at": read.time(*failed, "time"),
        "failed_amount": read.money(*failed, "amount"),
        "failed_reason": read.text(*failed, "reason_code", limit=60),
        # PayPal's mock server and PayPal's specification use different names for this field.
        "retry_at": read.time(*failed, "next_payment_retry_time") or read.time(*failed, "next_payment_retry_date"),
        "unread": read.unread or None,
    }
    return facts, _subscriber(read)


def _time_of_facts(kind: str, read: FieldReader, occurred_at: datetime | None) -> str | None:
    """Return the time of the facts. An answer to a look-up is as new as the look-up, even if PayPal's update time is older:
    PayPal does not change that at a renewal."""
    updated_at, read_at = read.time("update_time"), format_moment(occurred_at)
    return max(updated_at or "", read_at or "") or None if kind.startswith("READ.") else updated_at


def _own_terms(read: FieldReader) -> Facts | None:
    """Return the terms in a subscription, with the plan that they belong to: after a change of plan they no longer hold."""
    terms = _v2_billing_cycle(read.get("plan"))
    if terms is None:
        return None
    overridden = _true(is_overridden=read.get("plan_overridden") is True)
    return terms | _present({"plan": read.id("plan_id")}) | overridden


def _subscriber(read: FieldReader) -> Person:
    return person_of(
        custom=read.text("custom_id", limit=127),
        payer=read.text("subscriber", "payer_id", limit=50),
        given_name=read.text("subscriber", "name", "given_name"),
        surname=read.text("subscriber", "name", "surname"),
        email=read.text("subscriber", "email_address", limit=254),
    )


def _agreement(kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Parse a billing agreement (v1). It has no update time, so the event's time is used. It contains its plan."""
    read = FieldReader(resource)
    currency = read.text("plan", "curr_code")
    details = "agreement_details"
    facts = {
        "subscription": read.id("id"),
        "status": _status(kind, read.text("state")),
        "status_at": format_moment(occurred_at),
        "at": format_moment(occurred_at),
        "terms": _v1_billing_cycle(read.get("plan"), currency),
        "start_at": read.time("start_date"),
        "next_billing_at": read.time(details, "next_billing_date"),
        "last_payment_at": read.time(details, "last_payment_date"),
        "failed_count": read.number(details, "failed_payment_count"),
        "outstanding": read.unsigned_money(details, "outstanding_balance", currency=currency),
        "unread": read.unread or None,
    }
    info = ("payer", "payer_info")
    return facts, person_of(
        payer=read.text(*info, "payer_id", limit=50),
        given_name=read.text(*info, "first_name"),
        surname=read.text(*info, "last_name"),
        email=read.text(*info, "email", limit=254),
    )


def read_plan(_kind: str, resource: dict[str, Any], occurred_at: datetime | None) -> tuple[Facts, Person]:
    """Return the facts of a plan, which contains no personal data."""
    read = FieldReader(resource)
    facts = {
        "plan": read.id("id"),
        "name": read.text("name", limit=127),
        "terms": _v2_billing_cycle(resource),
        "at": read.time("update_time") or read.time("create_time") or format_moment(occurred_at),
        "unread": read.unread or None,
    }
    return facts, {}


def _v2_billing_cycle(plan: Any) -> Facts | None:
    """Return the terms of a v2 plan: the regular cycle, and everything else that decides the amount of a charge.

    `price`: of one unit, None with tiers. `tiers`: [first unit, last unit or None, price of a unit] with `is_graduated` if
    each unit has the price of its own tier. `trials`: sequence, unit, count, total and price (None: free) of each trial.
    `tax`: percentage that PayPal adds to the price. `setup_fee`, `failures` (failed charges after which PayPal suspends).
    `has_surcharge`: something is added that cannot be read. `bills_balance`: PayPal adds outstanding amounts to the next
    charge. `version`: of the price, which holds since `price_at`.
    """
    regular = _regular_cycle(plan, "billing_cycles", "tenure_type")
    found = None if regular is None else _interval(FieldReader(regular))
    if regular is None or found is None:
        return None
    of, read = FieldReader(plan), FieldReader(regular)
    adds_tax = of.get("taxes", "inclusive") is False
    tax = _percentage(of.get("taxes", "percentage")) if adds_tax else "0"
    more = {
        "tax": tax if tax and tax != "0" else None,
        "tiers": _tiers(read.get("pricing_scheme", "tiers")),
        "trials": _trials(plan["billing_cycles"]) or None,
        "setup_fee": _positive(of.money("payment_preferences", "setup_fee")),
        "failures": of.number("payment_preferences", "payment_failure_threshold"),
        "version": read.number("pricing_scheme", "version"),
        "price_at": read.time("pricing_scheme", "update_time"),
    }
    flags = _true(
        is_graduated=read.get("pricing_scheme", "pricing_model") == "TIERED",
        has_surcharge=tax is None,
        bills_balance=of.get("payment_preferences", "auto_bill_outstanding") is True,
        has_trial=len(plan["billing_cycles"]) > 1,
    )
    return found | {"price": read.unsigned_money("pricing_scheme", "fixed_price")} | _present(more) | flags


def _interval(cycle: FieldReader) -> Facts | None:
    unit, count = cycle.text("frequency", "interval_unit"), cycle.number("frequency", "interval_count") or 1
    return {"unit": unit, "count": count} if unit in UNITS and count <= LONGEST else None


def _trials(cycles: list[Any]) -> list[Facts]:
    """Return the trial cycles in their sequence. One that cannot be read has no `unit`."""
    trials = [FieldReader(each) for each in cycles if isinstance(each, dict) and each.get("tenure_type") == "TRIAL"]
    read = [
        {"sequence": each.number("sequence") or 0, "total": each.number("total_cycles") or 1}
        | (_interval(each) or {})
        | {"price": each.unsigned_money("pricing_scheme", "fixed_price")}
        for each in trials
    ]
    return sorted(read, key=lambda trial: trial["sequence"])


def _tiers(tiers: Any) -> list[list[Any]] | None:
    """Return [first unit, last unit or None, [amount, currency]] of each tier, None if there are none or one is unreadable."""
    if not isinstance(tiers, list) or not tiers:
        return None
    read = [FieldReader(each) for each in tiers if isinstance(each, dict)]
    found = [
        [each.number("starting_quantity"), each.number("ending_quantity"), each.unsigned_money("amount")]
        for each in read
    ]
    is_whole = len(found) == len(tiers) and all(first is not None and amount for first, _, amount in found)
    return sorted(found, key=lambda tier: tier[0]) if is_whole else None


def _percentage(text: Any) -> str | None:
    """Return a percentage without zeros at its end, None if it is none."""
    try:
        number = Decimal(str(text))
    except InvalidOperation:
        return None
    return f"{number.normalize():f}" if number.is_finite() and 0 <= number <= 100 else None


def _positive(money: list[Any] | None) -> list[Any] | None:
    return money if money and money[0] > 0 else None


def _present(values: Facts) -> Facts:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _true(**flags: bool) -> Facts:
    """Return the flags that are set."""
    return {name: True for name, flag in flags.items() if flag}


def _cycles_left(executions: Any) -> Facts | None:
    """Return how many cycles PayPal will still charge: trial in total and by sequence, regular (None: without end).

    `version`: of the price that PayPal charges this subscriber for a regular cycle; it may be older than the plan's.
    """
    if not isinstance(executions, list) or not executions:
        return None
    cycles = [FieldReader(cycle) for cycle in executions if isinstance(cycle, dict)]
    # `total_cycles` 0 means no end; `cycles_remaining` is then 0 as well.
    left = [
        (each.text("tenure_type"), each.number("sequence"), each.number("cycles_remaining"))
        for each in cycles
        if each.number("total_cycles")
    ]
    trials = [[sequence or 0, remaining or 0] for tenure, sequence, remaining in left if tenure == "TRIAL"]
    regular = [remaining for tenure, _, remaining in left if tenure == "REGULAR"]
    more = {"trials": sorted(trials)} if trials else {}
    versions = [
        each.number("current_pricing_scheme_version") for each in cycles if each.text("tenure_type") == "REGULAR"
    ]
    more |= _present({"version": versions[0] if versions else None})
    return {"trial": sum(remaining for _, remaining in trials), "regular": regular[0] if regular else None, **more}


def _regular_cycle(plan: Any, cycles: str, kind: str) -> dict[str, Any] | None:
    """Return the plan's regular cycle."""
    found = plan.get(cycles) if isinstance(plan, dict) else None
    for cycle in found if isinstance(found, list) else []:
        if isinstance(cycle, dict) and cycle.get(kind) == "REGULAR":
            return cycle
    return None


def _v1_billing_cycle(plan: Any, currency: str | None) -> Facts | None:
    """Return interval and price of the regular payment definition of a v1 plan."""
    regular = _regular_cycle(plan, "payment_definitions", "type")
    if regular is None:
        return None
    read = FieldReader(regular)
    unit, count = (read.text("frequency") or "").upper(), read.number("frequency_interval") or 1
    if unit not in UNITS or count > LONGEST:
        return None
    bills_balance = FieldReader(plan).get("merchant_preferences", "auto_bill_amount") == "YES"
    has_trial = len(plan["payment_definitions"]) > 1
    more = _true(has_surcharge=bool(read.get("charge_models")), bills_balance=bills_balance, has_trial=has_trial)
    return {"unit": unit, "count": count, "price": read.money("amount", currency=currency), **more}


def _status(kind: str, text: str | None) -> str | None:
    return STATUSES.get((text or "").upper()) or STATUS_OF_EVENT.get(kind)
