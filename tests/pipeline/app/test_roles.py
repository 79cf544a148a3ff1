"""`run`, `health` and `simulate`, against each other: one process serves, another plays PayPal."""

import os
import signal
import socket
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.command_line import Smt, files_of
from tests.support.subprocesses import Leashed, free_port

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(data_dir: Path, caught: Path, monkeypatch: pytest.MonkeyPatch, smt: Smt) -> dict[str, str]:
    """What `run` and its neighbours are set to."""
    chosen = {
        "SMT_DATA_DIR": str(data_dir),
        "SMT_SMTP_URL": os.environ["SMT_SMTP_URL"],
        "SMT_PAYPAL_WEBHOOK_ID": "7AB11223CD445566E",
        "SMT_WEB_PORT": str(free_port()),
    }
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    return chosen


def test_run_serves_a_story_to_its_mails_and_ends_when_told(
    smt: Smt, settings: dict[str, str], caught: Path, tmp_path: Path, data_dir: Path
) -> None:
    command = [sys.executable, "-m", "pipeline", "run"]
    running = Leashed(command, tmp_path, environment={**settings, "PYTHONPATH": str(ROOT)})
    running.wait_until(lambda: smt("health", "web").code == 0)
    assert smt("simulate", "refund", "--start", "now", "--seed", "1", "--json").json["accepted"] == 7
    running.wait_until(lambda: len(files_of(caught)) == 6)  # welcome, three receipts, two of refunds
    assert smt("health", "worker").code == smt("health", "mailer").code == smt("health", "scheduler").code == 0
    assert smt("subscriptions", "list", "--json").json[0]["status"] == "ACTIVE"
    refused = smt("simulate", "refund", "--webhook-id", "ANOTHER", "--json")
    assert (refused.code, set(refused.json["answers"])) == (1, {"403"})
    assert running.end(signal.SIGTERM) == 0
    said = [orjson.loads(line) for line in running.log.read_text().splitlines()]
    [listening] = [line for line in said if line["event"] == "listening"]
    assert listening["url"] == f"http://127.0.0.1:{settings['SMT_WEB_PORT']}/webhooks/paypal"
    assert not [line for line in said if line["level"] == "error"]


def test_where_only_paypals_simulator_is_believed_a_story_is_signed_as_it_signs(
    smt: Smt, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"SMT_PAYPAL_WEBHOOK_ID": "", "SMT_PAYPAL_ACCEPT_SIMULATOR": "true"}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "pipeline", "run"]
    running = Leashed(command, tmp_path, environment={**settings, **changed, "PYTHONPATH": str(ROOT)})
    running.wait_until(lambda: smt("health", "web").code == 0)
    assert smt("simulate", "refund", "--start", "now", "--json").json["accepted"] == 7
    assert running.end(signal.SIGTERM) == 0


def test_a_role_that_does_not_run_is_not_well(smt: Smt, settings: dict[str, str]) -> None:
    for role in ("web", "worker", "mailer", "scheduler"):
        assert smt("health", role).code == 1
    assert "no answer from http://127.0.0.1:" in smt("health", "web").out
    assert "no heartbeat" in smt("health", "worker").out


def test_a_role_that_dies_takes_the_process_with_it(settings: dict[str, str], tmp_path: Path, data_dir: Path) -> None:
    """A port that is taken: the process ends with 1, so that its supervisor starts it anew."""
    command = [sys.executable, "-m", "pipeline", "run"]
    with socket.create_server(("127.0.0.1", int(settings["SMT_WEB_PORT"]))):
        running = Leashed(command, tmp_path, environment={**settings, "PYTHONPATH": str(ROOT)})
        with pytest.raises(RuntimeError, match="ended with 1") as ended:
            running.wait_until(lambda: False)
    assert f"127.0.0.1:{settings['SMT_WEB_PORT']}" in str(ended.value)


def test_nobody_answers_is_found_wrong(smt: Smt, settings: dict[str, str]) -> None:
    answer = smt("simulate", "cancel", "--json")
    assert (answer.code, set(answer.json["answers"])) == (1, {"0"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("never_told",), "first_year"),
        (("cancel", "--plan", "moon"), "cloud"),
        (("cancel", "--start", "soon"), "--start"),
        (("cancel", "--url", "https://example.com/"), "http://"),
    ],
)
def test_a_story_that_cannot_be_told_is_asked_wrongly(
    smt: Smt, settings: dict[str, str], words: tuple[str, ...], said: str
) -> None:
    answer = smt("simulate", *words)
    assert (answer.code, said in answer.err) == (2, True)


def test_pretend_customers_never_get_into_live_books(
    smt: Smt, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", "https://api-m.paypal.com")
    answer = smt("simulate", "cancel")
    assert (answer.code, "live" in answer.err) == (2, True)


def test_the_stories_are_named(smt: Smt) -> None:
    assert {"first_year", "refund"} <= {story["name"] for story in smt("simulate", "list", "--json").json}
    assert "first_year" in smt("simulate", "list").out
