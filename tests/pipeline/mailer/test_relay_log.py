"""Resolving mails in doubt from the relay's log: with handwritten logs, and with a real Postfix.

A proxy in front of Postfix drops its answer, or the end of the mail.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pipeline.app import from_settings
from pipeline.clock import MovableClock, SystemClock
from pipeline.mailer.mailer import Mailer
from pipeline.mailer.relay_log import (
    _MESSAGE_ID,
    MAX_FILTER_TIME,
    SLACK,
    RelayLog,
    envelope_sender_of,
    resolve_doubts,
)
from pipeline.mailer.smtp_relay import Relay as RelayClient
from pipeline.mailer.smtp_relay import RelayUnreachableError
from pipeline.outbox import store as outbox
from tests.chaos.proxy import Fault, Kind, Proxy
from tests.deploy.test_postfix import require_private_postfix
from tests.support.outbox_fixtures import TEMPLATES
from tests.support.pipeline_under_test import PipelineUnderTest, made
from tests.support.servers import Postfix, Relay
from tests.support.subprocesses import until

DOMAIN = "bounces.example.com"
LONGEST_DOMAIN = f"{'d' * 63}.{'e' * 63}.{'f' * 63}.{'g' * 29}.com"  # the envelope sender has 254 characters
TEXT = b"Subject: hello\r\n\r\nhello\r\n"
ALICE, BOB = envelope_sender_of("alice", DOMAIN), envelope_sender_of("bob", DOMAIN)
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
Write = Callable[[datetime], str]


def old(moment: datetime) -> str:
    """The traditional time format of syslog and of Postfix's own log files: local time without a year."""
    return moment.astimezone().strftime("%b %e %H:%M:%S")


def iso(moment: datetime) -> str:
    return moment.astimezone().isoformat(timespec="microseconds")


def accepted(stamp: str, sender: str) -> str:
    return f"{stamp} relay postfix/qmgr[77]: 4bTz5k0Nzqz9rxQ: from=<{sender}>, size=1234, nrcpt=1 (queue active)\n"


def connected(stamp: str) -> str:
    return f"{stamp} relay postfix/smtpd[78]: connect from localhost[127.0.0.1]\n"


def started(stamp: str) -> str:
    return f"{stamp} relay postfix/master[70]: daemon started -- version 3.7.11, configuration /etc/postfix\n"


# Handwritten logs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mail.log"


@pytest.mark.parametrize("form", [old, iso])
def test_log_is_complete_within_its_time_range(path: Path, clock: MovableClock, form: Write) -> None:
    now, log = clock.now(), RelayLog(path, clock)
    path.write_text(connected(form(now - MINUTE)) + accepted(form(now - 30 * SECOND), ALICE) + connected(form(now)))
    assert log.is_complete(now - MINUTE + SLACK, now)
    assert not log.is_complete(now - MINUTE + SLACK - SECOND, now)
    assert not log.is_complete(now - 2 * MINUTE, now)
    assert not log.is_complete(now - MINUTE + SLACK, now + MINUTE)


@pytest.mark.parametrize("form", [old, iso])
def test_only_queue_manager_line_proves_acceptance(path: Path, clock: MovableClock, form: Write) -> None:
    stamp = form(clock.now())
    discarded = f"{stamp} relay postfix/cleanup[79]: 4bTz5k0Nzqz9rxR: message-id=<bob@{DOMAIN}>\n"
    noise = f"{stamp} relay postfix/smtpd[78]: NOQUEUE: reject: MAIL from localhost[127.0.0.1]: from=<{BOB}>\n"
    path.write_text(discarded + noise + accepted(stamp, ALICE) + accepted(stamp, "b+carol@elsewhere.example"))
    assert RelayLog(path, clock).queued_senders([ALICE, BOB]) == {ALICE}


def test_december_line_belongs_to_last_year(path: Path, clock: MovableClock) -> None:
    midnight = datetime(2027, 1, 1).astimezone()  # noqa: DTZ001 - local time, as in the log
    clock.move_to(midnight + MINUTE)
    path.write_text(connected(old(midnight - MINUTE)) + connected(old(midnight + MINUTE)))
    assert RelayLog(path, clock).is_complete(midnight - MINUTE + SLACK, midnight + MINUTE)
    assert not RelayLog(path, clock).is_complete(midnight - 3 * MINUTE, midnight + MINUTE)


