"""Check docker-compose.yml: its rules for rights, networks and secrets, and that each role starts and becomes healthy.

The tests need no container engine. They start each service's command with its environment and run its health check.
Host names are mapped to real servers on loopback, and secrets and volumes to folders of the test.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
import yaml
from sqlalchemy import URL, make_url

from pipeline.clock import MovableClock
from pipeline.crypto.master_key import open_master_key
from pipeline.crypto.signing import encode_public
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.operations import heartbeat
from pipeline.operations.backup.signatures import BackupSigner
from pipeline.operations.backup.store import BackupStore, new_identity
from pipeline.settings import Settings, variable
from tests.conftest import do_without
from tests.support.servers import Postfix, Relay, plain
from tests.support.subprocesses import ManagedProcess, answers, free_port, surroundings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
ROLES = ("web", "worker", "mailer", "scheduler")
APP = ("migrate", *ROLES)
PROGRAM = Path(sys.executable).parent / "smt-billing"

EVERY = [pytest.param(service, id=name) for name, service in SERVICES.items()]
OF_APP = [pytest.param(SERVICES[name], id=name) for name in APP]


# Content of the file


def test_each_role_and_server_has_one_service() -> None:
    assert sorted(SERVICES) == sorted([*APP, "postgres", "rabbitmq", "postfix"])


@pytest.mark.parametrize("role", ROLES)
def test_role_uses_its_own_command_and_health_check(role: str) -> None:
    assert SERVICES[role]["command"] == ["smt-billing", role]
    assert SERVICES[role]["healthcheck"]["test"] == ["CMD", "smt-billing", "health", role]


def test_every_long_running_service_has_health_check_and_restart() -> None:
    assert [
        name for name in SERVICES if name != "migrate" and "test" not in SERVICES[name].get("healthcheck", {})
    ] == []
    assert {service["restart"] for name, service in SERVICES.items() if name != "migrate"} == {"unless-stopped"}


def test_services_wait_for_their_dependencies() -> None:
    waits = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    waits = {name: {other: wait["condition"] for other, wait in each.items()} for name, each in waits.items()}
    assert waits["migrate"] == {"postgres": "service_healthy"}
    assert all(waits[role]["migrate"] == "service_completed_successfully" for role in ROLES)
    assert "rabbitmq" not in waits["web"], "the web role must accept events while the broker is down"
    assert waits["mailer"]["postfix"] == "service_healthy"


def test_web_trusts_the_gateways_of_its_networks() -> None:
    """Docker forwards requests to a published port from the gateway, so the web role sees that address as its peer."""
    networks = [FILE["networks"][name]["ipam"]["config"] for name in SERVICES["web"]["networks"]]
    gateways = [config["gateway"] for [config] in networks]
    assert SERVICES["web"]["environment"]["SMT_TRUSTED_PROXIES"].split(",") == gateways
    assert all(ip_address(config["gateway"]) in ip_network(config["subnet"]) for [config] in networks)


@pytest.mark.parametrize("service", EVERY)
def test_no_service_has_unneeded_rights(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "pid", "network_mode", "devices"} & service.keys()


def test_only_postfix_starts_as_root() -> None:
    users = {name: str(service.get("user", "root")).partition(":")[0] for name, service in SERVICES.items()}
    assert [name for name, user in users.items() if user in ("root", "0")] == ["postfix"]
    assert {users[name] for name in APP} == {"10001"}


@pytest.mark.parametrize("service", OF_APP)
def test_role_writes_only_to_its_volumes_and_memory(
    service: dict[str, Any],
) -> None:
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    data, *others = service["volumes"]
    assert data == "data:/var/lib/smt-billing"
    writes = [volume for volume in others if not volume.endswith(":ro")]
    assert writes == (["backups:/var/backups/smt-billing"] if service is SERVICES["scheduler"] else [])
    assert service["environment"]["SMT_DATA_DIR"] == "/var/lib/smt-billing"


@pytest.mark.parametrize("service", EVERY)
def test_every_volume_is_named(service: dict[str, Any]) -> None:
    names = {volume.partition(":")[0] for volume in service.get("volumes", [])}
    assert names <= FILE["volumes"].keys()


@pytest.mark.parametrize("service", EVERY)
def test_every_image_has_an_exact_version(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z-]+:\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"])


def test_images_are_built_on_exact_versions() -> None:
    """A tag without a complete version changes its content, so a rebuild could change the program's behaviour."""
    files = (ROOT / "Dockerfile", DEPLOY / "postfix" / "Dockerfile")
    bases = [
        line.split()[1] for path in files for line in path.read_text("utf-8").splitlines() if line.startswith("FROM")
    ]
    assert len(bases) == 3
    assert [base for base in bases if not re.search(r":\d+\.\d+\.\d+-|:\w+-\d{8}", base)] == []


