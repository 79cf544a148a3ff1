"""What else turns a check red beside its clause's mutant, and what does not: limits that hold back mail are no fault."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete

from pipeline.customers import accounts
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import AccessLogEntry, PrivacyRequest
from pipeline.inbound_mail.intake import ANSWERED_A_DAY
from pipeline.policy.evidence import journald
from pipeline.policy.evidence.live_system import Finding
from pipeline.policy.runner import run_checks
from pipeline.privacy.retention.rules import REQUESTS_KEPT
from tests.pipeline.policy.healthy_system import World, letter, mail, peopled, write
from tests.support.pipeline_under_test import River

Told = Callable[[str], Finding]


@pytest.fixture
def world(brook: River) -> World:
    return peopled(brook, brook.clock)


@pytest.fixture
def told(world: World) -> Told:
    """What the check of a clause finds now."""

    def look(clause: str) -> Finding:
        [found] = world.look(lambda live: run_checks(live, [clause]))
        return Finding(found.verdict, found.figure)

    return look


# -- 2.no_advertising


def test_a_tick_at_sign_up_is_no_consent(world: World, told: Told) -> None:
    def tick(source: str) -> None:
        world.change(
            lambda session, _: accounts.record_consent(
                session, world.bob, "marketing", given=True, source=source, text_version="1", now=world.now
            )
        )

    tick("sign-up")
    assert told("2.no_advertising") == Finding("broken", "1 customer opted in who never confirmed it")
    world.clock.advance(timedelta(seconds=1))
    tick("link by mail")
    assert told("2.no_advertising").verdict == "holds"
    mail(world, "product_news", "product_news:2:bob", world.bob, "bob@example.com")
    assert told("2.no_advertising").verdict == "holds"


# -- 2.support, 6.how and 10.contact


def test_messages_that_came_as_messages_do_are_requests(world: World, told: Told) -> None:
    for sender in ("bob@example.com", "stranger@example.com"):
        for text in ("please delete my account", "delete my account, I said", "send me my data", "a question"):
            write(world, text, sender)
            world.clock.advance(timedelta(minutes=1))
    assert told("6.how") == Finding("holds", "11 letters, each a request")
    assert told("2.support").verdict == "holds"


def test_beyond_the_limits_of_senders_and_strangers_nothing_is_missed(world: World, told: Told) -> None:
    for number in range(PER_HOUR["answer_strangers"] + 3):
        write(world, "please delete my account", f"victim{number}@example.com")
    for number in range(ANSWERED_A_DAY + 2):
        write(world, f"question {number}", "bob@example.com")
    assert told("6.how").verdict == "holds"


def test_a_message_of_a_machine_needs_no_request_and_any_other_does(world: World, told: Told) -> None:
    letter(world, "L-8", None, "automatic")
    assert told("6.how").verdict == "holds"
    letter(world, "L-9", None, "support")
    assert told("6.how") == Finding("broken", "1 letter without a request")


def test_a_question_that_is_not_answered_in_time_is_late(world: World, told: Told) -> None:
    write(world, "a question", "bob@example.com")
    assert told("2.support") == Finding("holds", "2 support requests, 0 late")
    world.clock.advance(timedelta(days=31))
    assert told("2.support").figure.startswith("1 support request late; ")


def test_a_letter_whose_request_was_old_enough_to_go_is_not_missed(world: World, told: Told) -> None:
    world.change(lambda session, _: session.execute(delete(PrivacyRequest)))
    assert told("6.how").verdict == "broken"
    world.clock.advance(REQUESTS_KEPT)
    assert told("6.how").verdict != "broken"


def test_a_letter_that_lies_unread_is_seen_after_an_hour(world: World, told: Told, tmp_path: Path) -> None:
    world.given["inbound_maildir"] = tmp_path
    assert told("10.contact").verdict == "broken"  # there is no folder `new`
    (tmp_path / "new").mkdir()
    assert told("10.contact").verdict == "holds"
    path = tmp_path / "new" / "1.host"
    path.write_bytes(b"")
    at = world.now.timestamp()
    os.utime(path, (at, at))
    assert told("10.contact").verdict == "holds"
    os.utime(path, (at - 3601, at - 3601))
    assert told("10.contact").figure.startswith(f"{tmp_path}: 1 letter not filed for an hour; ")


# -- 3.logs


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [
        (90, "holds", "journald keeps 90 days"),
        (91, "broken", "set MaxRetentionSec=90day"),
        (None, "broken", "without an end in time"),
    ],
)
def test_journald_may_keep_logs_as_long_as_the_policy_says(
    world: World, told: Told, days: int | None, verdict: str, words: str
) -> None:
    world.journal = lambda: None if days is None else timedelta(days=days)
    found = told("3.logs")
    assert (found.verdict, words in found.figure) == (verdict, True)


def test_where_journald_does_not_run_it_is_said(world: World, told: Told) -> None:
    world.journal = None
    assert told("3.logs").figure.endswith("journald does not run here")
    world.change(lambda session, _: session.execute(delete(AccessLogEntry)))
    assert told("3.logs") == Finding(
        "not_applicable", "no access log and no log file here, and journald does not run here"
    )


def test_settings_of_journald_that_cannot_be_read_do_not_hold(world: World, told: Told) -> None:
    def fail() -> None:
        raise journald.JournaldSettingsError("systemd-analyze is not installed")

    world.journal = fail
    assert told("3.logs").verdict == "broken"
