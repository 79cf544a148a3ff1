"""Mail that people write is filed once, sealed, with its sender; acknowledged once; and acted on only where it can't hurt."""

import errno
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.customers.accounts import Person
from pipeline.customers.rate_limit import ANSWERED_A_DAY, STRANGERS_AN_HOUR
from pipeline.db.engine import Database, StoreDown
from pipeline.db.models import Consent, Customer, InboundMail, Mail, PrivacyRequest
from pipeline.inbound_mail import intake as inbound
from pipeline.inbound_mail.intake import Filed, Left
from tests.pipeline.inbound_mail.test_parser import mail
from tests.support.pipeline_under_test import River

PAGE = "https://billing.example.com/account"
ADA = Person("Ada Example", "ada@example.com")


def signed_up(river: River, person: Person = ADA) -> str:
    with river.database.transaction() as session:
        keyring = river.keyring(session)
        id = accounts.sign_up(session, keyring, person, adult_text="1", news=True, now=river.now, source="sign-up")
        accounts.consent(session, id, "marketing", given=True, source="link by mail", text_version="1", now=river.now)
        return id


def took(river: River, raw: bytes) -> Filed:
    return inbound.take(raw, river.database, river.master, river.clock, PAGE)


def owed(river: River) -> list[str]:
    with river.database.reading() as session:
        return sorted(session.execute(select(Mail.kind)).scalars())


def opened(river: River) -> list[tuple[str, str, str | None]]:
    with river.database.reading() as session:
        rows = session.execute(
            select(PrivacyRequest.kind, PrivacyRequest.state, PrivacyRequest.customer_id).order_by(PrivacyRequest.kind)
        )
        return [(kind, state, customer) for kind, state, customer in rows]


def test_a_question_is_filed_sealed_with_its_customer_and_acknowledged(river: River) -> None:
    customer = signed_up(river)
    raw = mail("How do I add a second user?")
    filed = took(river, raw)
    assert (filed.kind, filed.asked, filed.customer_id) == ("support", None, customer)
    assert owed(river) == ["support_received"]
    with river.database.reading() as session:
        row = session.execute(select(InboundMail)).scalar_one()
        assert row.content
        assert b"second user" not in row.content
        assert river.keyring(session).own(customer).open("inbound_mail.content", row.content) == raw
        assert session.execute(select(Mail.customer_id)).scalar_one() == customer


def test_the_same_mail_is_filed_and_answered_once(river: River) -> None:
    raw = mail("How do I add a second user?")
    assert not took(river, raw).known
    assert took(river, raw).known
    assert owed(river) == ["support_received"]


def test_a_mail_that_came_twice_on_different_ways_is_one(river: River) -> None:
    raw = mail("How do I add a second user?", Message_ID="<1@example.com>")
    assert not took(river, b"Received: from a by b; Sun, 1 Mar 2026 12:00:00 +0000\r\n" + raw).known
    assert took(river, b"Received: from c by d; Sun, 1 Mar 2026 12:01:00 +0000\r\n" + raw).known
    assert not took(river, mail("Another one", Message_ID="<1@example.com>")).known


def test_mail_of_a_machine_is_filed_and_never_answered(river: River) -> None:
    signed_up(river)
    filed = took(river, mail("please delete my account", Auto_Submitted="auto-replied"))
    assert filed.kind == "automatic"
    assert owed(river) == []
    assert opened(river) == []


def test_two_machines_that_answer_each_other_come_to_an_end(river: River) -> None:
    for number in range(10):
        took(river, mail(f"I am away, number {number}"))
        river.clock.advance(timedelta(minutes=1))
    assert owed(river) == ["support_received"] * ANSWERED_A_DAY
    river.clock.advance(timedelta(days=1))
    took(river, mail("a question of the day after"))
    assert owed(river) == ["support_received"] * (ANSWERED_A_DAY + 1)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("please delete my account", "erase"), ("send me a copy of my data", "access"), ("my child signed up", "child")],
)
def test_a_wish_is_put_to_the_operator_and_nothing_is_done_on_a_mail_alone(river: River, text: str, kind: str) -> None:
    customer = signed_up(river)
    took(river, mail(text))
    assert opened(river) == [(kind, "received", customer)]
    assert owed(river) == ["privacy_request_received", "request_due"]
    with river.database.reading() as session:
        assert accounts.person(session, river.keyring(session), customer)["email"] == "ada@example.com"
        assert session.get_one(Customer, customer).erase_at is None


