"""No command prints a secret, even when every server is down or refuses the login.

Each secret is a unique word, so the tests can search the complete output for it.
"""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from pipeline.crypto.master_key import open_master_key
from tests.conftest import private
from tests.support.servers import Postgres
from tests.support.subprocesses import free_port, until
from tests.support.vendor import ENVIRONMENT

ROOT = Path(__file__).parents[2]
SECRETS = {
    "database": "kanari-datenbank-7Qx",
    "broker": "kanari-makler-8Wy",
    "relay": "kanari-postamt-9Ez",
    "paypal": "kanari-paypal-4Rt",
}
# The log event that each role repeats while it cannot work. The web role needs no server and logs its event once.
ROLES = {"run": b"broker_down", "worker": b"broker_down", "mailer": b"broker_down", "web": b"server_started"}
COMMANDS = (
    "doctor", "doctor --json", "db upgrade", "events list", "paypal verify", "run --until-idle",
    "mail send-test receipt ada@example.com",
)  # fmt: skip


def needles(key: Path) -> list[bytes]:
    """Return every secret, also base64-encoded (as sent over the network) and percent-encoded (as in a URL)."""
    words = [*SECRETS.values(), key.read_text("ascii").strip()]
    shifted = [base64.b64encode(b"x" * shift + word.encode())[4:-4] for word in words for shift in range(3)]
    return [*(word.encode() for word in words), *(quote(word, safe="").encode() for word in words), *shifted]


