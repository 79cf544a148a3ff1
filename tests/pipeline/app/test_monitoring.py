"""A server or a role is away for ten minutes: every place of monitoring says so, and since when."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from pipeline.app import dependency_checks, jobs
from pipeline.app.container import Container
from pipeline.app.doctor.examine import run_checks
from pipeline.app.web_server import monitoring_server
from pipeline.db import migrations
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.operations import heartbeat
from pipeline.outbox.store import NewMail
from pipeline.settings import Settings
from tests.support.command_line import Smt
from tests.support.outbox_fixtures import OPERATOR, meet, owe
from tests.support.pipeline_under_test import PipelineUnderTest, made, make_parts
from tests.support.running_roles import Post, catcher
from tests.support.subprocesses import free_port

STEP, TEN_MINUTES = timedelta(seconds=20), timedelta(minutes=10)
ROLES = ("web", "worker", "mailer", "scheduler")
CREDENTIALS = {"paypal_client_id": "simulator", "paypal_client_secret": "simulator-secret"}
SINCE = "since 2026-03-01 12:00:00 UTC"


def closed(scheme: str, path: str = "") -> str:
    return f"{scheme}://127.0.0.1:{free_port()}{path}"


class System:
    """All roles of one installation, each with a container of its own as if it were a process of its own."""

    def __init__(
        self, pipeline: PipelineUnderTest, settings: Mapping[str, Any], without: Sequence[str] = (), url: str = ""
    ) -> None:
        self.pipeline, self.settings, self.without, self.url = pipeline, settings, without, url
        self.containers = {role: self.container() for role in ROLES}
        self._jobs = jobs.build_scheduler(self.containers["scheduler"], watches_roles=True)
        self._mailer = self.containers["mailer"].mailer()
        self._web = self.containers["web"].web()

    def container(self) -> Container:
        url = self.url or self.pipeline.url
        return make_parts(url, self.pipeline.folder, self.pipeline.clock, operator_email=OPERATOR, **self.settings)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await self._mailer.close()
            for each in self.containers.values():
                each.database.close()

    async def live(self, time: timedelta) -> None:
        """Let the roles work for this long, in steps of the checks."""
        until = self.pipeline.now + time
        await self._work()
        while self.pipeline.now < until:
            self.pipeline.clock.advance(STEP)
            await self._work()

    async def _work(self) -> None:
        for role in (role for role in ROLES if role not in self.without):
            await asyncio.to_thread(dependency_checks.check_once, self.containers[role], role)
            if role == "scheduler":
                await asyncio.to_thread(self._jobs.run_due)
            if role == "mailer":
                with contextlib.suppress(DatabaseUnavailableError):
                    await self._mailer.send_due()
            recorder = self.containers[role].dependencies
            heartbeat.write(self.pipeline.folder, role, self.pipeline.now, recorder)

    async def get(self, path: str, *, public: bool = False) -> httpx.Response:
        app = self._web.app() if public else self._web.monitoring_app()
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web") as client:
            return await client.get(path)

    async def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Return the value of each metric by its name and label values."""
        answer = await self.get("/metrics")
        samples = (sample for family in text_string_to_metric_families(answer.text) for sample in family.samples)
        return {(each.name, tuple(each.labels.values())): each.value for each in samples}

    def doctor(self) -> dict[str, tuple[str, str]]:
        """Return state and text of each check. The tables of the test have no revision, so they get the newest."""
        with self.pipeline.database.transaction() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
            session.execute(text("INSERT INTO alembic_version VALUES (:newest)"), {"newest": migrations.newest()})
        return {each.name: (each.state, each.text) for each in run_checks(self.container)}


@pytest.fixture
def container(sqlite_pipeline: PipelineUnderTest) -> Container:
    return make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock)


@pytest.fixture
def post() -> Any:
    with catcher(free_port()) as found:
        yield found


@pytest.fixture
def health(smt: Smt, sqlite_pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch) -> Smt:
    """`smt-billing health` with the clock of the test."""
    monkeypatch.setattr("pipeline.cli.commands.health.SystemClock", lambda: sqlite_pipeline.clock)
    monkeypatch.setenv("SMT_DATA_DIR", str(sqlite_pipeline.folder))
    return smt


