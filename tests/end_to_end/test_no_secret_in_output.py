"""Canaries: every secret is a word of its own; then everything fails that can, and all that is said is looked through."""

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

ROOT = Path(__file__).parents[2]
SECRETS = {
    "database": "kanari-datenbank-7Qx",
    "broker": "kanari-makler-8Wy",
    "relay": "kanari-postamt-9Ez",
    "paypal": "kanari-paypal-4Rt",
}
# What each role says again and again where it cannot do its work; the web role needs nobody, and says so once.
ROLES = {"run": b"broker_down", "worker": b"broker_down", "mailer": b"broker_down", "web": b"server_started"}
COMMANDS = (
    "doctor", "doctor --json", "db upgrade", "events list", "paypal verify", "run --until-idle",
    "mail send-test receipt ada@example.com",
)  # fmt: skip


def needles(key: Path) -> list[bytes]:
    """Every secret, and the forms it takes on a wire or in an address."""
    words = [*SECRETS.values(), key.read_text("ascii").strip()]
    shifted = [base64.b64encode(b"x" * shift + word.encode())[4:-4] for word in words for shift in range(3)]
    return [*(word.encode() for word in words), *(quote(word, safe="").encode() for word in words), *shifted]


def said_by(words: str, environment: dict[str, str], folder: Path) -> bytes:
    """All it says, on both outputs, to its end. A role that does not end by itself is ended once it repeats itself."""
    command = [sys.executable, "-m", "pipeline", *words.split()]
    surroundings = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
    output = folder / f"{words.replace(' ', '')}.output"
    with output.open("wb") as said:
        child = subprocess.Popen(command, env=surroundings, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    if words in ROLES:
        enough = 1 if words == "web" else 4
        until(
            lambda: child.poll() is not None or output.read_bytes().count(ROLES[words]) >= enough,
            90,
            f"{words} says what it lacks, {enough} times",
        )
        child.terminate()
    child.wait(90)
    return output.read_bytes()


def said_by_all(commands: dict[str, dict[str, str]], folder: Path) -> dict[str, bytes]:
    """What each of these says, some at a time: starting is most of what they do."""
    with ThreadPoolExecutor(4) as threads:
        return dict(zip(commands, threads.map(said_by, commands, commands.values(), repeat(folder)), strict=True))


@pytest.fixture
def environment(data_dir: Path) -> dict[str, str]:
    """Everything is set, and nothing answers."""
    key = data_dir / "master.key"
    open_master_key(key)
    return {
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
    }


def unreadable(environment: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same with one address that cannot be read, one after the other."""
    for name in ("SMT_DATABASE_URL", "SMT_BROKER_URL", "SMT_SMTP_URL"):
        secret = environment[name]
        for broken in (f"nonsense{secret}", secret.replace("127.0.0.1", "[::"), secret.replace("://", ":/")):
            yield environment | {name: broken}


@pytest.fixture
def strict_postgres() -> Iterator[str]:
    """The address of a server that asks for passwords, and knows none of ours."""
    for server in private(Postgres):
        rules = server.folder / "data" / "pg_hba.conf"
        rules.write_text("host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        server.restart()
        yield f"127.0.0.1:{server.port}"


def on_sqlite(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """With a database that is there, so that a role gets as far as the others."""
    kept = {name: value for name, value in environment.items() if name != "SMT_DATABASE_URL"}
    said_by("db upgrade", kept, folder)
    return kept


def assert_nothing_leaks(environment: dict[str, str], folder: Path, *words: str) -> dict[str, bytes]:
    """What each of these commands says. Each says something, and none a secret."""
    said = said_by_all(dict.fromkeys(words, environment), folder)
    assert b"127.0.0.1" in said["doctor"]  # it did try, and says where
    assert all(said.values()), [words for words, text in said.items() if not text]
    assert leaks(said, Path(environment["SMT_MASTER_KEY_FILE"])) == []
    return said


@pytest.mark.timeout(300)
def test_no_secret_is_said_when_everything_fails(environment: dict[str, str], tmp_path: Path) -> None:
    assert_nothing_leaks(environment, tmp_path, *ROLES, "scheduler", *COMMANDS)


@pytest.mark.timeout(300)
def test_no_secret_is_said_when_everything_fails_but_the_database(environment: dict[str, str], tmp_path: Path) -> None:
    # The scheduler needs nothing else, and so has nothing to say.
    said = assert_nothing_leaks(on_sqlite(environment, tmp_path), tmp_path, *ROLES, *COMMANDS)
    assert b"Connect call failed" in said["mail send-test receipt ada@example.com"]


@pytest.mark.timeout(300)
def test_no_secret_is_said_to_a_database_that_refuses_it(
    environment: dict[str, str], strict_postgres: str, tmp_path: Path
) -> None:
    here = environment["SMT_DATABASE_URL"]
    environment["SMT_DATABASE_URL"] = here.replace(urlsplit(here).netloc.rpartition("@")[2], strict_postgres)
    said = assert_nothing_leaks(environment, tmp_path, *ROLES, "scheduler", "doctor", "events list")
    silent = [words for words, text in said.items() if b'password authentication failed for user "smt"' not in text]
    assert silent == []


@pytest.mark.timeout(300)
def test_no_secret_is_said_to_a_broker_that_refuses_it(
    environment: dict[str, str], broker_url: str, tmp_path: Path
) -> None:
    here, there = (urlsplit(url).netloc.rpartition("@")[2] for url in (environment["SMT_BROKER_URL"], broker_url))
    environment["SMT_BROKER_URL"] = environment["SMT_BROKER_URL"].replace(here, there)
    said = assert_nothing_leaks(on_sqlite(environment, tmp_path), tmp_path, "run", "worker", "mailer", "doctor")
    assert [words for words, text in said.items() if b"ACCESS_REFUSED" not in text] == []


@pytest.mark.timeout(300)
def test_no_secret_is_said_of_settings_that_cannot_be_read(environment: dict[str, str], tmp_path: Path) -> None:
    # The same command, spelled in as many ways as there are environments.
    commands = {f"doctor {'--json ' * number}".strip(): each for number, each in enumerate(unreadable(environment))}
    said = said_by_all(commands, tmp_path)
    assert leaks(said, Path(environment["SMT_MASTER_KEY_FILE"])) == []


def leaks(said: dict[str, bytes], key: Path) -> list[str]:
    return [f"{words}: {needle!r}" for words, text in said.items() for needle in needles(key) if needle in text]


def test_the_search_finds_what_it_looks_for(environment: dict[str, str]) -> None:
    key = Path(environment["SMT_MASTER_KEY_FILE"])
    login = base64.b64encode(f"\0smt\0{SECRETS['relay']}".encode())
    assert len(leaks({"plain": SECRETS["paypal"].encode(), "AUTH PLAIN": login, "key": key.read_bytes()}, key)) >= 3
