"""`customers`: list, show, correct and unsubscribe customers; each read is recorded."""

import io
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.db.engine import Database
from pipeline.db.models import ReadAudit

from .conftest import SavedEvents, Smt


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def only_customer(smt: Smt) -> str:
    [row] = smt("customers", "list", "--json").json
    return str(row["id"])


def reads(data_dir: Path) -> list[tuple[str, str, str | None]]:
    database = Database(f"sqlite:///{data_dir / 'smt-billing.db'}")
    with database.reading() as session:
        rows = [
            (row.action, row.purpose, row.subject)
            for row in session.execute(select(ReadAudit).order_by(ReadAudit.id)).scalars()
        ]
    database.close()
    return rows


def test_list_shows_customers(smt: Smt, imported: SavedEvents) -> None:
    [row] = smt("customers", "list", "--json").json
    assert row["id"].startswith("c")
    assert (row["email"], row["subscriptions"]) == (imported.subscription.person.email, [imported.subscription.id])
    assert (row["marketing"], row["service"], row["erased_at"]) == (False, True, None)
    assert imported.subscription.person.email in smt("customers", "list").out


def test_list_filters_customers_by_state_and_address(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, f"{imported.subscription.person.email.upper()}\n")
    assert len(smt("customers", "list", "--by-email", "--json").json) == 1
    typed(monkeypatch, "unknown@example.com\n")
    assert smt("customers", "list", "--by-email", "--json").json == []
    assert len(smt("customers", "list", "--state", "active", "--json").json) == 1
    assert smt("customers", "list", "--state", "erased", "--json").json == []
    assert smt("customers", "list", "--state", "gone").code == 2


def test_show_prints_customer_with_sources_and_history(smt: Smt, imported: SavedEvents) -> None:
    id = only_customer(smt)
    found = smt("customers", "show", id, "--json").json
    assert found["email"] == imported.subscription.person.email
    assert set(found["told_by"].values()) == {"paypal"}
    assert [row["id"] for row in found["subscriptions"]] == [imported.subscription.id]
    assert {row["kind"] for row in found["mails"]} == {"account_setup", "receipt", "refund_receipt"}
    shown = smt("customers", "show", id).out
    assert f"{imported.subscription.person.email} (from PayPal)" in shown
    assert "subscription ACTIVE" in shown


def test_correction_takes_precedence_over_paypal(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = only_customer(smt)
    typed(monkeypatch, "ada.new@example.com\n")
    assert smt("customers", "correct", id, "email", "--json").json == {
        "customer": id,
        "field": "email",
        "changed": True,
    }
    found = smt("customers", "show", id, "--json").json
    assert (found["email"], found["told_by"]["email"]) == ("ada.new@example.com", "customer")
    notices = {(row["kind"], row["to"]) for row in found["mails"] if row["kind"] == "email_changed"}
    assert notices == {("email_changed", "ada.new@example.com"), ("email_changed", imported.subscription.person.email)}
    typed(monkeypatch, "ada.new@example.com\n")
    assert "already" in smt("customers", "correct", id, "email").out


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("email", "not an address", "such as ada@example.com"),
        ("name", "", "your name"),
        ("phone", "call me", "phone number"),
    ],
)
def test_invalid_value_is_refused_and_not_printed(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, field: str, value: str, message: str
) -> None:
    id = only_customer(smt)
    typed(monkeypatch, value + "\n")
    answer = smt("customers", "correct", id, field)
    assert answer.code == 2
    assert message in answer.err
    assert not value or value not in answer.err


def test_opt_out_is_recorded(smt: Smt, imported: SavedEvents) -> None:
    id = only_customer(smt)
    assert smt("customers", "opt-out", id, "--json").json == {"customer": id, "declined": ["marketing", "service"]}
    found = smt("customers", "show", id, "--json").json
    assert (found["marketing"], found["service"]) == (False, False)
    assert [(row["kind"], row["given"], row["source"]) for row in found["consents"]] == [
        ("marketing", False, "operator"), ("service", False, "operator"),
    ]  # fmt: skip
    assert [(row["kind"], row["state"]) for row in found["requests"]] == [("opt_out", "done")]
    assert "declined service" in smt("customers", "show", id).out


def test_unknown_customer_is_usage_error(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "Ada\n")
    for words in (("show", "c1"), ("correct", "c1", "name"), ("opt-out", "c1")):
        answer = smt("customers", *words)
        assert (answer.code, "there is no customer c1" in answer.err) == (2, True)


def test_read_of_customer_is_recorded_with_purpose(smt: Smt, imported: SavedEvents, data_dir: Path) -> None:
    before = len(reads(data_dir))
    id = only_customer(smt)
    smt("customers", "show", id, "--purpose", "call of 1 March")
    assert reads(data_dir)[before:] == [
        ("customers list", "operation: list customers", None),
        ("customers show", "call of 1 March", id),
    ]