AWAY: Mapping[str, dict[str, Any]] = {
    "relay": {"smtp_url": closed("smtp")},
    "broker": {"broker_url": closed("amqp", "//")},
    "paypal": {"paypal_base_url": closed("http"), **CREDENTIALS},
    "database": {},
    "scheduler": {},
}
WORDS = {"paypal": "PayPal"}
SENDS_NOTHING = ("relay", "database")  # a worker queues the mail while the scheduler is away


@pytest.mark.parametrize("name", AWAY)
async def test_ten_minutes_without_it_are_reported_everywhere(
    name: str, sqlite_pipeline: PipelineUnderTest, post: Post, health: Smt
) -> None:
    meet(sqlite_pipeline)
    without = (name,) if name in ROLES else ()
    url = closed("postgresql", "/billing") if name == "database" else ""
    system = System(sqlite_pipeline, {"smtp_url": post.url, **AWAY[name]}, without, url)
    async with system.running():
        if name == "scheduler":  # it worked, and then it hangs
            heartbeat.write(sqlite_pipeline.folder, name, sqlite_pipeline.now)
        else:
            owe(sqlite_pipeline, 2)
        await system.live(TEN_MINUTES)
        word = f"{WORDS.get(name, name)} has not answered {SINCE}"
        kind = "role" if name in ROLES else "dependency"

        strangers = await system.get("/healthz", public=True)
        assert (strangers.status_code, strangers.json()) == (503, {"status": "behind"})
        details = await system.get("/healthz")
        assert details.status_code == 503
        assert word in details.json()["problems"]
        assert {"kind": kind, "name": name, "since": "2026-03-01T12:00:00Z"} in details.json()["outages"]

        metrics = await system.metrics()
        assert (metrics["smt_healthy", ()], metrics["smt_stalled", ()]) == (0, 1)
        assert metrics[f"smt_{kind}_up", (name,)] == 0
        assert [labels for (metric, labels), value in metrics.items() if metric.endswith("_up") and not value] == [
            (name,)
        ]
        assert metrics["smt_outage_duration_seconds", (kind, name)] == TEN_MINUTES.total_seconds()

        checks = await asyncio.to_thread(system.doctor)
        state, found = checks["running roles" if name in ROLES else "servers and jobs"]
        assert (state, word in found) == ("warn", True)
        other, _ = checks["servers and jobs" if name in ROLES else "running roles"]
        assert other == "ok"

        for role in ("worker", "mailer"):
            answer = health("health", role)
            assert (answer.code, answer.out.splitlines()[0]) == (0, f"{role}: healthy")
            assert word in answer.out

        mails = [message_from_bytes(mail, policy=policy.default) for mail in post.mails()]
        alerts = [str(mail.get_body(("plain",))) for mail in mails if mail["To"] == OPERATOR]
        assert any(word in alert for alert in alerts) is (name not in SENDS_NOTHING)


async def test_postponed_mails_are_reported_while_the_relay_is_away(
    sqlite_pipeline: PipelineUnderTest, health: Smt
) -> None:
    """Two mails were unsent for minutes, and the health check said 0.0 and `well`."""
    meet(sqlite_pipeline)
    owe(sqlite_pipeline, 2)
    system = System(sqlite_pipeline, {"smtp_url": closed("smtp")})
    async with system.running():
        await system.live(TEN_MINUTES)
        details = (await system.get("/healthz")).json()
        # The operator's mail waits too: it cannot leave either.
        assert details["oldest_unsent_mail_seconds"] == 600.0
        assert details["unfinished"]["mails_postponed"] == {"count": 3, "oldest_seconds": 600.0}
        metrics = await system.metrics()
        assert metrics["smt_oldest_mail_seconds", ()] == 600
        assert metrics["smt_unfinished_items", ("mails_postponed",)] == 3
        state, found = (await asyncio.to_thread(system.doctor))["mails"]
        assert (state, "mails postponed to a retry: 3, the oldest for 10 min" in found) == ("warn", True)
        assert "mails postponed to a retry: 3" in health("health", "mailer").out


