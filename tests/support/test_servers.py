"""The test servers are private, keep their data when killed, and stop with the test process."""

import os
import signal
import smtplib
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from kombu.connection import Connection
from sqlalchemy import create_engine, text

from tests.conftest import do_without
from tests.support.servers import Postfix, Postgres, RabbitMQ, Relay, Server, plain
from tests.support.subprocesses import ManagedProcess, answers, free_port, until

ROOT = Path(__file__).parents[2]


def test_each_test_gets_its_own_empty_database(postgres: str, postgres_url: str) -> None:
    assert postgres_url != postgres
    with psycopg.connect(plain(postgres_url)) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_database_fixture_runs_test_on_both_databases(database_url: str, request: pytest.FixtureRequest) -> None:
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    assert engine.dialect.name == request.node.callspec.params["database_url"]
    engine.dispose()


def test_postgresql_keeps_committed_data_when_killed(postgres: str) -> None:
    with Postgres() as server:
        url, first = plain(server.url), server.pid
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
            server.restart(kill=True)
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT * FROM kept").fetchone() == (1,)
        last = server.pid
    assert_server_is_gone(server, first, last)


def test_rabbitmq_transports_a_message(broker_url: str, queue_prefix: str) -> None:
    with Connection(broker_url) as connection:  # type: ignore[no-untyped-call]
        with connection.SimpleQueue(queue_prefix) as queue:
            queue.put("hello")
            assert queue.get(timeout=10).payload == "hello"
        connection.default_channel.queue_delete(queue_prefix)


def test_each_test_can_use_its_own_empty_broker(empty_broker_url: str, rabbitmq: RabbitMQ | str) -> None:
    if isinstance(rabbitmq, str):
        pytest.skip("needs a private RabbitMQ, not the one that SMT_TEST_BROKER_URL names")
    vhost = empty_broker_url.rpartition("/")[2]
    assert rabbitmq.ctl("list_queues", "name", "-p", vhost).split() == []
    with Connection(empty_broker_url) as connection, connection.SimpleQueue("hello"):  # type: ignore[no-untyped-call]
        assert rabbitmq.ctl("list_queues", "name", "-p", vhost).split() == ["hello"]


def test_mail_to_any_recipient_is_delivered(mailbox: Relay) -> None:
    send(mailbox, "alice@example.com")
    assert b"Delivered-To: alice@example.com" in mailbox.wait_for(1)[0]


def test_mailbox_is_emptied_between_tests(mailbox: Relay) -> None:
    assert mailbox.mails() == []


@pytest.mark.parametrize(("name", "code"), [("refused", 550), ("later", 450)])
def test_refused_recipients_get_their_error_code(mailbox: Relay, name: str, code: int) -> None:
    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        send(mailbox, f"{name}@example.com")
    assert refused.value.recipients[f"{name}@example.com"][0] == code


def test_mail_to_bounces_returns_delivery_report(mailbox: Relay) -> None:
    send(mailbox, "bounces@example.com")
    report = mailbox.wait_for(1)[0]
    assert b"Delivered-To: b+1@example.com" in report
    assert b"Status: 5.1.1" in report


def test_postfix_keeps_queued_mail_when_killed(postfix: Relay) -> None:
    with Postfix(settings={"virtual_transport": "retry:4.4.1 the next hop is down"}) as server:
        send(server, "alice@example.com")
        until(lambda: [mail["queue_name"] for mail in server.queue()] == ["deferred"], 10, "the mail is deferred")
        server.restart(kill=True)
        assert [mail["recipients"][0]["address"] for mail in server.queue()] == ["alice@example.com"]
        assert "the next hop is down" in server.log
        last = server.pid
    assert_server_is_gone(server, last)


def test_managed_process_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    code = f"""if True:
        import os, pathlib, time
        from tests.support.subprocesses import ManagedProcess
        print(ManagedProcess(["sleep", "600"], pathlib.Path({str(tmp_path)!r})).pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        os.kill(pid, 0)
        starter.kill()
    until(lambda: gone(pid), 10, f"process {pid} is gone")


def test_failed_start_shows_program_output(tmp_path: Path) -> None:
    program = ManagedProcess(["sh", "-c", "echo start failed; exit 3"], tmp_path)
    with pytest.raises(RuntimeError, match="ended with 3\nstart failed"):
        program.wait_until(lambda: answers(free_port()))


def test_program_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.subprocesses.STOP_SECONDS", 0.2)
    program = ManagedProcess(["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"], tmp_path)
    program.wait_until(lambda: "deaf" in program.log.read_text())
    assert program.end() == -signal.SIGKILL


def test_missing_server_skips_test_unless_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMT_TEST_REQUIRE_SERVICES", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such program"):
        do_without("no such program")
    monkeypatch.setenv("SMT_TEST_REQUIRE_SERVICES", "1")
    with pytest.raises(pytest.fail.Exception, match="no such program"):
        do_without("no such program")


def send(relay: Relay, recipient: str) -> None:
    host, _, port = relay.smtp_url.removeprefix("smtp://").partition(":")
    with smtplib.SMTP(host, int(port), timeout=20) as smtp:
        smtp.sendmail("b+1@example.com", [recipient], b"Subject: hello\r\n\r\nhello\r\n")


def assert_server_is_gone(server: Server, *pids: int) -> None:
    assert [pid for pid in pids if not gone(pid)] == []
    # A child of a killed server may hold its socket a moment longer.
    until(lambda: not answers(server.port), 10, "the port is closed")
    assert not server.folder.exists()


def gone(pid: int) -> bool:
    """Return whether a process has ended. A zombie counts as ended: its entry stays until its parent waits for it."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