@pytest.mark.parametrize("service", EVERY)
def test_every_service_has_limits(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+[gm]", service["mem_limit"])
    assert 0 < service["pids_limit"] <= 512
    assert service["ulimits"]["core"] == 0
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}


@pytest.mark.parametrize("service", OF_APP)
def test_keys_in_memory_are_not_swapped(service: dict[str, Any]) -> None:
    assert service["memswap_limit"] == service["mem_limit"]


def test_only_web_publishes_a_port_and_only_on_loopback() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "web": ["127.0.0.1:8000:8000", "127.0.0.1:9464:9464"]
    }


def test_only_some_services_reach_the_internet() -> None:
    assert FILE["networks"]["inside"]["internal"] is True
    assert {name for name, service in SERVICES.items() if "outside" in service["networks"]} == {
        "web",
        "scheduler",
        "worker",
        "postfix",
    }
    assert all("inside" in service["networks"] for service in SERVICES.values())


def test_relay_host_name_exists_only_on_private_network() -> None:
    """A service's name resolves on each of its networks, and mail to the relay is not encrypted."""
    urls = {
        service["environment"]["SMT_SMTP_URL"]
        for service in SERVICES.values()
        if "SMT_SMTP_URL" in service.get("environment", {})
    }
    relay = SERVICES["postfix"]["networks"]
    assert {urlsplit(url).hostname for url in urls} == set(relay["inside"]["aliases"])
    assert not relay["outside"]
    assert not set(relay["inside"]["aliases"]) & set(SERVICES)


@pytest.mark.parametrize("service", EVERY)
def test_every_secret_is_a_file(service: dict[str, Any], secrets: Path) -> None:
    mounted = {each if isinstance(each, str) else each["source"] for each in service.get("secrets", [])}
    used = {Path(value).name for value in service.get("environment", {}).values() if "/run/secrets/" in value}
    assert used <= mounted
    for name in mounted:
        assert FILE["secrets"][name]["file"] == f"deploy/secrets/{name}"
        assert (secrets / name).exists()
    for name, value in service.get("environment", {}).items():
        assert name.endswith("_FILE") or not re.search("PASS|SECRET|KEY|TOKEN", name)
        assert urlsplit(value).password is None


@pytest.mark.parametrize("service", OF_APP)
def test_every_setting_exists(service: dict[str, Any]) -> None:
    known = {variable(name) for name in Settings.model_fields}
    names = [*service["environment"], *(name for name in example_settings() if name.startswith("SMT_"))]
    assert [name for name in names if name not in known and name.removesuffix("_FILE") not in known] == []


def test_example_settings_contain_no_secret() -> None:
    assert [name for name in example_settings() if re.search("PASS|SECRET|KEY|TOKEN|URL_FILE", name)] == []
    assert {name for service in SERVICES.values() for name in service.get("env_file", [])} == {"deploy/settings.env"}


def test_secrets_script_keeps_existing_secrets(secrets: Path) -> None:
    before = {path.name: path.read_bytes() for path in secrets.iterdir()}
    subprocess.run(["sh", DEPLOY / "secrets.sh", secrets], check=True)
    assert {path.name: path.read_bytes() for path in secrets.iterdir()} == before
    assert sorted(before) == sorted(FILE["secrets"])
    assert secrets.stat().st_mode & 0o077 == 0


def test_servers_and_program_use_same_passwords(secrets: Path) -> None:
    database, broker = (urlsplit((secrets / name).read_text()) for name in ("database_url", "broker_url"))
    assert (database.username, database.password) == ("smt", (secrets / "database_password").read_text())
    assert database.password != (secrets / "postgres_password").read_text(), "the superuser has another password"
    assert (secrets / "rabbitmq_user").read_text() == f"default_user = smt\ndefault_pass = {broker.password}\n"


def test_image_installs_locked_packages_and_runs_without_root() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", "").splitlines()
    assert all(re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+\b", line) for line in lines if line.startswith("FROM"))
    installs = re.findall(r"pip (?:install|wheel) [^&\n]*", "\n".join(lines))
    assert len(installs) >= 3
    assert all("--require-hashes" in install or "--no-index" in install for install in installs)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]


