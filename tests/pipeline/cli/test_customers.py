"""`customers`: list, show, correct and unsubscribe customers; each read is recorded."""

import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import open_master_key
from pipeline.customers import accounts
from pipeline.customers.accounts import SignUpData
from pipeline.db.engine import Database
from pipeline.db.models import Customer, ReadAudit, Subscription
from pipeline.queries import listing
from pipeline.queries.customers import status_of
from pipeline.settings import load

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


def test_search_finds_parts_of_name_company_and_address(
    smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    person, id = imported.subscription.person, only_customer(smt)
    typed(monkeypatch, "Grüner Baum GmbH\n")
    assert smt("customers", "correct", id, "company").code == 0  # entered by the customer; the rest is from PayPal
    domain = person.email.rpartition("@")[2]
    for text in (person.surname[1:].upper(), domain, "GRÜNER baum", f"{person.given_name} {person.surname}"):
        assert [row["id"] for row in smt("customers", "list", "--search", text, "--json").json] == [id], text
    for text in ("nobody", f"{person.surname}x", id):
        assert smt("customers", "list", "--search", text, "--json").json == []
    typed(monkeypatch, f"{person.surname}\n")
    assert person.email in smt("customers", "list", "--search", "-").out
    assert reads(data_dir)[-1] == ("customers list --search", "operation: search customers", None)


def test_search_reads_more_than_one_chunk(smt: Smt, imported: SavedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    person = imported.subscription.person
    with closing(Database(load().database)) as database, database.transaction() as session:
        now = datetime.now(UTC)  # noqa: DTZ005, TID251 - commands use the machine's clock
        keyring = Keyring(open_master_key(load().master_key, create=False), session, now)
        for number in range(7):
            entered = SignUpData(f"Person {number}", f"person{number}@example.net")
            at = now - timedelta(days=number)
            accounts.create_account(session, keyring, entered, adult_text="1", news=False, now=at, source="sign-up")
    monkeypatch.setattr(listing, "CHUNK", 3)
    assert len(smt("customers", "list", "--search", "EXAMPLE.net", "--json").json) == 7
    assert len(smt("customers", "list", "--search", "person", "--limit", "2", "--json").json) == 2
    assert len(smt("customers", "list", "--json").json) == 8
    status = {row["name"]: row["status"] for row in smt("customers", "list", "--json").json}
    assert (status["Person 0"], status["Person 2"]) == ("signed up", "abandoned")
    assert status[f"{person.given_name} {person.surname}"] == "paying"


def test_status_of_customer_follows_their_subscriptions() -> None:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    old, new = now - timedelta(days=2), now - timedelta(hours=2)

    def status(
        *subscriptions: tuple[str | None, datetime | None], created: datetime = old, erased: bool = False
    ) -> str:
        rows = [Subscription(status=name, paid_through=until) for name, until in subscriptions]
        return status_of(Customer(created_at=created, erased_at=now if erased else None), rows, now)

    assert (
        status(("ACTIVE", None)) == status((None, None)) == status(("CANCELLED", now + timedelta(days=1))) == "paying"
    )
    assert status(("CANCELLED", old), ("ACTIVE", None)) == "paying"
    assert status(("SUSPENDED", old)) == "suspended"
    assert status(("CANCELLED", old)) == status(("EXPIRED", None)) == "former"
    assert status() == status(("APPROVAL_PENDING", None)) == "abandoned"
    assert status(created=new) == status(("APPROVAL_PENDING", None), created=new) == "signed up"
    assert status(("ACTIVE", None), erased=True) == "erased"
