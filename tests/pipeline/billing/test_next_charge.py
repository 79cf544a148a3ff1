"""The next charge: which terms hold, how PayPal composes an amount, and when no figure is certain."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.billing.next_charge import next_charge
from pipeline.billing.terms import billing_cycle_of, regular_charge, terms_of
from pipeline.db import lww_map
from pipeline.db.models import Plan, Subscription
from pipeline.money import Money

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)
DAY = timedelta(days=1)
MONTHLY = {"unit": "MONTH", "count": 1, "price": [1000, "EUR"]}


def plan(at: datetime = NOW, id: str = "P-1", **terms: Any) -> Plan:
    return Plan(id=id, known=lww_map.merge({}, at, {"terms": MONTHLY | terms}))


def subscription(at: datetime = NOW, outstanding: tuple[int, str] | None = (0, "EUR"), **known: Any) -> Subscription:
    amount, currency = outstanding or (None, None)
    return Subscription(
        id="I-1", plan_id="P-1", status="ACTIVE", next_billing_at=NOW + 3 * DAY, outstanding=amount,
        outstanding_currency=currency, known=lww_map.merge({}, at, {"plan": "P-1"} | known),
    )  # fmt: skip


def left(trials: list[list[int]], regular: int | None = None) -> dict[str, Any]:
    return {"trial": sum(cycles for _, cycles in trials), "regular": regular, "trials": trials}


# Which terms hold


def test_terms_of_the_old_plan_end_with_the_change_of_plan() -> None:
    """The customer was on P-1, and P-2 costs 100.00 a year. A snapshot with P-2's terms has not come yet."""
    row = subscription(terms=MONTHLY | {"plan": "P-1"})
    row.plan_id = "P-2"
    assert terms_of(row, None) == {}
    yearly = plan(NOW - DAY, "P-2", unit="YEAR", price=[10000, "EUR"])
    assert next_charge(row, yearly).total == Money(10000, "EUR")


@pytest.mark.parametrize(
    ("own_at", "overridden", "price"),
    [(NOW - DAY, False, 2500), (NOW - DAY, True, 1000), (NOW + DAY, False, 1000)],
    ids=["plan is newer", "price was overridden", "snapshot is newer"],
)
def test_changed_price_of_the_plan_holds_until_a_newer_snapshot(own_at: datetime, overridden: bool, price: int) -> None:
    own = MONTHLY | {"plan": "P-1"} | ({"is_overridden": True} if overridden else {})
    row, dearer = subscription(own_at, terms=own), plan(NOW, price=[2500, "EUR"])
    assert next_charge(row, dearer).total == Money(price, "EUR")


# Amounts


@pytest.mark.parametrize(
    ("terms", "known", "parts"),
    [
        ({}, {}, (1000, 0, 0)),
        ({}, {"quantity": 3}, (3000, 0, 0)),
        ({}, {"shipping": [490, "EUR"]}, (1000, 0, 490)),
        ({"tax": "19"}, {}, (1000, 190, 0)),
        ({"tax": "19"}, {"quantity": 3}, (3000, 570, 0)),
        ({"tax": "7.5", "price": [1033, "EUR"]}, {}, (1033, 77, 0)),  # 77.475
        ({"tax": "5", "price": [1010, "EUR"]}, {}, (1010, 51, 0)),  # 50.5 rounds half up
        ({"tax": "10", "price": [1985, "JPY"]}, {}, (1985, 199, 0)),  # 198.5 yen
    ],
)
def test_charge_is_price_times_quantity_tax_and_shipping(
    terms: dict[str, Any], known: dict[str, Any], parts: tuple[int, int, int]
) -> None:
    charge = regular_charge(subscription(**known), plan(**terms))
    assert charge
    assert (charge.price.amount, charge.tax.amount, charge.shipping.amount) == parts
    cycle = billing_cycle_of(subscription(**known), plan(**terms))
    assert cycle
    assert cycle.price == charge.total == Money(sum(parts), charge.price.currency)