def test_image_has_postgresql_client_of_server_version() -> None:
    server = SERVICES["postgres"]["image"].partition(":")[2].partition(".")[0]
    *_, last = (ROOT / "Dockerfile").read_text("utf-8").split("\nFROM ")
    assert f" postgresql-client-{server} " in last
    assert "/var/backups/smt-billing" in last, "the folder must exist in the image: the volume takes its owner from it"


def test_program_logs_in_with_a_role_that_is_no_superuser(
    secrets: Path, postgres_url: str, data_dir: Path, clock: MovableClock
) -> None:
    """Run the file that the image runs, then migrate, back up and restore with that role."""
    role, password = f"smt_{data_dir.parent.name[-40:]}".lower(), (secrets / "database_password").read_text()
    url = make_url(postgres_url)
    for name in (str(url.database), f"{url.database}_other"):
        script = (DEPLOY / "postgres" / "application_role.sql").read_text("utf-8")
        script = script.replace("/run/secrets/", f"{secrets}/").replace("DATABASE smt", f"DATABASE {name}")
        if name != url.database:
            run_sql(url, f"CREATE DATABASE {name}")
            script = re.sub("^CREATE ROLE.*$", "", script, flags=re.MULTILINE)
        run_sql(url, re.sub(r"\bsmt\b(?! OWNER)", role, script))
    own = url.set(username=role, password=password)
    try:
        with psycopg.connect(plain(own.render_as_string(hide_password=False))) as connection:
            rights = connection.execute(
                "SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = %s",
                [role],
            ).fetchone()
        assert rights == (False,) * 5
        back_up_and_restore(own, own.set(database=f"{url.database}_other"), data_dir, clock)
    finally:
        run_sql(url, f"DROP DATABASE {url.database}_other WITH (FORCE)")
        run_sql(
            url,
            f"ALTER DATABASE {url.database} OWNER TO {url.username}; DROP OWNED BY {role} CASCADE; DROP ROLE {role}",
        )


def run_sql(url: URL, script: str) -> None:
    """Run a script with psql, as the superuser, as the image does."""
    psql = shutil.which("psql")
    if psql is None:
        do_without("psql is not installed: apt-get install postgresql-client")
    assert psql
    target = plain(url.render_as_string(hide_password=False))
    subprocess.run([psql, "-v", "ON_ERROR_STOP=1", "-qX", "-d", target, "-f", "-"], input=script, text=True, check=True)


def back_up_and_restore(source: URL, target: URL, folder: Path, clock: MovableClock) -> None:
    identity, key = folder / "identity.txt", folder / "keys" / "master.key"
    store = BackupStore(folder / "copies", new_identity(identity))
    full, empty = (Database(url.render_as_string(hide_password=False)) for url in (source, target))
    migrations.upgrade(full)
    open_master_key(key)
    signer = encode_public(BackupSigner.open(full, key, clock.now()).public)
    store.create(full, key, clock.now())
    store.restore(empty, key, identity, clock.now(), signer=signer)
    assert migrations.current(empty) == migrations.newest()
    full.close()
    empty.close()


def test_only_the_database_server_gets_the_superuser_password() -> None:
    assert [name for name, service in SERVICES.items() if "postgres_password" in service["secrets"]] == ["postgres"]
    [script] = SERVICES["postgres"]["configs"]
    assert FILE["configs"][script["source"]]["file"] == "deploy/postgres/application_role.sql"
    assert script["target"].startswith("/docker-entrypoint-initdb.d/")


def test_master_key_is_in_writable_folder(secrets: Path) -> None:
    """An erasure replaces the master key. A secret is mounted read-only, so it could not be replaced."""
    assert [name for name in secrets.iterdir() if "master" in name.name] == []
    for name in APP:
        assert "SMT_MASTER_KEY_FILE" not in SERVICES[name]["environment"]
    assert SERVICES["scheduler"]["environment"]["SMT_BACKUP_DIR"] == "/var/backups/smt-billing"


# Running services


@pytest.mark.slow
def test_every_role_becomes_healthy_and_stops_cleanly(engine: "Engine") -> None:
    engine.run(SERVICES["migrate"])
    for role in ("web", "worker"):  # The web role is checked by HTTP, the others by a heartbeat file.
        assert engine.healthcheck(SERVICES[role]) != 0, f"{role} is reported healthy before it is started"
    with engine.started(*ROLES) as running:
        for role in ROLES:
            running[role].wait_until(lambda role=role: engine.seems_ready(role))  # type: ignore[misc]
            running[role].wait_until(lambda role=role: engine.healthcheck(SERVICES[role]) == 0)  # type: ignore[misc]
        assert answers(engine.web_port)
        key = engine.folder / "keys" / "master.key"
        before = key.read_bytes()
        engine.run(SERVICES["scheduler"] | {"command": ["smt-billing", "keys", "rotate", "--yes"]})
        assert key.read_bytes() != before
        assert not key.with_name("master.key.previous").exists()
        for role in ROLES:
            assert engine.healthcheck(SERVICES[role]) == 0
        assert {role: process.end() for role, process in running.items()} == dict.fromkeys(ROLES, 0)


