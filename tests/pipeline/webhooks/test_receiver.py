"""Many deliveries in one transaction, an answer only when it is durable, and ids that reach the broker in the end."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import orjson
import pytest
from sqlalchemy import event as listening
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
from tests.support.pipeline_under_test import WEBHOOK_ID, River, delivery, happened, make_parts, open_door, sign, signer
from tests.support.subprocesses import answers, free_port, until

PATH = "/webhooks/paypal"
BODY = orjson.dumps(happened())


@pytest.fixture
def container(river: River) -> Iterator[Container]:
    parts = make_parts(river.url, river.folder, river.clock)
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
def held(container: Container) -> Iterator[Callable[[], int]]:
    """Nothing is stored meanwhile. Gives a function: how many wait to be."""
    free, store, taken = threading.Event(), container.group_committer._store, list[int]()

    def wait(deliveries: list[NewEvent]) -> list[StoreResult]:
        taken.append(len(deliveries))
        assert free.wait(LONG)
        return store(deliveries)

    container.group_committer._store = wait  # type: ignore[method-assign]
    try:
        yield lambda: container.group_committer._waiting.qsize() + sum(taken)
    finally:
        free.set()


# Group commit


async def test_deliveries_that_come_at_once_share_a_transaction(container: Container, river: River) -> None:
    bodies = [orjson.dumps(happened(f"WH-{number:02}")) for number in range(50)]
    commits: list[object] = []
    listening.listen(container.database.engine, "commit", commits.append)
    with open_door(container) as base:
        with held(container) as waiting:
            posting = asyncio.create_task(post_all(base, bodies))
            while waiting() < 50 and not posting.done():
                await asyncio.sleep(0.01)
            assert not posting.done(), "nothing is answered before it is stored"
            assert river.states() == {}
        assert await posting == [200] * 50
    assert len(river.states()) == 50
    assert 1 <= len(commits) <= 2  # those that were there before it was held up, and all the others


async def test_a_group_has_an_end(container: Container) -> None:
    sizes: list[int] = []
    store = container.group_committer._store

    def measured(deliveries: list[NewEvent]) -> list[StoreResult]:
        sizes.append(len(deliveries))
        return store(deliveries)

    container.group_committer._store = measured  # type: ignore[method-assign]
    many = [delivery(happened(f"WH-{number}")) for number in range(GROUP + 10)]
    waiting = [asyncio.create_task(container.group_committer.store(each)) for each in many]
    await asyncio.sleep(0)
    container.group_committer.start()
    await asyncio.gather(*waiting)
    container.group_committer.stop()
    assert sizes == [GROUP, 10]


async def test_duplicates_and_conflicts_in_one_group_are_told_apart(container: Container, river: River) -> None:
    told = [
        delivery(happened("WH-1"), "T-1"),
        delivery(happened("WH-1"), "T-2"),
        delivery(happened("WH-1", resource={"a": 1}), "T-3"),
        delivery(happened("WH-2"), "T-1"),
    ]
    announced: list[str] = []
    container.group_committer._on_stored = announced.extend
    waiting = [asyncio.create_task(container.group_committer.store(each)) for each in told]
    await asyncio.sleep(0)
    container.group_committer.start()
    found = await asyncio.gather(*waiting)
    container.group_committer.stop()
    assert [each.outcome for each in found] == ["stored", "duplicate", "stored", "forged"]
    assert announced == ["WH-1"]


async def test_one_that_cannot_be_stored_does_not_take_its_neighbours_with_it(
    container: Container, river: River
) -> None:
    about_ada = happened("WH-1", "BILLING.SUBSCRIPTION.UPDATED", resource={"id": "I-ADA", "status": "ACTIVE"})
    river.store(delivery(about_ada, "T-0"))
    river.set(
        next(row for row in river.rows(EncryptionKey) if row.key_id == "I-ADA"),
        wrapped_key=b"a broken row of a good table",
    )
    bodies = [orjson.dumps(about_ada | {"id": f"WH-{number}"}) for number in (2, 3)]
    bodies += [orjson.dumps(happened(f"WH-{number}")) for number in range(4, 10)]
    with open_door(container) as base:
        with held(container) as waiting:
            posting = asyncio.create_task(post_all(base, bodies))
            while waiting() < 8 and not posting.done():
                await asyncio.sleep(0.01)
        assert await posting == [503] * 2 + [200] * 6
    assert sorted(river.states()) == ["WH-1", *(f"WH-{number}" for number in range(4, 10))]


# 200 only after the commit


def test_a_commit_that_fails_is_503_and_nothing_is_stored(
    container: Container, river: River, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("disk full"))

    with open_door(container) as base:
        monkeypatch.setattr(Session, "commit", fail)
        answer = post(base)
        monkeypatch.undo()
        assert answer.status_code == 503
        assert river.states() == {}
        assert post(base).status_code == 200
    assert river.states() == {"WH-1": "received"}


async def test_who_hangs_up_has_their_event_stored_all_the_same(container: Container, river: River) -> None:
    with open_door(container) as base:
        with held(container) as waiting:
            posting = asyncio.create_task(post_all(base, [BODY]))
            while not waiting() and not posting.done():
                await asyncio.sleep(0.01)
            assert posting.cancel(), "nobody is answered before it is stored"
            await asyncio.wait([posting])
        until(lambda: river.states() == {"WH-1": "received"}, 20, "it is stored")
        assert post(base).json()["outcome"] == "duplicate"


def test_what_waits_at_the_end_is_stored(container: Container, river: River) -> None:
    async def store() -> list[object]:
        waiting = [
            asyncio.create_task(container.group_committer.store(delivery(happened(f"WH-{n}")))) for n in range(20)
        ]
        await asyncio.sleep(0)
        container.group_committer.start()
        await asyncio.to_thread(container.group_committer.stop)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(store())) == 20
    assert len(river.states()) == 20


def test_a_committer_outlives_a_loop_that_is_gone(container: Container, river: River) -> None:
    """At the end of a process: whoever asked does not wait any more, the others may."""

    async def ask_and_leave() -> None:
        asyncio.create_task(container.group_committer.store(delivery(happened("WH-1"))))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(ask_and_leave())
    container.group_committer.start()
    until(lambda: "WH-1" in river.states(), 20, "it is stored")
    assert asyncio.run(container.group_committer.store(delivery(happened("WH-2")))).outcome == "stored"
    container.group_committer.stop()


def test_what_was_answered_200_is_there_after_a_kill(river: River, tmp_path: Path) -> None:
    now = SystemClock().now()
    by, port = signer(now.year), free_port()
    (tmp_path / "leaf.pem").write_bytes(by.leaf_pem)
    web = run_role.start(
        "web", tmp_path, data_dir=river.folder, database_url=river.url, web_port=port,
        paypal_webhook_id=WEBHOOK_ID, test_certificate=f"{by.cert_url} {tmp_path / 'leaf.pem'}",
    )  # fmt: skip
    web.wait_until(lambda: answers(port))
    for number in range(5):
        body = orjson.dumps(happened(f"WH-{number}"))
        answer = post(f"http://127.0.0.1:{port}", body, by.sign(body, WEBHOOK_ID, now))
        assert answer.status_code == 200
    web.end(kill=True)
    assert sorted(river.states()) == [f"WH-{number}" for number in range(5)]


# Publishing


def test_ids_are_published_once_they_are_stored(container: Container, river: River) -> None:
    with open_door(container) as base, container.broker.consumer("events") as inlet:
        for number in range(3):
            post(base, orjson.dumps(happened(f"WH-{number}")))
        post(base, b"no JSON")
        post(base, orjson.dumps(happened("WH-0", resource={"another": "body"})))
        assert take_until(inlet, 3) == ["WH-0", "WH-1", "WH-2"]
        assert inlet.receive(10, 0.2) is None, "what is parked is not published"


def test_a_broker_that_is_away_costs_nobody_their_200_and_a_sweep_handles_it(
    brook: River, broker_url: str, queue_prefix: str
) -> None:
    with Wire(broker_url) as wire:
        there = Broker(wire.carry(broker_url), queue_prefix)
        parts = make_parts(brook.url, brook.folder, brook.clock)
        parts.broker = there
        put(there, ["WH-0"])
    with open_door(parts) as base, capture_logs() as logs:
        assert post(base).status_code == 200
        until(lambda: any(line["event"] == "broker_down" for line in logs), 30, "it is noticed")
        assert post(base, orjson.dumps(happened("WH-2"))).status_code == 200
    assert brook.states() == {"WH-1": "received", "WH-2": "received"}
    sweep = InboxRecovery(brook.worker({}), brook.database, brook.clock, lambda: 0.0)
    assert sweep.once() == 0, "not yet: it may be on its way"
    brook.clock.advance(PUBLISH_GRACE)
    assert sweep.once() == 2
    assert brook.states() == {"WH-1": "ignored", "WH-2": "ignored"}


def test_an_attack_is_logged_as_one(container: Container, river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.paypal.signature.zlib.crc32", lambda body: 7)  # every body has the same checksum
    headers = sign(BODY)
    with open_door(container) as base, capture_logs() as logs:
        assert post(base, BODY, headers).status_code == 200
        assert post(base, orjson.dumps(happened("WH-2")), headers).status_code == 403
    [line] = [line for line in logs if line["event"] == "forged"]
    assert line["log_level"] == "error"
    assert line["transmission_id"] == headers["PAYPAL-TRANSMISSION-ID"]
    assert river.count(Event) == 1