TIERS = [[1, 10, [500, "EUR"]], [11, 20, [400, "EUR"]], [21, None, [300, "EUR"]]]


@pytest.mark.parametrize(
    ("quantity", "volume", "graduated"),
    [(1, 500, 500), (10, 5000, 5000), (11, 4400, 5400), (25, 7500, 5000 + 4000 + 1500)],
)
def test_price_depends_on_the_quantity(quantity: int, volume: int, graduated: int) -> None:
    row = subscription(quantity=quantity)
    found = [regular_charge(row, plan(price=None, tiers=TIERS, is_graduated=flag)) for flag in (False, True)]
    assert [charge and charge.price for charge in found] == [Money(volume, "EUR"), Money(graduated, "EUR")]


@pytest.mark.parametrize(
    "tiers",
    [
        [[1, 10, [500, "EUR"]]],
        [[1, 5, [500, "EUR"]], [9, None, [1, "EUR"]]],
        [[1, 5, [5, "EUR"]], [6, None, [1, "USD"]]],
    ],
    ids=["beyond the last tier", "gap", "two currencies"],
)
def test_price_is_unknown_if_the_tiers_do_not_cover_the_quantity(tiers: list[Any]) -> None:
    assert regular_charge(subscription(quantity=11), plan(price=None, tiers=tiers, is_graduated=True)) is None


def test_open_balance_is_added_if_the_plan_bills_it() -> None:
    row = subscription(outstanding=(1000, "EUR"))
    assert next_charge(row, plan(bills_balance=True)).total == Money(2000, "EUR")
    assert next_charge(row, plan()).total is None


@pytest.mark.parametrize(
    ("row", "terms"),
    [
        (subscription(outstanding=None), {}),
        (subscription(outstanding=(1000, "USD")), {"bills_balance": True}),
        (subscription(), {"has_surcharge": True}),
        (subscription(), {"price": None}),
        (subscription(), {"has_trial": True}),
        (subscription(), {"setup_fee": [500, "EUR"]}),
        (subscription(shipping=[490, "EUR"]), {"tax": "19"}),
    ],
    ids=["balance", "currency", "surcharge", "price", "trial", "set-up fee", "tax on shipping"],
)
def test_no_amount_is_named_that_is_not_certain(row: Subscription, terms: dict[str, Any]) -> None:
    assert next_charge(row, plan(**terms)).total is None


def test_setup_fee_belongs_to_the_first_charge_only() -> None:
    row = subscription(last_payment_at="2026-02-01T10:00:00Z")
    assert next_charge(row, plan(setup_fee=[500, "EUR"])).total == Money(1000, "EUR")


# Trials


TRIALS = [
    {"sequence": 1, "total": 1, "unit": "WEEK", "count": 2, "price": None},
    {"sequence": 2, "total": 3, "unit": "MONTH", "count": 1, "price": [500, "EUR"]},
]


@pytest.mark.parametrize(
    ("cycles_left", "total", "period"),
    [
        (left([[1, 1], [2, 3]]), None, None),
        (left([[1, 0], [2, 3]]), 500, ("MONTH", 1)),
        (left([[1, 0], [2, 0]]), 1000, ("MONTH", 1)),
    ],
    ids=["free trial", "half price", "regular"],
)
def test_next_charge_is_that_of_the_first_trial_with_cycles_left(
    cycles_left: dict[str, Any], total: int | None, period: tuple[str, int] | None
) -> None:
    """PayPal collects nothing for a free cycle, so its next charge is a later one, which is not certain."""
    found = next_charge(subscription(cycles_left=cycles_left), plan(has_trial=True, trials=TRIALS))
    assert (found.total, found.period) == (None if total is None else Money(total, "EUR"), period)


def test_trial_that_cannot_be_read_has_no_price() -> None:
    odd = [{"sequence": 1, "total": 1, "price": None}]
    found = next_charge(subscription(cycles_left=left([[1, 1]])), plan(has_trial=True, trials=odd))
    assert (found.total, found.period) == (None, None)