class Engine:
    """Replacement for a container engine: sets environment, secrets, volumes and host names for a service."""

    def __init__(self, folders: dict[str, Path], secrets: Path, servers: dict[str, str]) -> None:
        self.folders, self.secrets, self.servers = folders | {"/run/secrets": secrets}, secrets, servers
        self.folder, self.web_port = folders["/var/lib/smt-billing"], free_port()
        for name in ("database_url", "broker_url"):
            path = secrets / name
            path.write_text(self.on_loopback(path.read_text()))
        for path in secrets.iterdir():
            path.chmod(0o600)

    def on_loopback(self, url: str) -> str:
        """Return the URL of the test server that replaces the service in this URL."""
        host = urlsplit(url).hostname
        assert host in self.servers, f"docker-compose.yml has no service {host}"
        return self.servers[host]

    def environment(self, service: dict[str, Any]) -> dict[str, str]:
        values = example_settings() | service["environment"]
        return surroundings({name: self.mapped(value) for name, value in values.items()}) | self.web_address

    @property
    def web_address(self) -> dict[str, str]:
        """Settings that make the web role listen on a free loopback port instead of all interfaces."""
        free = {"SMT_METRICS_HOST": "127.0.0.1", "SMT_METRICS_PORT": "0"}
        return {"SMT_WEB_HOST": "127.0.0.1", "SMT_WEB_PORT": str(self.web_port), **free}

    def mapped(self, value: str) -> str:
        for inside, outside in self.folders.items():
            value = value.replace(inside, str(outside))
        return self.on_loopback(value) if value.startswith("smtp://") else value

    def run(self, service: dict[str, Any]) -> None:
        subprocess.run(self.words(service["command"]), env=self.environment(service), cwd=self.folder, check=True)

    def healthcheck(self, service: dict[str, Any]) -> int:
        kind, *words = service["healthcheck"]["test"]
        assert kind == "CMD"
        return subprocess.run(
            self.words(words), env=self.environment(service), cwd=self.folder, check=False, capture_output=True
        ).returncode

    def seems_ready(self, role: str) -> bool:
        """Return whether a health check can succeed now. A health check starts a program, so this check is cheaper."""
        return answers(self.web_port) if role == "web" else heartbeat.path_of(self.folder, role).exists()

    def words(self, command: list[str]) -> list[str]:
        assert command[0] == PROGRAM.name
        return [str(PROGRAM), *command[1:]]

    @contextmanager
    def started(self, *names: str) -> Iterator[dict[str, ManagedProcess]]:
        """Run these services and kill them at the end. On failure, print the end of their output."""
        running: dict[str, ManagedProcess] = {}
        try:
            for name in names:
                words, environment = self.words(SERVICES[name]["command"]), self.environment(SERVICES[name])
                (self.folder / name).mkdir()
                running[name] = ManagedProcess(words, self.folder / name, environment=environment)
            yield running
        except BaseException:
            for name, process in running.items():
                print(f"--- {name}\n{process.log.read_text('utf-8', 'replace')[-3000:]}")  # noqa: T201 - pytest shows it
            raise
        finally:
            for process in running.values():
                process.end(kill=True)


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    subprocess.run(["sh", DEPLOY / "secrets.sh", folder], check=True)
    return folder


@pytest.fixture
def engine(data_dir: Path, secrets: Path, postgres_url: str, empty_broker_url: str, mailbox: Relay) -> Engine:
    log = mailbox.folder if isinstance(mailbox, Postfix) else data_dir
    folders = {
        "/var/lib/smt-billing": data_dir,
        "/var/log/relay": log,
        "/var/backups/smt-billing": data_dir.parent / "backups",
    }
    return Engine(folders, secrets, {"postgres": postgres_url, "rabbitmq": empty_broker_url, "relay": mailbox.smtp_url})


def example_settings() -> dict[str, str]:
    """Return the settings in deploy/settings.env.example, parsed like a container engine does."""
    lines = (DEPLOY / "settings.env.example").read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
