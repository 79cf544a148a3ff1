"""`subscriptions`: where each stands, and how it came about."""

from pathlib import Path

from .conftest import Smt, Told

ROW = {"id", "status", "plan", "paid_through", "next_billing_at", "customer", "payments"}
PAYMENT = {"id", "amount", "currency", "status", "occurred_at"}


def test_the_list_has_the_promised_keys_and_money_in_minor_units(smt: Smt, books: Told) -> None:
    [row] = smt("subscriptions", "list", "--json").json
    assert row.keys() >= ROW
    assert (row["id"], row["status"], row["plan"]) == (books.life.id, "ACTIVE", books.life.plan.id)
    assert row["paid_through"].endswith("Z")
    [payment] = row["payments"]
    assert payment.keys() >= PAYMENT
    assert (payment["id"], payment["amount"], payment["currency"]) == (books.sale, 2900, "EUR")
    assert (payment["status"], payment["refunded"]) == ("partially_refunded", 900)


def test_the_list_can_be_narrowed_by_status(smt: Smt, books: Told) -> None:
    assert len(smt("subscriptions", "list", "--status", "ACTIVE", "--json").json) == 1
    assert smt("subscriptions", "list", "--status", "CANCELLED", "--json").json == []
    assert smt("subscriptions", "list", "--status", "GONE").code == 2


def test_one_subscription_is_shown_with_its_whole_story(smt: Smt, books: Told) -> None:
    found = smt("subscriptions", "show", books.life.id, "--json").json
    assert found.keys() >= ROW
    assert found["email"] == books.life.person.email
    assert [change["new"] for change in found["changes"]] == ["APPROVAL_PENDING", "ACTIVE"]
    assert [refund["amount"] for refund in found["refunds"]] == [900]
    assert {mail["kind"] for mail in found["mails"]} == {"account_setup", "receipt", "refund_receipt"}


def test_people_read_money_and_days_in_the_order_of_what_happened(smt: Smt, books: Told) -> None:
    assert "€29.00" in smt("subscriptions", "list").out
    story = smt("subscriptions", "show", books.life.id).out
    places = [story.index(words) for words in ("new → APPROVAL_PENDING", "€29.00", "-€9.00")]
    assert places == sorted(places)
    assert smt("subscriptions", "show", "I-NONE").code == 2


def test_a_placeholder_has_no_status(smt: Smt, told: Told, tmp_path: Path) -> None:
    sale = next(each for each in told.life.deliveries if each.type == "PAYMENT.SALE.COMPLETED")
    (tmp_path / "sale.json").write_bytes(sale.body)
    smt("db", "upgrade")
    smt("events", "import", tmp_path / "sale.json")
    smt("run", "--until-idle")
    [row] = smt("subscriptions", "list", "--json").json
    assert (row["id"], row["status"], row["plan"]) == (told.life.id, None, None)
    assert "placeholder" in smt("subscriptions", "list").out
    assert "placeholder" in smt("subscriptions", "show", told.life.id).out
