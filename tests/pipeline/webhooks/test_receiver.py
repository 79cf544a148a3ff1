"""Webhooks are stored in groups, answered only after the commit, and published afterwards."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from pipeline.app.container import Container
from pipeline.broker import Broker
from pipeline.clock import SystemClock
from pipeline.db.models import EncryptionKey, Event
from pipeline.inbox.store import PUBLISH_GRACE, NewEvent, StoreResult
from pipeline.webhooks.group_commit import GROUP
from pipeline.worker.recovery import InboxRecovery
from tests.support import run_role
from tests.support.broker_fixtures import LONG, Wire, put, take_until
from tests.support.pipeline_under_test import (
    WEBHOOK_ID,
    PipelineUnderTest,
    delivery,
    happened,
    make_parts,
    open_door,
    sign,
    signer,
)
from tests.support.subprocesses import answers, free_port, until

PATH = "/webhooks/paypal"
BODY = orjson.dumps(happened())


@pytest.fixture
def container(pipeline: PipelineUnderTest) -> Iterator[Container]:
    parts = make_parts(pipeline.url, pipeline.folder, pipeline.clock)
    yield parts
    parts.database.close()


def post(base: str, body: bytes = BODY, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(
        base + PATH, content=body, headers=headers or sign(body), timeout=60, verify=False, trust_env=False
    )


async def post_all(base: str, bodies: list[bytes]) -> list[int]:
    limits = httpx.Limits(max_connections=len(bodies))
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=60, verify=False, trust_env=False) as client:
        sent = [client.post(PATH, content=body, headers=sign(body)) for body in bodies]
        return [answer.status_code for answer in await asyncio.gather(*sent)]


@contextmanager
def committer_blocked(container: Container) -> Iterator[Callable[[], int]]:
    """Block the group committer. Yield a function that returns how many deliveries wait."""
    unblock, store, group_sizes = threading.Event(), container.group_committer._store, list[int]()

    def wait(deliveries: list[NewEvent]) -> list[StoreResult]:
        group_sizes.append(len(deliveries))
        assert unblock.wait(LONG)
        return store(deliveries)

    container.group_committer._store = wait  # type: ignore[method-assign]
    try:
        yield lambda: container.group_committer._waiting.qsize() + sum(group_sizes)
    finally:
        unblock.set()


# Group commit


async def test_concurrent_deliveries_share_a_transaction(container: Container, pipeline: PipelineUnderTest) -> None:
    bodies = [orjson.dumps(happened(f"WH-{number:02}")) for number in range(50)]
    commits: list[object] = []
    sqlalchemy_event.listen(container.database.engine, "commit", commits.append)
    with open_door(container) as base:
        with committer_blocked(container) as waiting:
            posting = asyncio.create_task(post_all(base, bodies))
            while waiting() < 50 and not posting.done():
                await asyncio.sleep(0.01)
            assert not posting.done(), "no webhook is answered before it is stored"
            assert pipeline.states() == {}
        assert await posting == [200] * 50
    assert len(pipeline.states()) == 50
    assert 1 <= len(commits) <= 2  # the deliveries that came before the block, and all others


async def test_group_has_a_maximum_size(container: Container) -> None:
    sizes: list[int] = []
    store = container.group_committer._store

    def store_and_count(deliveries: list[NewEvent]) -> list[StoreResult]:
        sizes.append(len(deliveries))
        return store(deliveries)

    container.group_committer._store = store_and_count  # type: ignore[method-assign]
    many = [delivery(happened(f"WH-{number}")) for number in range(GROUP + 10)]
    waiting = [asyncio.create_task(container.group_committer.store(each)) for each in many]
    await asyncio.sleep(0)
    container.group_committer.start()
    await asyncio.gather(*waiting)
    container.group_committer.stop()
    assert sizes == [GROUP, 10]


async def test_each_delivery_of_a_group_has_its_own_outcome(container: Container, pipeline: PipelineUnderTest) -> None:
    deliveries = [
        delivery(happened("WH-1"), "T-1"),
        delivery(happened("WH-1"), "T-2"),
        delivery(happened("WH-1", resource={"a": 1}), "T-3"),
        delivery(happened("WH-2"), "T-1"),
    ]
    published: list[str] = []
    container.group_committer._on_stored = published.extend
    waiting = [asyncio.create_task(container.group_committer.store(each)) for each in deliveries]
    await asyncio.sleep(0)
    container.group_committer.start()
    found = await asyncio.gather(*waiting)
    container.group_committer.stop()
    assert [each.outcome for each in found] == ["stored", "duplicate", "stored", "forged"]
    assert published == ["WH-1"]


async def test_delivery_that_cannot_be_stored_does_not_affect_its_group(
    container: Container, pipeline: PipelineUnderTest
) -> None:
    ada_event = happened("WH-1", "BILLING.SUBSCRIPTION.UPDATED", resource={"id": "I-ADA", "status": "ACTIVE"})
    pipeline.store(delivery(ada_event, "T-0"))
    pipeline.set(
        next(row for row in pipeline.rows(EncryptionKey) if row.key_id == "I-ADA"),
        wrapped_key=b"a broken row of a good table",
    )
    bodies = [orjson.dumps(ada_event | {"id": f"WH-{number}"}) for number in (2, 3)]
    bodies += [orjson.dumps(happened(f"WH-{number}")) for number in range(4, 10)]
    with open_door(container) as base:
        with committer_blocked(container) as waiting:
            posting = asyncio.create_task(post_all(base, bodies))
            while waiting() < 8 and not posting.done():
                await asyncio.sleep(0.01)
        assert await posting == [503] * 2 + [200] * 6
    assert sorted(pipeline.states()) == ["WH-1", *(f"WH-{number}" for number in range(4, 10))]


# 200 only after the commit


def test_failed_commit_is_answered_503(
    container: Container, pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk full"))

    with open_door(container) as base:
        monkeypatch.setattr(Session, "commit", fail)
        answer = post(base)
        monkeypatch.undo()
        assert answer.status_code == 503
        assert pipeline.states() == {}
        assert post(base).status_code == 200
    assert pipeline.states() == {"WH-1": "received"}


async def test_event_is_stored_if_the_client_disconnects(container: Container, pipeline: PipelineUnderTest) -> None:
    with open_door(container) as base:
        with committer_blocked(container) as waiting:
            posting = asyncio.create_task(post_all(base, [BODY]))
            while not waiting() and not posting.done():
                await asyncio.sleep(0.01)
            assert posting.cancel(), "the webhook is not answered before it is stored"
            await asyncio.wait([posting])
        until(lambda: pipeline.states() == {"WH-1": "received"}, 20, "the event is stored")
        assert post(base).json()["outcome"] == "duplicate"


def test_waiting_deliveries_are_stored_at_shutdown(container: Container, pipeline: PipelineUnderTest) -> None:
    async def store() -> list[object]:
        waiting = [
            asyncio.create_task(container.group_committer.store(delivery(happened(f"WH-{n}")))) for n in range(20)
        ]
        await asyncio.sleep(0)
        container.group_committer.start()
        await asyncio.to_thread(container.group_committer.stop)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(store())) == 20
    assert len(pipeline.states()) == 20


def test_committer_survives_a_closed_event_loop(container: Container, pipeline: PipelineUnderTest) -> None:
    """At shutdown, the loop of one request may be closed while others still wait."""

    async def store_and_leave() -> None:
        asyncio.create_task(container.group_committer.store(delivery(happened("WH-1"))))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(store_and_leave())
    container.group_committer.start()
    until(lambda: "WH-1" in pipeline.states(), 20, "the event is stored")
    assert asyncio.run(container.group_committer.store(delivery(happened("WH-2")))).outcome == "stored"
    container.group_committer.stop()


def test_event_answered_200_survives_a_kill(pipeline: PipelineUnderTest, tmp_path: Path) -> None:
    now = SystemClock().now()
    by, port = signer(now.year), free_port()
    (tmp_path / "leaf.pem").write_bytes(by.leaf_pem)
    web = run_role.start(
        "web", tmp_path, data_dir=pipeline.folder, database_url=pipeline.url, web_port=port,
        paypal_webhook_id=WEBHOOK_ID, test_certificate=f"{by.cert_url} {tmp_path / 'leaf.pem'}",
    )  # fmt: skip
    web.wait_until(lambda: answers(port))
    for number in range(5):
        body = orjson.dumps(happened(f"WH-{number}"))
        answer = post(f"http://127.0.0.1:{port}", body, by.sign(body, WEBHOOK_ID, now))
        assert answer.status_code == 200
    web.end(kill=True)
    assert sorted(pipeline.states()) == [f"WH-{number}" for number in range(5)]


# Publishing


def test_ids_are_published_after_they_are_stored(container: Container, pipeline: PipelineUnderTest) -> None:
    with open_door(container) as base, container.broker.consumer("events") as consumer:
        for number in range(3):
            post(base, orjson.dumps(happened(f"WH-{number}")))
        post(base, b"no JSON")
        post(base, orjson.dumps(happened("WH-0", resource={"another": "body"})))
        assert take_until(consumer, 3) == ["WH-0", "WH-1", "WH-2"]
        assert consumer.receive(10, 0.2) is None, "parked events are not published"


def test_webhook_is_answered_200_and_recovered_during_a_broker_outage(
    sqlite_pipeline: PipelineUnderTest, broker_url: str, queue_prefix: str
) -> None:
    with Wire(broker_url) as wire:
        broker = Broker(wire.carry(broker_url), queue_prefix)
        parts = make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock)
        parts.broker = broker
        put(broker, ["WH-0"])
    with open_door(parts) as base, capture_logs() as logs:
        assert post(base).status_code == 200
        until(lambda: any(line["event"] == "broker_down" for line in logs), 30, "the outage is logged")
        assert post(base, orjson.dumps(happened("WH-2"))).status_code == 200
    assert sqlite_pipeline.states() == {"WH-1": "received", "WH-2": "received"}
    recovery = InboxRecovery(sqlite_pipeline.worker({}), sqlite_pipeline.database, sqlite_pipeline.clock, lambda: 0.0)
    assert recovery.once() == 0, "its message may still arrive"
    sqlite_pipeline.clock.advance(PUBLISH_GRACE)
    assert recovery.once() == 2
    assert sqlite_pipeline.states() == {"WH-1": "ignored", "WH-2": "ignored"}


def test_replayed_transmission_is_logged_as_error(
    container: Container, pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.paypal.signature.zlib.crc32", lambda body: 7)  # every body has the same checksum
    headers = sign(BODY)
    with open_door(container) as base, capture_logs() as logs:
        assert post(base, BODY, headers).status_code == 200
        assert post(base, orjson.dumps(happened("WH-2")), headers).status_code == 403
    [line] = [line for line in logs if line["event"] == "transmission_replayed"]
    assert line["log_level"] == "error"
    assert line["transmission_id"] == headers["PAYPAL-TRANSMISSION-ID"]
    assert pipeline.count(Event) == 1
