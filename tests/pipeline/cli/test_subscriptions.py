"""`subscriptions`: list and show subscriptions with their history."""

import copy
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from pipeline.simulator.dispute import SimulatedDispute
from pipeline.simulator.people import PEOPLE
from pipeline.simulator.plans import CLOUD
from pipeline.simulator.subscription import SimulatedSubscription

from .conftest import NOW, SavedEvents, Smt

ROW = {"id", "status", "plan", "paid_through", "next_billing_at", "customer", "payments"}
PAYMENT = {"id", "amount", "currency", "status", "occurred_at"}


def test_subscription_list_has_documented_keys_and_minor_units(smt: Smt, imported: SavedEvents) -> None:
    [row] = smt("subscriptions", "list", "--json").json
    assert row.keys() >= ROW
    assert (row["id"], row["status"], row["plan"]) == (
        imported.subscription.id,
        "ACTIVE",
        imported.subscription.plan.id,
    )
    assert row["paid_through"].endswith("Z")
    [payment] = row["payments"]
    assert payment.keys() >= PAYMENT
    assert (payment["id"], payment["amount"], payment["currency"]) == (imported.sale, 2900, "EUR")
    assert (payment["status"], payment["refunded"]) == ("partially_refunded", 900)


def test_subscription_list_can_be_filtered_by_status(smt: Smt, imported: SavedEvents) -> None:
    assert len(smt("subscriptions", "list", "--status", "ACTIVE", "--json").json) == 1
    assert smt("subscriptions", "list", "--status", "CANCELLED", "--json").json == []
    assert smt("subscriptions", "list", "--status", "GONE").code == 2


def test_show_prints_subscription_with_history(smt: Smt, imported: SavedEvents) -> None:
    found = smt("subscriptions", "show", imported.subscription.id, "--json").json
    assert found.keys() >= ROW
    assert found["email"] == imported.subscription.person.email
    assert [change["new"] for change in found["changes"]] == ["APPROVAL_PENDING", "ACTIVE"]
    assert [refund["amount"] for refund in found["refunds"]] == [900]
    assert {mail["kind"] for mail in found["mails"]} == {"account_setup", "receipt", "refund_receipt"}


def test_history_is_in_order_with_formatted_amounts(smt: Smt, imported: SavedEvents) -> None:
    assert "€29.00" in smt("subscriptions", "list").out
    history = smt("subscriptions", "show", imported.subscription.id).out
    places = [history.index(words) for words in ("new → APPROVAL_PENDING", "€29.00", "-€9.00")]
    assert places == sorted(places)
    assert smt("subscriptions", "show", "I-NONE").code == 2


def test_placeholder_has_no_status(smt: Smt, saved_events: SavedEvents, tmp_path: Path) -> None:
    sale = next(each for each in saved_events.subscription.deliveries if each.type == "PAYMENT.SALE.COMPLETED")
    (tmp_path / "sale.json").write_bytes(sale.body)
    smt("db", "upgrade")
    smt("events", "import", tmp_path / "sale.json")
    smt("run", "--until-idle")
    [row] = smt("subscriptions", "list", "--json").json
    assert (row["id"], row["status"], row["plan"]) == (saved_events.subscription.id, None, None)
    assert "placeholder" in smt("subscriptions", "list").out
    assert "placeholder" in smt("subscriptions", "show", saved_events.subscription.id).out


@pytest.fixture
def overdue(smt: Smt, imported: SavedEvents, tmp_path: Path) -> SimulatedSubscription:
    """A subscription whose last charge failed, in addition to the imported one."""
    subscription = SimulatedSubscription(PEOPLE[1], CLOUD, NOW - timedelta(days=40), Random(8))
    subscription.start()
    subscription.fail_payment(attempts=1)
    for number, each in enumerate(subscription.deliveries):
        (tmp_path / f"{number}.json").write_bytes(each.body)
        smt("events", "import", tmp_path / f"{number}.json")
    smt("run", "--until-idle")
    return subscription


