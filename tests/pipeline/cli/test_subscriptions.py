"""`subscriptions`: list and show subscriptions with their history."""

from pathlib import Path

from .conftest import SavedEvents, Smt

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