def test_a_wish_told_twice_is_one_request(river: River) -> None:
    signed_up(river)
    took(river, mail("please delete my account"))
    took(river, mail("PLEASE delete my account!"))
    assert len(opened(river)) == 1
    assert owed(river) == ["privacy_request_received", "request_due"]


def test_a_stranger_gets_the_same_answer_as_a_customer(river: River) -> None:
    signed_up(river)
    took(river, mail("please delete my account", sender="ada@example.com"))
    took(river, mail("please delete my account", sender="stranger@example.com"))
    assert sorted(kind for kind, _, _ in opened(river)) == ["erase", "erase"]
    assert owed(river) == ["privacy_request_received", "privacy_request_received", "request_due", "request_due"]
    with river.database.reading() as session:
        told = [
            river.keyring(session).own(row.key_id).open_json("mail.facts", row.facts)
            for row in session.execute(select(Mail).where(Mail.kind == "privacy_request_received")).scalars()
        ]
    for facts in told:
        facts.pop("_to", None)
        facts.pop("request")
    assert told[0] == told[1]


def test_optional_mail_is_stopped_at_once(river: River) -> None:
    customer = signed_up(river)
    took(river, mail("please unsubscribe me"))
    with river.database.reading() as session:
        row = session.get_one(Customer, customer)
        assert (row.wants_marketing, row.wants_service_mail) == (False, False)
        kept = session.execute(select(Consent.kind, Consent.given).where(Consent.source == "mail")).all()
        assert sorted(kept) == [("marketing", False), ("service", False)]
    assert opened(river) == [("opt_out", "done", customer)]


def test_optional_mail_is_stopped_for_every_account_of_the_address(river: River) -> None:
    for _ in range(2):
        signed_up(river)
        river.clock.advance(timedelta(hours=1))
    took(river, mail("please unsubscribe me"))
    assert [(row.wants_marketing, row.wants_service_mail) for row in river.rows(Customer)] == [(False, False)] * 2


@pytest.mark.parametrize("sender", ["ada@example.com", "stranger@example.com"])
@pytest.mark.parametrize("text", ["please unsubscribe me", "please delete my account"])
def test_nobody_is_bombed_with_mail_by_one_senders_wishes(river: River, sender: str, text: str) -> None:
    signed_up(river)
    for number in range(10):
        written = sender if number % 2 else sender.upper()
        took(river, mail(f"{text}, number {number}", sender=written))
    assert len(owed(river)) <= 2 * ANSWERED_A_DAY
    if sender.startswith("stranger"):
        assert river.count(PrivacyRequest) == 10  # each is noted all the same


def test_strangers_are_answered_so_many_times_an_hour_in_all_and_customers_always(river: River) -> None:
    """A flood in others' names: each letter is filed, and most of those who never wrote hear nothing."""
    signed_up(river)
    for number in range(STRANGERS_AN_HOUR + 5):
        text = "please delete my account" if number % 2 else "a question"
        took(river, mail(text, sender=f"victim{number}@example.com"))
    assert answers(river) == STRANGERS_AN_HOUR
    assert river.count(InboundMail) == STRANGERS_AN_HOUR + 5
    assert river.count(PrivacyRequest) == (STRANGERS_AN_HOUR + 5) // 2
    took(river, mail("a question"))
    assert answers(river) == STRANGERS_AN_HOUR + 1
    river.clock.advance(timedelta(hours=1))
    took(river, mail("a question", sender="later@example.com"))
    assert answers(river) == STRANGERS_AN_HOUR + 2


def answers(river: River) -> int:
    return sum(kind in ("support_received", "privacy_request_received") for kind in owed(river))


def test_a_strangers_wish_after_questions_is_still_put_to_the_operator(river: River) -> None:
    for number in range(ANSWERED_A_DAY):
        took(river, mail(f"question {number}"))
    took(river, mail("please delete my account"))
    assert opened(river) == [("erase", "received", None)]
    assert owed(river)[0] == "request_due"


