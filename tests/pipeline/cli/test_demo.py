"""`demo`: played once, it leaves a folder on which every other command works; it never touches somebody's books."""

import fcntl
from pathlib import Path

import pytest

from pipeline.demo import data_folder
from pipeline.queries import listing

from .conftest import Smt, Told, files_of

SMALL = ("--months", "2", "--subscribers", "6")


def test_a_demo_is_played_to_its_end_and_every_command_works_on_it(
    smt: Smt, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "CHUNK", 4)  # so that the lists come in several chunks
    answer = smt("demo", "--once", "--json", *SMALL)
    assert answer.code == 0, answer
    told = answer.json
    assert told["complete"]
    assert told["events_accepted"] == told["events_handled"] == told["events_posted"] - told["duplicates"] > 20
    assert (told["events_parked"], told["subscriptions"]) == (0, 6)
    assert sum(told["mails_sent"].values()) == told["mails_sent_total"] == len(files_of(data_dir / "caught"))
    assert {"account_setup", "receipt", "renewal_reminder"} <= told["mails_sent"].keys()

    events = smt("events", "list", "--source", "webhook", "--json").json
    assert len(events) == told["events_accepted"]
    received = [event["received_at"] for event in events]
    assert received == sorted(received, reverse=True)
    assert received[0][:7] != received[-1][:7]  # months of its own time went by
    subscriptions = smt("subscriptions", "list", "--json").json
    assert len(subscriptions) == told["subscriptions"]
    assert sum(len(row["payments"]) for row in subscriptions) == told["payments"]
    sent = smt("mail", "list", "--state", "sent", "--json").json
    assert len(sent) == told["mails_sent_total"]
    assert smt("doctor").code == 0
    assert smt("run", "--until-idle").code == 0

    again = smt("demo", "--once", "--json")
    assert (again.code, again.json) == (0, told)
    assert "--fresh" in again.err
    other = smt("demo", "--once", "--months", "3")
    assert (other.code, "--fresh" in other.err) == (2, True)


def test_a_demo_that_was_broken_off_begins_anew(smt: Smt, data_dir: Path) -> None:
    half = data_folder.DemoRun(data_dir, 2, 6, 1)
    half.note()
    (data_dir / "caught").mkdir()
    (data_dir / "caught" / "receipt.old.eml").write_bytes(b"Subject: old\r\n\r\n")
    answer = smt("demo", "--once", "--json", "--months", "1", "--subscribers", "2", "--seed", "3")
    assert (answer.code, answer.json["months"], answer.json["seed"]) == (0, 1, 3)
    assert not (data_dir / "caught" / "receipt.old.eml").exists()
    people = smt("demo", "--once")
    assert people.code == 0
    assert "1 months, 2 subscribers" in people.out
    assert "subscriptions show I-" in people.out


def test_somebodys_books_are_never_mixed_with_a_demo(smt: Smt, books: Told) -> None:
    for words in ((), ("--fresh",)):
        answer = smt("demo", "--once", *words)
        assert (answer.code, "not from a demo" in answer.err) == (2, True)
    assert len(smt("events", "list", "--json").json) == len(books.life.deliveries)


def test_no_other_database_is_meant(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", "postgresql://127.0.0.1/production")
    answer = smt("demo", "--once")
    assert (answer.code, "SMT_DATABASE_URL" in answer.err) == (2, True)


def test_two_demos_do_not_share_a_folder(smt: Smt, data_dir: Path) -> None:
    with (data_dir / data_folder.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = smt("demo", "--once")
    assert (answer.code, "is running" in answer.err) == (2, True)
