"""`run`, `health` and `simulate` together: one process runs all roles, and `simulate` plays PayPal."""

import os
import signal
import socket
import sys
from pathlib import Path

import orjson
import pytest

from tests.support.command_line import Smt, files_of
from tests.support.subprocesses import ManagedProcess, free_port
from tests.support.vendor import ENVIRONMENT

ROOT = Path(__file__).parents[3]


@pytest.fixture
def settings(data_dir: Path, caught: Path, monkeypatch: pytest.MonkeyPatch, smt: Smt) -> dict[str, str]:
    """Settings for `run`, `health` and `simulate`, also set in the environment."""
    values = {
        **ENVIRONMENT,
        "SMT_DATA_DIR": str(data_dir),
        "SMT_SMTP_URL": os.environ["SMT_SMTP_URL"],
        "SMT_PAYPAL_WEBHOOK_ID": "7AB11223CD445566E",
        "SMT_PAYPAL_MAX_AHEAD_DAYS": "4000",  # the simulated subscriptions begin now
        "SMT_WEB_PORT": str(free_port()),
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return values


@pytest.mark.slow
def test_run_processes_events_sends_mails_and_stops_on_sigterm(
    smt: Smt, settings: dict[str, str], caught: Path, tmp_path: Path, data_dir: Path
) -> None:
    command = [sys.executable, "-m", "pipeline", "run"]
    running = ManagedProcess(command, tmp_path, environment={**settings, "PYTHONPATH": str(ROOT)})
    running.wait_until(lambda: smt("health", "web").code == 0)
    assert smt("simulate", "refund", "--start", "now", "--seed", "1", "--json").json["accepted"] == 7
    running.wait_until(lambda: len(files_of(caught)) == 6)  # account set-up, three receipts, two refund receipts
    assert smt("health", "worker").code == smt("health", "mailer").code == smt("health", "scheduler").code == 0
    assert smt("subscriptions", "list", "--json").json[0]["status"] == "ACTIVE"
    refused = smt("simulate", "refund", "--webhook-id", "ANOTHER", "--json")
    assert (refused.code, set(refused.json["answers"])) == (1, {"403"})
    assert running.end(signal.SIGTERM) == 0
    lines = [orjson.loads(line) for line in running.log.read_text().splitlines()]
    [started] = [line for line in lines if line["event"] == "server_started"]
    assert started["url"] == f"http://127.0.0.1:{settings['SMT_WEB_PORT']}/webhooks/paypal"
    assert not [line for line in lines if line["level"] == "error"]


@pytest.mark.slow
def test_simulate_signs_as_paypals_simulator_if_accepted(
    smt: Smt, settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = {"SMT_PAYPAL_WEBHOOK_ID": "", "SMT_PAYPAL_ACCEPT_SIMULATOR": "true"}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "pipeline", "run"]
    running = ManagedProcess(command, tmp_path, environment={**settings, **changed, "PYTHONPATH": str(ROOT)})
    running.wait_until(lambda: smt("health", "web").code == 0)
    assert smt("simulate", "refund", "--start", "now", "--json").json["accepted"] == 7
    assert running.end(signal.SIGTERM) == 0


def test_stopped_role_is_unhealthy(smt: Smt, settings: dict[str, str]) -> None:
    for role in ("web", "worker", "mailer", "scheduler"):
        assert smt("health", role).code == 1
    assert "no answer from http://127.0.0.1:" in smt("health", "web").out
    assert "no heartbeat" in smt("health", "worker").out


@pytest.mark.slow
def test_failed_role_ends_process(settings: dict[str, str], tmp_path: Path, data_dir: Path) -> None:
    """The port is in use. The process ends with 1, so that its supervisor starts it again."""
    command = [sys.executable, "-m", "pipeline", "run"]
    with socket.create_server(("127.0.0.1", int(settings["SMT_WEB_PORT"]))):
        running = ManagedProcess(command, tmp_path, environment={**settings, "PYTHONPATH": str(ROOT)})
        with pytest.raises(RuntimeError, match="ended with 1") as ended:
            running.wait_until(lambda: False)
    assert f"127.0.0.1:{settings['SMT_WEB_PORT']}" in str(ended.value)


def test_simulate_fails_without_receiver(smt: Smt, settings: dict[str, str]) -> None:
    answer = smt("simulate", "cancel", "--json")
    assert (answer.code, set(answer.json["answers"])) == (1, {"0"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("unknown_scenario",), "first_year"),
        (("cancel", "--plan", "moon"), "cloud"),
        (("cancel", "--start", "soon"), "--start"),
        (("cancel", "--url", "https://example.com/"), "http://"),
    ],
)
def test_invalid_simulation_is_usage_error(
    smt: Smt, settings: dict[str, str], words: tuple[str, ...], message: str
) -> None:
    answer = smt("simulate", *words)
    assert (answer.code, message in answer.err) == (2, True)


def test_simulate_refuses_live_paypal(smt: Smt, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMT_PAYPAL_BASE_URL", "https://api-m.paypal.com")
    answer = smt("simulate", "cancel")
    assert (answer.code, "live" in answer.err) == (2, True)


def test_scenarios_are_listed(smt: Smt) -> None:
    assert {"first_year", "refund"} <= {story["name"] for story in smt("simulate", "list", "--json").json}
    assert "first_year" in smt("simulate", "list").out