def test_past_due_subscription_is_marked_and_can_be_filtered(
    smt: Smt, imported: SavedEvents, overdue: SimulatedSubscription
) -> None:
    rows = {row["id"]: row for row in smt("subscriptions", "list", "--json").json}
    late, paid = rows[overdue.id], rows[imported.subscription.id]
    assert (late["past_due"], late["failed_count"]) == (True, 1)
    assert late["outstanding"] == {"amount": 2900, "currency": "EUR"}
    assert late["past_due_since"] == late["paid_through"]
    names = ("past_due", "past_due_since", "outstanding", "failed_count")
    assert [paid[name] for name in names] == [False, None, None, 0]
    assert [row["id"] for row in smt("subscriptions", "list", "--past-due", "--json").json] == [overdue.id]
    table = smt("subscriptions", "list", "--past-due").out
    assert overdue.id in table
    assert imported.subscription.id not in table


def test_show_says_since_when_and_what_is_open(smt: Smt, imported: SavedEvents, overdue: SimulatedSubscription) -> None:
    shown = smt("subscriptions", "show", overdue.id).out
    [line] = [line for line in shown.splitlines() if line.startswith("past due")]
    assert "failed payments: 1" in line
    assert "open balance: €29.00" in line
    assert "since " in line
    assert smt("subscriptions", "show", overdue.id, "--json").json["past_due"]
    assert "past due" not in smt("subscriptions", "show", imported.subscription.id).out


def test_list_can_be_filtered_by_plan_and_time_and_names_customer_and_last_payment(
    smt: Smt, imported: SavedEvents
) -> None:
    def ids(*options: str) -> list[str]:
        return [row["id"] for row in smt("subscriptions", "list", "--json", *options).json]

    mine = [imported.subscription.id]
    assert (ids("--plan", CLOUD.id), ids("--plan", "P-OTHER")) == (mine, [])
    assert (ids("--since", "2020-01-01"), ids("--since", "2199-01-01")) == (mine, [])
    [row] = smt("subscriptions", "list", "--json").json
    assert row["last_payment_at"] == row["payments"][-1]["occurred_at"]
    assert row["customer"] in smt("subscriptions", "list").out


def test_customer_shows_which_subscription_is_past_due(
    smt: Smt, imported: SavedEvents, overdue: SimulatedSubscription
) -> None:
    customers = {row["id"]: row["customer"] for row in smt("subscriptions", "list", "--json").json}
    late, paid = customers[overdue.id], customers[imported.subscription.id]
    assert [row["past_due"] for row in smt("customers", "show", late, "--json").json["subscriptions"]] == [True]
    assert "subscription past due" in smt("customers", "show", late).out
    assert [row["past_due"] for row in smt("customers", "show", paid, "--json").json["subscriptions"]] == [False]


def test_dispute_pauses_access_only_if_the_setting_says_so(
    smt: Smt, imported: SavedEvents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = copy.deepcopy(imported.subscription)
    SimulatedDispute(subscription, subscription.sales[imported.sale], NOW - timedelta(minutes=30))
    (tmp_path / "dispute.json").write_bytes(subscription.deliveries[-1].body)
    smt("events", "import", tmp_path / "dispute.json")
    smt("run", "--until-idle")
    kept = smt("subscriptions", "show", subscription.id, "--json").json
    assert (kept["entitled"], kept["access_until"]) == (True, kept["paid_through"])
    monkeypatch.setenv("SMT_DISPUTE_PAUSES_ACCESS", "true")
    paused = smt("subscriptions", "show", subscription.id, "--json").json
    assert (paused["entitled"], paused["access_until"]) == (False, paused["disputed_since"])
    assert [row["entitled"] for row in smt("subscriptions", "list", "--json").json] == [False]
    assert "disputed since" in smt("subscriptions", "show", subscription.id).out
