"""`demo`: every other command works on the folder of a demo, and a demo never changes a folder with other events."""

import fcntl
from collections import Counter
from pathlib import Path

import pytest

from pipeline.demo import data_folder
from pipeline.queries import listing
from tests.support.vendor import ENVIRONMENT

from .conftest import SavedEvents, Smt, files_of


@pytest.fixture(autouse=True)
def _no_vendor(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo needs no settings."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name)


SMALL = ("--months", "2", "--subscribers", "6")


@pytest.mark.slow
def test_commands_work_on_completed_demo(smt: Smt, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "CHUNK", 4)  # so that lists are read in several chunks
    answer = smt("demo", "--once", "--json", *SMALL)
    assert answer.code == 0, answer
    summary = answer.json
    assert summary["complete"]
    assert (
        summary["events_accepted"] == summary["events_handled"] == summary["events_posted"] - summary["duplicates"] > 20
    )
    assert (summary["events_parked"], summary["subscriptions"]) == (0, 6)
    assert sum(summary["mails_sent"].values()) == summary["mails_sent_total"] == len(files_of(data_dir / "caught"))
    assert {"account_setup", "receipt", "renewal_reminder"} <= summary["mails_sent"].keys()

    events = smt("events", "list", "--source", "webhook", "--json").json
    assert len(events) == summary["events_accepted"]
    received = [event["received_at"] for event in events]
    assert received == sorted(received, reverse=True)
    assert received[0][:7] != received[-1][:7]  # the events are spread over months
    subscriptions = smt("subscriptions", "list", "--json").json
    assert len(subscriptions) == summary["subscriptions"]
    assert sum(len(row["payments"]) for row in subscriptions) == summary["payments"]
    sent = smt("mail", "list", "--state", "sent", "--json").json
    assert len(sent) == summary["mails_sent_total"]
    assert smt("doctor").code == 0
    assert smt("run", "--until-idle").code == 0

    again = smt("demo", "--once", "--json")
    assert (again.code, again.json) == (0, summary)
    assert "--fresh" in again.err
    other = smt("demo", "--once", "--months", "3")
    assert (other.code, "--fresh" in other.err) == (2, True)


def test_interrupted_demo_is_played_again(smt: Smt, data_dir: Path) -> None:
    half = data_folder.DemoRun(data_dir, 2, 6, 1)
    half.note()
    (data_dir / "caught").mkdir()
    (data_dir / "caught" / "receipt.old.eml").write_bytes(b"Subject: old\r\n\r\n")
    answer = smt("demo", "--once", "--json", "--months", "1", "--subscribers", "2", "--seed", "3")
    assert (answer.code, answer.json["months"], answer.json["seed"]) == (0, 1, 3)
    assert not (data_dir / "caught" / "receipt.old.eml").exists()
    kinds = Counter(path.name.partition(".")[0] for path in files_of(data_dir / "caught"))
    assert kinds == answer.json["mails_sent"]
    people = smt("demo", "--once")
    assert people.code == 0
    assert "1 months, 2 subscribers" in people.out
    assert "subscriptions show I-" in people.out


def test_demo_refuses_folder_with_other_events(smt: Smt, imported: SavedEvents) -> None:
    for words in ((), ("--fresh",)):
        answer = smt("demo", "--once", *words)
        assert (answer.code, "not from a demo" in answer.err) == (2, True)
    assert len(smt("events", "list", "--json").json) == len(imported.subscription.deliveries)


def test_demo_refuses_other_database(smt: Smt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_DATABASE_URL", "postgresql://127.0.0.1/production")
    answer = smt("demo", "--once")
    assert (answer.code, "SMT_DATABASE_URL" in answer.err) == (2, True)


def test_second_demo_in_folder_is_refused(smt: Smt, data_dir: Path) -> None:
    with (data_dir / data_folder.LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = smt("demo", "--once")
    assert (answer.code, "is already running" in answer.err) == (2, True)
