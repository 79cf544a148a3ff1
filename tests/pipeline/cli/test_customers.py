"""`customers`: who they are, corrected and spared, each read written down."""

import io
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.db.engine import Database
from pipeline.db.models import ReadAudit

from .conftest import Smt, Told


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def the_one(smt: Smt) -> str:
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


def test_the_list_tells_who_they_are(smt: Smt, books: Told) -> None:
    [row] = smt("customers", "list", "--json").json
    assert row["id"].startswith("c")
    assert (row["email"], row["subscriptions"]) == (books.life.person.email, [books.life.id])
    assert (row["marketing"], row["service"], row["erased_at"]) == (False, True, None)
    assert books.life.person.email in smt("customers", "list").out


def test_the_list_can_be_narrowed_and_no_address_stands_among_the_arguments(
    smt: Smt, books: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, f"{books.life.person.email.upper()}\n")
    assert len(smt("customers", "list", "--by-email", "--json").json) == 1
    typed(monkeypatch, "nobody@example.com\n")
    assert smt("customers", "list", "--by-email", "--json").json == []
    assert len(smt("customers", "list", "--state", "active", "--json").json) == 1
    assert smt("customers", "list", "--state", "erased", "--json").json == []
    assert smt("customers", "list", "--state", "gone").code == 2


def test_one_customer_is_shown_with_who_said_what_and_all_that_is_theirs(smt: Smt, books: Told) -> None:
    id = the_one(smt)
    found = smt("customers", "show", id, "--json").json
    assert found["email"] == books.life.person.email
    assert set(found["told_by"].values()) == {"paypal"}
    assert [row["id"] for row in found["subscriptions"]] == [books.life.id]
    assert {row["kind"] for row in found["mails"]} == {"account_setup", "receipt", "refund_receipt"}
    shown = smt("customers", "show", id).out
    assert f"{books.life.person.email} (by PayPal)" in shown
    assert "subscription ACTIVE" in shown


def test_a_correction_is_read_from_standard_input_and_outranks_paypal(
    smt: Smt, books: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = the_one(smt)
    typed(monkeypatch, "ada.new@example.com\n")
    assert smt("customers", "correct", id, "email", "--json").json == {
        "customer": id,
        "field": "email",
        "changed": True,
    }
    found = smt("customers", "show", id, "--json").json
    assert (found["email"], found["told_by"]["email"]) == ("ada.new@example.com", "customer")
    told = {(row["kind"], row["to"]) for row in found["mails"] if row["kind"] == "email_changed"}
    assert told == {("email_changed", "ada.new@example.com"), ("email_changed", books.life.person.email)}
    typed(monkeypatch, "ada.new@example.com\n")
    assert "already" in smt("customers", "correct", id, "email").out


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("email", "not an address", "such as ada@example.com"),
        ("name", "", "your name"),
        ("phone", "call me", "phone number"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_not_repeated(
    smt: Smt, books: Told, monkeypatch: pytest.MonkeyPatch, field: str, value: str, said: str
) -> None:
    id = the_one(smt)
    typed(monkeypatch, value + "\n")
    answer = smt("customers", "correct", id, field)
    assert answer.code == 2
    assert said in answer.err
    assert not value or value not in answer.err


def test_opting_out_is_at_once_and_recorded(smt: Smt, books: Told) -> None:
    id = the_one(smt)
    assert smt("customers", "opt-out", id, "--json").json == {"customer": id, "declined": ["marketing", "service"]}
    found = smt("customers", "show", id, "--json").json
    assert (found["marketing"], found["service"]) == (False, False)
    assert [(row["kind"], row["given"], row["source"]) for row in found["consents"]] == [
        ("marketing", False, "operator"), ("service", False, "operator"),
    ]  # fmt: skip
    assert [(row["kind"], row["state"]) for row in found["requests"]] == [("opt_out", "done")]
    assert "declined service" in smt("customers", "show", id).out


def test_nobody_there_is_said(smt: Smt, books: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, "Ada\n")
    for words in (("show", "c1"), ("correct", "c1", "name"), ("opt-out", "c1")):
        answer = smt("customers", *words)
        assert (answer.code, "there is no customer c1" in answer.err) == (2, True)


def test_each_read_of_a_person_is_written_down_with_its_purpose(smt: Smt, books: Told, data_dir: Path) -> None:
    before = len(reads(data_dir))
    id = the_one(smt)
    smt("customers", "show", id, "--purpose", "call of 1 March")
    assert reads(data_dir)[before:] == [
        ("customers list", "operation: who the customers are", None),
        ("customers show", "call of 1 March", id),
    ]