@pytest.mark.parametrize("line", ["Feb 29 10:00:00 relay", "Xyz 99 99:99:99 relay", "2026-13-45T99:00 relay", "", "\0"])
def test_line_with_invalid_time_makes_log_incomplete(path: Path, clock: MovableClock, line: str) -> None:
    path.write_text(f"{line}\n{connected(old(clock.now()))}")
    assert not RelayLog(path, clock).is_complete(clock.now() - MINUTE, clock.now())


def test_leap_day_is_parsed_in_the_following_year(path: Path, clock: MovableClock) -> None:
    leap = datetime(2028, 2, 29, 12).astimezone()  # noqa: DTZ001
    clock.move_to(leap + timedelta(days=320))
    path.write_text(connected(old(leap)) + connected(old(clock.now())))
    assert RelayLog(path, clock).is_complete(leap + SLACK, clock.now())


def test_log_includes_rotated_but_not_compressed_files(path: Path, clock: MovableClock) -> None:
    now, log = clock.now(), RelayLog(path, clock)
    path.with_name("mail.log.1").write_text(connected(iso(now - MINUTE)) + accepted(iso(now - MINUTE), ALICE))
    path.with_name("mail.log.2.gz").write_text(accepted(iso(now - 2 * MINUTE), BOB))
    path.write_text(connected(iso(now)))
    assert log.is_complete(now - MINUTE + SLACK, now)
    assert not log.is_complete(now - 2 * MINUTE, now)
    assert log.queued_senders([ALICE, BOB]) == {ALICE}


@pytest.mark.parametrize("make", [lambda path: None, Path.touch, Path.mkdir], ids=["absent", "empty", "unreadable"])
def test_unreadable_log_is_incomplete(path: Path, clock: MovableClock, make: Callable[[Path], object]) -> None:
    make(path)
    assert not RelayLog(path, clock).is_complete(clock.now(), clock.now())


# Mails in doubt and handwritten logs


def add_doubt(pipeline: PipelineUnderTest, name: str) -> str:
    """Create a mail that has been in doubt long enough to be resolved. Return its id."""
    (id,) = pipeline.owe(outbox.NewMail("receipt", name, None, {}))
    with pipeline.database.transaction() as session:
        outbox.claim(session, f"mailer of {name}", pipeline.now, 1)
        outbox.mark_in_doubt(session, f"mailer of {name}", "it died", pipeline.now + outbox.DOUBT_GRACE)
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    return id


def resolve(pipeline: PipelineUnderTest, path: Path) -> int:
    def probe() -> None:
        with path.open("a") as log:
            log.write(connected(iso(pipeline.now)))

    return resolve_doubts(pipeline.database, pipeline.clock, RelayLog(path, pipeline.clock), probe, DOMAIN)


def states(pipeline: PipelineUnderTest) -> dict[str, str]:
    return {key: row.state for key, row in pipeline.mails().items()}