def output_of(words: str, environment: dict[str, str], folder: Path) -> bytes:
    """Return the complete stdout and stderr of a command. A role gets SIGTERM when its log event repeats."""
    command = [sys.executable, "-m", "pipeline", *words.split()]
    surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    output = folder / f"{words.replace(' ', '')}.output"
    with output.open("wb") as file:
        child = subprocess.Popen(command, env=surroundings, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    if words in ROLES:
        enough = 1 if words == "web" else 4
        until(
            lambda: child.poll() is not None or output.read_bytes().count(ROLES[words]) >= enough,
            90,
            f"{words} logs {ROLES[words].decode()} {enough} times",
        )
        child.terminate()
    child.wait(90)
    return output.read_bytes()


def outputs_of(commands: dict[str, dict[str, str]], folder: Path) -> dict[str, bytes]:
    """Return the output of each command. Four run at a time, because most of their time is start-up."""
    with ThreadPoolExecutor(4) as threads:
        return dict(zip(commands, threads.map(output_of, commands, commands.values(), repeat(folder)), strict=True))


@pytest.fixture
def environment(data_dir: Path) -> dict[str, str]:
    """Environment in which everything is set and no server answers."""
    key = data_dir / "master.key"
    open_master_key(key)
    return {
        **ENVIRONMENT,
        "SMT_DATA_DIR": str(data_dir),
        "SMT_MASTER_KEY_FILE": str(key),
        "SMT_DATABASE_URL": f"postgresql://smt:{SECRETS['database']}@127.0.0.1:{free_port()}/smt",
        "SMT_BROKER_URL": f"amqp://smt:{SECRETS['broker']}@127.0.0.1:{free_port()}/%2F",
        "SMT_SMTP_URL": f"smtp+starttls://smt:{SECRETS['relay']}@127.0.0.1:{free_port()}",
        "SMT_PAYPAL_CLIENT_ID": "client",
        "SMT_PAYPAL_CLIENT_SECRET": SECRETS["paypal"],
        "SMT_PAYPAL_BASE_URL": f"https://127.0.0.1:{free_port()}",
        "SMT_PAYPAL_WEBHOOK_ID": "8PT597110X687430L",
        "SMT_WEB_PORT": "0",
        "SMT_METRICS_PORT": "0",
    }


def with_malformed_url(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield copies of the environment, each with one malformed URL."""
    for name in ("SMT_DATABASE_URL", "SMT_BROKER_URL", "SMT_SMTP_URL"):
        secret = environment[name]
        for broken in (f"nonsense{secret}", secret.replace("127.0.0.1", "[::"), secret.replace("://", ":/")):
            yield environment | {name: broken}


@pytest.fixture
def strict_postgres() -> Iterator[str]:
    """Address of a PostgreSQL server that requires a password and does not have the tested user."""
    for server in private(Postgres):
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.restart()
        yield f"127.0.0.1:{server.port}"


def on_sqlite(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Return the environment with a working SQLite database, so that a role gets past its database check."""
    kept = {name: value for name, value in environment.items() if name != "SMT_DATABASE_URL"}
    output_of("db upgrade", kept, folder)
    return kept


def assert_nothing_leaks(environment: dict[str, str], folder: Path, *words: str) -> dict[str, bytes]:
    """Check that each command prints something and no secret. Return the outputs."""
    outputs = outputs_of(dict.fromkeys(words, environment), folder)
    assert b"127.0.0.1" in outputs["doctor"]  # It did try to connect and prints the address.
    assert all(outputs.values()), [words for words, text in outputs.items() if not text]
    assert leaks(outputs, Path(environment["SMT_MASTER_KEY_FILE"])) == []
    return outputs


@pytest.mark.timeout(300)
def test_no_secret_is_printed_when_all_servers_are_down(environment: dict[str, str], tmp_path: Path) -> None:
    assert_nothing_leaks(environment, tmp_path, *ROLES, "scheduler", *COMMANDS)


@pytest.mark.timeout(300)
def test_no_secret_is_printed_when_only_the_database_works(environment: dict[str, str], tmp_path: Path) -> None:
    # The scheduler needs only the database, so it prints nothing here.
    outputs = assert_nothing_leaks(on_sqlite(environment, tmp_path), tmp_path, *ROLES, *COMMANDS)
    assert b"connection refused" in outputs["mail send-test receipt ada@example.com"]


@pytest.mark.timeout(300)
def test_no_secret_is_printed_when_database_refuses_login(
    environment: dict[str, str], strict_postgres: str, tmp_path: Path
) -> None:
    here = environment["SMT_DATABASE_URL"]
    environment["SMT_DATABASE_URL"] = here.replace(urlsplit(here).netloc.rpartition("@")[2], strict_postgres)
    outputs = assert_nothing_leaks(environment, tmp_path, *ROLES, "scheduler", "doctor", "events list")
    silent = [words for words, text in outputs.items() if b'password authentication failed for user "smt"' not in text]
    assert silent == []


@pytest.mark.timeout(300)
def test_no_secret_is_printed_when_broker_refuses_login(
    environment: dict[str, str], broker_url: str, tmp_path: Path
) -> None:
    here, there = (urlsplit(url).netloc.rpartition("@")[2] for url in (environment["SMT_BROKER_URL"], broker_url))
    environment["SMT_BROKER_URL"] = environment["SMT_BROKER_URL"].replace(here, there)
    outputs = assert_nothing_leaks(on_sqlite(environment, tmp_path), tmp_path, "run", "worker", "mailer", "doctor")
    assert [words for words, text in outputs.items() if b"ACCESS_REFUSED" not in text] == []


@pytest.mark.timeout(300)
def test_no_secret_is_printed_for_malformed_urls(environment: dict[str, str], tmp_path: Path) -> None:
    # The keys must differ, so each environment gets a different spelling of the same command.
    commands = {
        f"doctor {'--json ' * number}".strip(): each for number, each in enumerate(with_malformed_url(environment))
    }
    outputs = outputs_of(commands, tmp_path)
    assert leaks(outputs, Path(environment["SMT_MASTER_KEY_FILE"])) == []


def leaks(outputs: dict[str, bytes], key: Path) -> list[str]:
    return [f"{words}: {needle!r}" for words, text in outputs.items() for needle in needles(key) if needle in text]


def test_search_finds_secrets(environment: dict[str, str]) -> None:
    key = Path(environment["SMT_MASTER_KEY_FILE"])
    login = base64.b64encode(f"\0smt\0{SECRETS['relay']}".encode())
    assert len(leaks({"plain": SECRETS["paypal"].encode(), "AUTH PLAIN": login, "key": key.read_bytes()}, key)) >= 3
