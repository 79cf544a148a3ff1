"""Further cases in which a check fails or passes, in addition to the mutants. Rate limits of mail do not fail a check."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.customers.rate_limit import PER_HOUR
from pipeline.db.models import AccessLogEntry, InboundMail, PrivacyRequest, ReadAudit
from pipeline.inbound_mail.intake import ANSWERED_A_DAY
from pipeline.operations.backup.signatures import BackupSigner
from pipeline.policy.evidence import journald
from pipeline.policy.evidence.live_system import Finding
from pipeline.policy.runner import run_checks
from pipeline.privacy.retention.rules import REQUESTS_KEPT
from tests.pipeline.policy.healthy_system import HealthySystem, file_message, mail, make_healthy_system, receive_message
from tests.support.pipeline_under_test import PipelineUnderTest

Check = Callable[[str], Finding]


@pytest.fixture
def system(sqlite_pipeline: PipelineUnderTest) -> HealthySystem:
    return make_healthy_system(sqlite_pipeline, sqlite_pipeline.clock)


@pytest.fixture
def check(system: HealthySystem) -> Check:
    """Return a function that runs the check of a clause."""

    def run(clause: str) -> Finding:
        [found] = system.inspect(lambda live: run_checks(live, [clause]))
        return Finding(found.verdict, found.figure)

    return run


# -- 2.no_advertising


def test_choice_at_sign_up_is_not_a_consent(system: HealthySystem, check: Check) -> None:
    def opt_in(source: str) -> None:
        system.transact(
            lambda session, _: accounts.record_consent(
                session, system.bob, "marketing", given=True, source=source, text_version="1", now=system.now
            )
        )

    opt_in("sign-up")
    assert check("2.no_advertising") == Finding("broken", "1 customer opted in without a confirmation")
    system.clock.advance(timedelta(seconds=1))
    opt_in("link by mail")
    assert check("2.no_advertising").verdict == "holds"
    mail(system, "product_news", "product_news:2:bob", system.bob, "bob@example.com")
    assert check("2.no_advertising").verdict == "holds"


# -- 2.support, 6.how and 10.contact


def test_received_messages_open_requests(system: HealthySystem, check: Check) -> None:
    for sender in ("bob@example.com", "stranger@example.com"):
        for text in ("please delete my account", "delete my account, I said", "send me my data", "a question"):
            receive_message(system, text, sender)
            system.clock.advance(timedelta(minutes=1))
    assert check("6.how") == Finding("holds", "11 messages, each a request")
    assert check("2.support").verdict == "holds"


def test_rate_limited_messages_still_open_requests(system: HealthySystem, check: Check) -> None:
    for number in range(PER_HOUR["answer_strangers"] + 3):
        receive_message(system, "please delete my account", f"victim{number}@example.com")
    for number in range(ANSWERED_A_DAY + 2):
        receive_message(system, f"question {number}", "bob@example.com")
    assert check("6.how").verdict == "holds"


def test_only_automatic_message_needs_no_request(system: HealthySystem, check: Check) -> None:
    file_message(system, "L-8", None, "automatic")
    assert check("6.how").verdict == "holds"
    file_message(system, "L-9", None, "support")
    assert check("6.how") == Finding("broken", "1 message without a request")


def test_report_about_a_mail_has_the_key_of_that_mail(system: HealthySystem, check: Check) -> None:
    receive_message(system, "delivered", "mailer-daemon@example.net")
    assert check("1.communications").verdict == "holds"

    def own(session: Session, _: Keyring) -> None:
        message = session.execute(select(InboundMail).where(InboundMail.kind == "automatic")).scalars().first()
        assert message
        message.key_id, message.content = "I-NOBODY", None

    system.transact(own)
    assert check("1.communications").verdict == "holds"
    system.transact(lambda session, _: session.execute(update(InboundMail).values(kind="support")))
    assert check("1.communications").verdict == "broken"


def test_unanswered_question_becomes_late(system: HealthySystem, check: Check) -> None:
    receive_message(system, "a question", "bob@example.com")
    assert check("2.support") == Finding("holds", "2 support requests, 0 late")
    system.clock.advance(timedelta(days=31))
    assert check("2.support").figure.startswith("1 support request late; ")


def test_old_message_needs_no_request(system: HealthySystem, check: Check) -> None:
    system.transact(lambda session, _: session.execute(delete(PrivacyRequest)))
    assert check("6.how").verdict == "broken"
    system.clock.advance(REQUESTS_KEPT)
    assert check("6.how").verdict != "broken"


def test_unfiled_message_is_reported_after_one_hour(system: HealthySystem, check: Check, tmp_path: Path) -> None:
    system.overrides["inbound_maildir"] = tmp_path
    assert check("10.contact").verdict == "broken"  # the folder `new` does not exist
    (tmp_path / "new").mkdir()
    assert check("10.contact").verdict == "holds"
    path = tmp_path / "new" / "1.host"
    path.write_bytes(b"")
    at = system.now.timestamp()
    os.utime(path, (at, at))
    assert check("10.contact").verdict == "holds"
    os.utime(path, (at - 3601, at - 3601))
    assert check("10.contact").figure.startswith(f"{tmp_path}: 1 message not filed for an hour; ")


# -- 3.logs


@pytest.mark.parametrize(
    ("days", "verdict", "words"),
    [
        (90, "holds", "journald keeps 90 days"),
        (91, "broken", "set MaxRetentionSec=90day"),
        (None, "broken", "without a time limit"),
    ],
)
def test_journald_may_keep_logs_for_the_policy_period(
    system: HealthySystem, check: Check, days: int | None, verdict: str, words: str
) -> None:
    system.journal = lambda: None if days is None else timedelta(days=days)
    found = check("3.logs")
    assert (found.verdict, words in found.figure) == (verdict, True)


def test_missing_journald_is_stated(system: HealthySystem, check: Check) -> None:
    system.journal = None
    assert "journald does not run here" in check("3.logs").figure
    system.transact(lambda session, _: session.execute(delete(AccessLogEntry)))
    system.overrides |= {"relay_log": None, "proxy_log": None}
    for log in (system.pipeline.folder.parent / "logs").iterdir():
        log.unlink()
    assert check("3.logs") == Finding(
        "not_applicable", "no access log and no log file here, and journald does not run here"
    )


def test_unreadable_journald_settings_break_the_clause(system: HealthySystem, check: Check) -> None:
    def fail() -> None:
        raise journald.JournaldSettingsError("systemd-analyze is not installed")

    system.journal = fail
    assert check("3.logs").verdict == "broken"


# -- 7.logging


def test_rows_removed_since_a_backup_break_the_audit_log(system: HealthySystem, check: Check, tmp_path: Path) -> None:
    assert check("7.logging").figure.split("; ")[0].endswith("confirmed by nothing from elsewhere")
    system.overrides["backup_dir"] = tmp_path
    signer = BackupSigner.open(system.pipeline.database, system.pipeline.folder / "keys" / "master.key", system.now)
    (tmp_path / "copy.age").write_bytes(b"x")
    (tmp_path / "copy.age.sig").write_bytes(signer.sign_file("copy.age", "0" * 64))
    assert check("7.logging").figure.split("; ")[0].endswith("confirmed by 1 earlier head")
    system.transact(lambda session, _: session.execute(delete(ReadAudit)))
    assert check("7.logging").figure.endswith("rows at the end are missing, which copy.age.sig confirms")