def test_accepted_mail_is_sent_and_other_mail_is_queued(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    one = add_doubt(pipeline, "one")
    add_doubt(pipeline, "two")
    path.write_text(path.read_text() + accepted(iso(pipeline.now), envelope_sender_of(one, DOMAIN)))
    assert resolve(pipeline, path) == 2
    assert states(pipeline) == {"one": "sent", "two": "queued"}
    assert pipeline.mails()["two"].due_at == pipeline.now
    assert resolve(pipeline, path) == 0


def test_new_doubt_is_not_resolved_before_grace_time(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    pipeline.owe(outbox.NewMail("receipt", "one", None, {}))
    with pipeline.database.transaction() as session:
        outbox.claim(session, "mailer", pipeline.now, 1)
    pipeline.clock.advance(MINUTE)
    with pipeline.database.transaction() as session:
        outbox.mark_in_doubt(session, "mailer", "it died", pipeline.now + outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 0
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 1


def test_doubt_waits_after_relay_restart(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(connected(iso(pipeline.now - MINUTE)))
    add_doubt(pipeline, "one")
    path.write_text(path.read_text() + started(iso(pipeline.now)))
    assert resolve(pipeline, path) == 0
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 1


@pytest.mark.parametrize("form", [old, iso])
@pytest.mark.parametrize("seconds", [-1, 0, 1])
def test_log_that_may_begin_after_attempt_resolves_nothing(
    pipeline: PipelineUnderTest, path: Path, form: Write, seconds: int
) -> None:
    """The log's times are whole seconds, so its first line may be from before or after the attempt."""
    path.write_text(started(form(pipeline.now + seconds * SECOND)))
    add_doubt(pipeline, "one")
    assert resolve(pipeline, path) == 0
    assert states(pipeline) == {"one": "doubt"}


@pytest.mark.parametrize("form", [old, iso])
def test_log_that_begins_two_seconds_before_attempt_resolves_it(
    pipeline: PipelineUnderTest, path: Path, form: Write
) -> None:
    path.write_text(started(form(pipeline.now - SLACK)))
    add_doubt(pipeline, "one")
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "queued"}


def test_log_compressed_during_reading_resolves_nothing(pipeline: PipelineUnderTest, path: Path) -> None:
    rotated = path.with_name("mail.log.1")
    rotated.write_text(started(iso(pipeline.now - MINUTE)))
    rotated.write_text(
        rotated.read_text() + accepted(iso(pipeline.now), envelope_sender_of(add_doubt(pipeline, "one"), DOMAIN))
    )

    class CompressedDuringReading(RelayLog):
        def queued_senders(self, senders: Iterable[str]) -> set[str]:
            rotated.rename(path.with_name("mail.log.1.gz"))
            return super().queued_senders(senders)

    log = CompressedDuringReading(path, pipeline.clock)
    assert (
        resolve_doubts(
            pipeline.database, pipeline.clock, log, lambda: path.write_text(connected(iso(pipeline.now))), DOMAIN
        )
        == 0
    )
    assert states(pipeline) == {"one": "doubt"}


def test_log_without_probe_line_resolves_nothing(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(connected(iso(pipeline.now - MINUTE)))
    add_doubt(pipeline, "one")
    log = RelayLog(path, pipeline.clock)
    assert resolve_doubts(pipeline.database, pipeline.clock, log, lambda: None, DOMAIN) == 0
    assert states(pipeline) == {"one": "doubt"}


def test_relay_is_not_probed_without_doubts(pipeline: PipelineUnderTest, path: Path) -> None:
    def probe() -> None:
        pytest.fail("the relay was probed without a mail in doubt")

    assert resolve_doubts(pipeline.database, pipeline.clock, RelayLog(path, pipeline.clock), probe, DOMAIN) == 0


def receiving(stamp: str, id: str, session: int = 78) -> str:
    """Log lines of a session that receives this mail."""
    client = f"{stamp} relay postfix/smtpd[{session}]: 4bTz5k0N{session}: client=localhost[127.0.0.1]\n"
    return client + f"{stamp} relay postfix/cleanup[79]: 4bTz5k0N{session}: message-id=<{id}@{DOMAIN}>\n"


def test_mail_in_open_session_stays_in_doubt(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    id = add_doubt(pipeline, "one")
    path.write_text(path.read_text() + receiving(iso(pipeline.now), id))
    assert resolve(pipeline, path) == 0
    pipeline.clock.advance(MINUTE)
    path.write_text(
        path.read_text() + f"{iso(pipeline.now)} relay postfix/smtpd[78]: disconnect from localhost[127.0.0.1]\n"
    )
    assert resolve(pipeline, path) == 0  # the queue manager may log the mail soon
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "queued"}


@pytest.mark.parametrize("after", ["another mail", "a start"])
def test_next_mail_or_restart_closes_session(pipeline: PipelineUnderTest, path: Path, after: str) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    id = add_doubt(pipeline, "one")
    later_line = {"another mail": receiving(iso(pipeline.now), "another"), "a start": started(iso(pipeline.now))}[after]
    path.write_text(path.read_text() + receiving(iso(pipeline.now), id) + later_line)
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "queued"}


def test_session_without_message_id_may_hold_mail_in_doubt(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    without_id = receiving(iso(pipeline.now), "").splitlines(keepends=True)[0]
    add_doubt(pipeline, "before")
    path.write_text(path.read_text() + without_id)
    pipeline.clock.advance(MINUTE)
    add_doubt(pipeline, "after")
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"before": "doubt", "after": "queued"}


def test_late_message_id_line_does_not_reopen_session(pipeline: PipelineUnderTest, path: Path) -> None:
    """Lines of several processes may be logged in another order than they happened."""
    path.write_text(started(iso(pipeline.now - MINUTE)))
    client, message_id = receiving(iso(pipeline.now), add_doubt(pipeline, "one")).splitlines(keepends=True)
    lost = f"{iso(pipeline.now)} relay postfix/smtpd[78]: lost connection after DATA (3454 bytes) from localhost[127.0.0.1]\n"
    path.write_text(path.read_text() + client + lost + message_id)
    pipeline.clock.advance(outbox.DOUBT_GRACE)
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "queued"}


def test_silent_session_is_ignored_after_filter_time(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    id = add_doubt(pipeline, "one")
    path.write_text(path.read_text() + receiving(iso(pipeline.now), id))
    pipeline.clock.advance(MAX_FILTER_TIME)
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "queued"}


def test_unresolvable_doubt_does_not_block_others(pipeline: PipelineUnderTest, path: Path) -> None:
    add_doubt(pipeline, "before the log")
    pipeline.clock.advance(MINUTE)
    path.write_text(started(iso(pipeline.now)))
    pipeline.clock.advance(MINUTE)
    add_doubt(pipeline, "after")
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"before the log": "doubt", "after": "queued"}


def test_one_line_in_incomplete_log_proves_acceptance(pipeline: PipelineUnderTest, path: Path) -> None:
    path.write_text(accepted(iso(pipeline.now), envelope_sender_of(add_doubt(pipeline, "one"), DOMAIN)))
    assert resolve(pipeline, path) == 1
    assert states(pipeline) == {"one": "sent"}


@pytest.mark.parametrize(
    "message",
    [
        "rsyslogd: imuxsock[pid: 78]: lost 5123 messages due to rate-limiting",
        "rsyslogd: imuxsock begins to drop messages; 12 dropped: discarded 12 messages",
        "systemd-journald[1]: Suppressed 123 messages from postfix.service",
    ],
)
def test_log_with_dropped_lines_resolves_nothing(pipeline: PipelineUnderTest, path: Path, message: str) -> None:
    path.write_text(started(iso(pipeline.now - MINUTE)))
    add_doubt(pipeline, "one")
    path.write_text(path.read_text() + f"{iso(pipeline.now)} relay {message}\n")
    assert resolve(pipeline, path) == 0
    assert states(pipeline) == {"one": "doubt"}


def test_result_of_one_attempt_does_not_resolve_a_later_one(pipeline: PipelineUnderTest) -> None:
    id, tried_at = add_doubt(pipeline, "one"), pipeline.mails()["one"].claimed_at
    with pipeline.database.transaction() as session:
        assert outbox.resolve_doubt(session, id, pipeline.now, sent=False)
    with pipeline.database.transaction() as session:
        outbox.claim(session, "another", pipeline.now, 1)
        outbox.mark_in_doubt(session, "another", "it died")
    with pipeline.database.transaction() as session:
        assert not outbox.resolve_doubt(session, id, pipeline.now, sent=False, tried_at=tried_at)
    assert states(pipeline) == {"one": "doubt"}


# Mails in doubt and a real Postfix


@pytest.fixture
def relay(mailbox: Relay, monkeypatch: pytest.MonkeyPatch) -> Postfix:
    """A Postfix on this machine whose log is complete from now on."""
    require_private_postfix(mailbox)
    assert isinstance(mailbox, Postfix)
    monkeypatch.setattr(outbox, "DOUBT_GRACE", timedelta(0))
    log, clock = RelayLog(mailbox.folder / "mail.log", SystemClock()), SystemClock()  # its log may be empty
    until(
        lambda: log.is_complete(clock.now(), clock.now() - timedelta(days=1)),
        10,
        "the relay's log begins before the attempt",
    )
    return mailbox


@pytest.mark.parametrize(
    ("fault", "sign", "end"),
    [("swallow", "qmgr", "sent"), ("before_dot", "lost connection after DATA", "queued")],
)
async def test_real_postfix_log_resolves_doubt(
    relay: Postfix, sqlite_pipeline: PipelineUnderTest, fault: Kind, sign: str, end: str
) -> None:
    sqlite_pipeline.clock.move_to(SystemClock().now())
    (id,) = sqlite_pipeline.owe(outbox.NewMail("receipt", fault, None, {}))
    with sqlite_pipeline.database.transaction() as session:
        outbox.claim(session, "mailer", sqlite_pipeline.now, 1)
    with Proxy(relay.port) as proxy:
        proxy.fault = Fault(fault)
        before = len(relay.log)
        client = RelayClient(f"smtp://127.0.0.1:{proxy.port}", connections=1)
        reply = await client.send(envelope_sender_of(id, DOMAIN), "alice@example.com", TEXT, envelope_id=id)
        await client.close()
    assert reply.outcome == "doubt"
    with sqlite_pipeline.database.transaction() as session:
        outbox.record_results(session, [(id, "mailer", {"state": "doubt", "due_at": None})])
    until(lambda: sign in relay.log[before:], 10, "Postfix logs the result")
    assert await resolve_by_postfix_log(sqlite_pipeline, relay) == 1
    assert states(sqlite_pipeline) == {fault: end}
    assert len(relay.wait_for(1) if end == "sent" else relay.mails()) == (end == "sent")


@pytest.mark.parametrize(
    ("bounce_domain", "logged"),
    [
        ("billing.brightwater-software.example", "billing.brightwater-software.example"),
        (LONGEST_DOMAIN, LONGEST_DOMAIN),
        ("Bounces.Example.COM", "bounces.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
async def test_real_postfix_logs_what_identifies_mail(
    relay: Postfix, pipeline_at_present: PipelineUnderTest, bounce_domain: str, logged: str
) -> None:
    """The evidence is the envelope sender and the Message-ID, as Postfix writes them, for every domain."""
    pipeline = pipeline_at_present
    sender = from_settings.sender(made(mail_from="billing@example.com", bounce_domain=bounce_domain))
    (id,) = pipeline.owe(outbox.NewMail("event_parked", "one", None, TEMPLATES.example("event_parked")))
    client = RelayClient(relay.smtp_url, connections=1)
    mailer = Mailer(
        pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, client, replace(sender, operator="a@example.com")
    )
    before = len(relay.log)
    assert await mailer.send_due() == 1
    await mailer.close()
    [mail] = relay.wait_for(1)
    assert f"Message-ID: <{id}@{logged}>\n".encode() in mail.replace(b"\r\n", b"\n")
    until(lambda: "(queue active)" in relay.log[before:], 10, "Postfix logs the mail")
    assert _MESSAGE_ID.findall(relay.log[before:])[0][1] == id
    written = envelope_sender_of(id, sender.envelope_domain)
    assert RelayLog(relay.folder / "mail.log", SystemClock()).queued_senders([written]) == {f"b+{id}@{logged}"}


@pytest.fixture
def pipeline_at_present(sqlite_pipeline: PipelineUnderTest) -> PipelineUnderTest:
    sqlite_pipeline.clock.move_to(SystemClock().now())
    return sqlite_pipeline


async def test_mail_in_slow_filter_is_not_sent_again(
    mailbox: Relay, sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_private_postfix(mailbox)
    monkeypatch.setattr(outbox, "DOUBT_GRACE", timedelta(0))
    with Postfix(settings={"smtpd_end_of_data_restrictions": "sleep 6"}) as relay:
        await asyncio.sleep(SLACK.total_seconds() + 1)  # so that the log begins before the attempt
        sqlite_pipeline.clock.move_to(SystemClock().now())
        (id,) = sqlite_pipeline.owe(outbox.NewMail("receipt", "one", None, {}))
        with sqlite_pipeline.database.transaction() as session:
            outbox.claim(session, "mailer", sqlite_pipeline.now, 1)
        client = RelayClient(relay.smtp_url, connections=1, final_timeout_seconds=0.5)
        text = f"Message-ID: <{id}@{DOMAIN}>\r\n".encode() + TEXT
        reply = await client.send(envelope_sender_of(id, DOMAIN), "alice@example.com", text, envelope_id=id)
        assert reply.outcome == "doubt"
        with sqlite_pipeline.database.transaction() as session:
            outbox.record_results(session, [(id, "mailer", {"state": "doubt", "due_at": None})])
        until(lambda: ": client=" in relay.log, 10, "Postfix receives the mail")
        assert await resolve_by_postfix_log(sqlite_pipeline, relay) == 0
        until(lambda: "(queue active)" in relay.log, 20, "Postfix queues the mail")
        assert await resolve_by_postfix_log(sqlite_pipeline, relay) == 1
        assert states(sqlite_pipeline) == {"one": "sent"}
        await client.close()


async def resolve_by_postfix_log(pipeline: PipelineUnderTest, relay: Postfix) -> int:
    """Resolve doubts in a separate thread, as the scheduler does."""
    log, clock = RelayLog(relay.folder / "mail.log", SystemClock()), SystemClock()

    def probe() -> None:
        asyncio.run(RelayClient(relay.smtp_url, connections=1).probe())

    return await asyncio.to_thread(resolve_doubts, pipeline.database, clock, log, probe, DOMAIN)


async def test_unreachable_relay_resolves_nothing(
    sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outbox, "DOUBT_GRACE", timedelta(0))
    add_doubt(sqlite_pipeline, "one")
    path = tmp_path / "mail.log"
    path.write_text(connected(iso(sqlite_pipeline.now - MINUTE)) + connected(iso(sqlite_pipeline.now)))

    def probe() -> None:
        raise RelayUnreachableError("connection refused")

    with pytest.raises(RelayUnreachableError):
        resolve_doubts(
            sqlite_pipeline.database, sqlite_pipeline.clock, RelayLog(path, sqlite_pipeline.clock), probe, DOMAIN
        )
    assert states(sqlite_pipeline) == {"one": "doubt"}