# -- a Maildir


@pytest.fixture
def maildir(tmp_path: Path) -> Path:
    folder = tmp_path / "Maildir"
    for name in ("new", "cur", "tmp"):
        (folder / name).mkdir(parents=True)
    return folder


def read(river: River, maildir: Path) -> list[Filed | Left]:
    done: list[Filed | Left] = []
    inbound.read_maildir(maildir, river.database, river.master, river.clock, PAGE, done.append)
    return done


def test_what_is_new_in_a_maildir_is_filed_and_moved(river: River, maildir: Path) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    assert len(read(river, maildir)) == 3
    assert sorted(path.name for path in (maildir / "cur").iterdir()) == ["0.host:2,S", "1.host:2,S", "2.host:2,S"]
    assert read(river, maildir) == []


def test_a_death_between_filing_and_moving_files_nothing_twice(river: River, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    took(river, mail("a question"))  # filed, and then the process died
    [filed] = read(river, maildir)
    assert isinstance(filed, Filed)
    assert filed.known
    assert owed(river) == ["support_received"]
    assert list((maildir / "new").iterdir()) == []


def test_a_link_in_a_maildir_leads_nowhere_and_holds_up_no_letter(river: River, maildir: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a file of ours")
    (maildir / "new" / "1.host").symlink_to(tmp_path / "secret")
    (maildir / "new" / "2.host").write_bytes(mail("a question"))
    left, filed = read(river, maildir)
    assert isinstance(left, Left)
    assert isinstance(filed, Filed)
    assert left.file == "1.host"
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (StoreDown("a statement that took too long"), "StoreDown"),
        (DataError("insert", {"content": "about Ada"}, Exception("about Ada")), "DataError"),
        (OSError(errno.EACCES, "Permission denied"), "Permission denied"),
    ],
)
def test_a_letter_at_fault_holds_up_no_other_and_is_tried_again(
    river: River, maildir: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, reason: str
) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    with monkeypatch.context() as patch:
        patch.setattr(inbound, "file", failing_for(b"question 1", fault))
        done = read(river, maildir)
    assert [each for each in done if isinstance(each, Left)] == [Left("1.host", reason)]
    assert [path.name for path in (maildir / "new").iterdir()] == ["1.host"]
    [later] = read(river, maildir)
    assert isinstance(later, Filed)
    assert owed(river) == ["support_received"] * 3
    assert list((maildir / "new").iterdir()) == []


def test_a_letter_that_cannot_be_moved_stays_and_is_answered_once(river: River, maildir: Path) -> None:
    (maildir / "new" / "1.host").write_bytes(mail("a question"))
    (maildir / "cur").rmdir()
    (maildir / "cur").write_text("no folder")
    [left] = read(river, maildir)
    assert isinstance(left, Left)
    (maildir / "cur").unlink()
    [filed] = read(river, maildir)
    assert isinstance(filed, Filed)
    assert filed.known
    assert owed(river) == ["support_received"]


def test_a_letter_that_another_reader_moved_meanwhile_is_no_fault(
    river: River, maildir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = maildir / "new" / "1.host"
    path.write_bytes(mail("a question"))
    monkeypatch.setattr(inbound, "_new", lambda _: [path, path])
    assert [isinstance(each, Filed) for each in read(river, maildir)] == [True]


def test_while_the_database_is_away_no_letter_is_tried_after_the_first(maildir: Path, brook: River) -> None:
    for number in range(3):
        (maildir / "new" / f"{number}.host").write_bytes(mail(f"question {number}"))
    away, told = Database("postgresql://127.0.0.1:1/nowhere"), list[Filed | Left]()
    with pytest.raises(StoreDown):
        inbound.read_maildir(maildir, away, brook.master, brook.clock, PAGE, told.append)
    away.close()
    assert told == []


def failing_for(words: bytes, fault: Exception) -> Callable[..., Filed]:
    """Filing that fails for the letter with these words in it."""
    really = inbound.file

    def file(session: Session, keyring: Keyring, raw: bytes, now: datetime, page: str) -> Filed:
        if words in raw:
            raise fault
        return really(session, keyring, raw, now, page)

    return file