async def test_mail_without_an_address_is_reported(sqlite_pipeline: PipelineUnderTest, post: Post, health: Smt) -> None:
    """It has no due time at all, so a check for due mails never sees it."""
    sqlite_pipeline.owe(NewMail("receipt", "receipt:1", "I-ADA", {}, has_address=False))
    system = System(sqlite_pipeline, {"smtp_url": post.url})
    async with system.running():
        sqlite_pipeline.clock.advance(timedelta(days=1))
        await system.live(timedelta(minutes=1))
        word = "mails without an address: 1"
        assert any(word in each for each in (await system.get("/healthz")).json()["problems"])
        assert (await system.metrics())["smt_unfinished_items", ("mails_without_address",)] == 1
        assert word in (await asyncio.to_thread(system.doctor))["mails"][1]
        assert word in health("health", "worker").out
        assert word in post.mails()[0].decode()


async def test_server_that_is_back_is_noticed_although_nothing_uses_it(
    sqlite_pipeline: PipelineUnderTest, tmp_path: Path
) -> None:
    """A postponed mail may not use the relay for hours. The checks ask it in between."""
    meet(sqlite_pipeline)
    owe(sqlite_pipeline, 1)
    port = free_port()
    system = System(sqlite_pipeline, {"smtp_url": f"smtp://127.0.0.1:{port}"})
    async with system.running():
        await system.live(TEN_MINUTES)
        assert (await system.metrics())["smt_dependency_up", ("relay",)] == 0
        with catcher(port) as post:
            await system.live(timedelta(minutes=1))
            assert post.mails() == []
            assert (await system.metrics())["smt_dependency_up", ("relay",)] == 1


async def test_database_that_is_away_leaves_figures_absent(sqlite_pipeline: PipelineUnderTest) -> None:
    """A zero would say that nothing waits. Whether anything waits is unknown."""
    system = System(sqlite_pipeline, {"smtp_url": closed("smtp")}, url=closed("postgresql", "/billing"))
    async with system.running():
        answer = await system.get("/metrics")
        names = {family.name for family in text_string_to_metric_families(answer.text)}
        assert answer.status_code == 200
        assert names >= {"smt_dependency_up", "smt_healthy"}
        assert not names & {"smt_oldest_event_seconds", "smt_oldest_mail_seconds"}
        assert 'smt_dependency_up{dependency="database"} 0.0' in answer.text
        details = (await system.get("/healthz")).json()
        assert (details["oldest_unsent_mail_seconds"], details["unfinished"]) == (None, {})


async def test_server_that_nobody_asks_is_not_reported_as_up(sqlite_pipeline: PipelineUnderTest, post: Post) -> None:
    """Without credentials, nobody knows whether PayPal answers. A 1 would say that it does."""
    system = System(sqlite_pipeline, {"smtp_url": post.url})
    async with system.running():
        await system.live(STEP)
        found = {labels[0]: value for (name, labels), value in (await system.metrics()).items() if name.endswith("_up")}
        assert found == dict.fromkeys(("database", "broker", "relay", *ROLES), 1)


async def test_strangers_learn_no_host_port_user_or_error(sqlite_pipeline: PipelineUnderTest) -> None:
    url = f"postgresql://secret_user:secret_word@127.0.0.1:{free_port()}/billing"
    system = System(sqlite_pipeline, {"smtp_url": closed("smtp")}, url=url)
    async with system.running():
        answer = await system.get("/healthz", public=True)
        assert (answer.status_code, answer.text) == (503, '{"status":"behind"}')
        assert (await system.get("/metrics", public=True)).status_code == 404


def test_monitoring_listens_where_the_settings_say_or_not_at_all(container: Container) -> None:
    app = container.web().monitoring_app()
    server = monitoring_server(made(), app)
    assert server is None, "the tests switch it off"
    server = monitoring_server(made(metrics_host="127.0.0.2", metrics_port=1234), app)
    assert server
    assert (server.config.host, server.config.port) == ("127.0.0.2", 1234)
    defaults = Settings.model_fields
    assert (defaults["metrics_host"].default, defaults["metrics_port"].default) == ("127.0.0.1", 9464)
