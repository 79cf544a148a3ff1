"""A captured transmission cannot be replayed after its window, and a forged one is reported to the operator."""

import base64
import zlib
from collections.abc import Iterator
from datetime import timedelta

import httpx
import orjson
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from pipeline.app.container import Container
from pipeline.db.engine import Database, DatabaseUnavailableError
from pipeline.db.models import Event, Mail
from pipeline.operations import test_event
from pipeline.outbox import store as outbox
from pipeline.settings import SIMULATOR, SettingsError
from pipeline.webhooks.replay_alert import ReplayAlert
from tests.support.pipeline_under_test import (
    WEBHOOK_ID,
    PipelineUnderTest,
    happened,
    made,
    make_parts,
    open_door,
    sign,
    signer,
)

BODY = orjson.dumps(happened())


@pytest.fixture
def container(sqlite_pipeline: PipelineUnderTest) -> Container:
    return make_parts(sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock, paypal_max_age_days=10)


@pytest.fixture
def base(container: Container) -> Iterator[str]:
    with open_door(container) as base:
        yield base


def post(base: str, headers: dict[str, str], body: bytes = BODY) -> httpx.Response:
    return httpx.post(f"{base}/webhooks/paypal", content=body, headers=headers, timeout=30, trust_env=False)


def signed_at(time: str, body: bytes = BODY, webhook_id: str = WEBHOOK_ID, id: str = "T-1") -> dict[str, str]:
    """Return headers with a genuine signature of this literal time."""
    message = f"{id}|{time}|{webhook_id}|{zlib.crc32(body)}".encode()
    signature = base64.b64encode(signer()._key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()
    return sign(body) | {
        "PAYPAL-TRANSMISSION-ID": id, "PAYPAL-TRANSMISSION-TIME": time, "PAYPAL-TRANSMISSION-SIG": signature
    }  # fmt: skip


@pytest.mark.parametrize(
    ("offset", "status"),
    [
        (timedelta(days=-10), 200),
        (timedelta(days=-10, seconds=-1), 403),
        (timedelta(days=-4000), 403),
        (timedelta(hours=1), 200),
        (timedelta(hours=1, seconds=1), 403),
        (timedelta(days=20_000), 403),
    ],
)
def test_transmission_outside_the_window_is_refused(
    sqlite_pipeline: PipelineUnderTest, base: str, offset: timedelta, status: int
) -> None:
    answer = post(base, sign(BODY, at=sqlite_pipeline.now + offset))
    assert answer.status_code == status, answer.text
    assert sqlite_pipeline.count(Event) == (status == 200)
    if status == 403:
        assert "sent at" in answer.json()["detail"]


@pytest.mark.parametrize(
    "time", ["garbage", "2026-13-01T12:00:00Z", "0000-00-00T00:00:00Z", "9999-99-99", "1772366400"]
)
def test_unreadable_transmission_time_is_refused(sqlite_pipeline: PipelineUnderTest, base: str, time: str) -> None:
    answer = post(base, signed_at(time))
    assert (answer.status_code, sqlite_pipeline.count(Event)) == (403, 0)
    assert "is not a time" in answer.json()["detail"]


def test_time_of_paypals_simulator_is_not_checked(sqlite_pipeline: PipelineUnderTest) -> None:
    container = make_parts(
        sqlite_pipeline.url, sqlite_pipeline.folder, sqlite_pipeline.clock,
        paypal_webhook_id=(), paypal_accept_simulator=True,
    )  # fmt: skip
    with open_door(container) as base:
        assert post(base, signed_at("2016-19-01T12:00:00Z", webhook_id=SIMULATOR)).status_code == 200


def test_refused_event_of_the_simulator_shows_that_deliveries_arrive(
    sqlite_pipeline: PipelineUnderTest, base: str, container: Container
) -> None:
    """`paypal setup` lets PayPal send one, and reads this record. The event itself has no effect."""
    arrived = container.dependencies.records.get(test_event.NAME)
    assert arrived is None
    assert post(base, signed_at("2026-03-01T12:00:00Z", webhook_id="1AB23456CD789012E")).status_code == 403
    assert test_event.NAME not in container.dependencies.records  # of another app
    assert post(base, signed_at("2016-19-01T12:00:00Z", webhook_id=SIMULATOR)).status_code == 403
    assert container.dependencies.records[test_event.NAME].answered_at == sqlite_pipeline.clock.now()
    assert sqlite_pipeline.states() == {}


def test_window_covers_paypals_retries() -> None:
    assert made().paypal_max_age_days == 30
    with pytest.raises(SettingsError, match="SMT_PAYPAL_MAX_AGE_DAYS"):
        made(paypal_max_age_days=3)


def forged_body(body: bytes) -> bytes:
    """Return another body with the same CRC-32: four bytes in a string that make up for the difference."""
    head = orjson.dumps(happened(resource={"id": "forged"}))[:-1] + b',"x":"'
    return head + _patch(zlib.crc32(head), zlib.crc32(body), b'"}') + b'"}'


def _patch(state: int, wanted: int, tail: bytes) -> bytes:
    """Return bytes between a text with this CRC and `tail`, so that the CRC of all becomes `wanted`. Printable only."""
    # CRC is affine: solve for 64 bits, each of which chooses one of two printable letters.
    positions = 64
    zero = zlib.crc32(b"@" * positions + tail, state)
    rows = []
    for place in range(positions):
        text = bytearray(b"@" * positions)
        text[place] ^= 1
        rows.append((zlib.crc32(bytes(text) + tail, state) ^ zero, 1 << place))
    need, chosen = wanted ^ zero, 0
    for bit in range(32):
        pivot = next(((value, mask) for value, mask in rows if value >> bit & 1), None)
        if pivot is None:
            continue
        rows = [
            (value ^ pivot[0], mask ^ pivot[1]) if value >> bit & 1 else (value, mask)
            for value, mask in rows
            if (value, mask) != pivot
        ]
        if need >> bit & 1:
            need, chosen = need ^ pivot[0], chosen ^ pivot[1]
    assert need == 0
    return bytes(0x40 | (chosen >> place & 1) for place in range(positions))


def alerts(pipeline: PipelineUnderTest) -> list[Mail]:
    return [row for row in pipeline.rows(Mail) if row.kind == "webhook_forged"]


def test_forged_body_mails_the_operator_once_an_hour(sqlite_pipeline: PipelineUnderTest, base: str) -> None:
    headers = sign(BODY, at=sqlite_pipeline.now)
    forged = forged_body(BODY)
    assert (zlib.crc32(forged), forged != BODY) == (zlib.crc32(BODY), True)
    assert post(base, headers).status_code == 200
    assert [post(base, headers, forged).status_code for _ in range(3)] == [403] * 3
    assert post(base, headers).status_code == 200  # a repetition is no forgery
    assert len(alerts(sqlite_pipeline)) == 1
    sqlite_pipeline.clock.advance(timedelta(hours=1))
    assert post(base, headers, forged).status_code == 403
    assert len(alerts(sqlite_pipeline)) == 2
    assert {row.key_id for row in alerts(sqlite_pipeline)} == {outbox.OPERATOR}
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key(outbox.OPERATOR)
        facts = key.decrypt_json("mail.facts", alerts(sqlite_pipeline)[0].facts)
    assert facts == {"transmission": headers["PAYPAL-TRANSMISSION-ID"], "event": "WH-1"}


def test_forgery_is_refused_when_the_mail_cannot_be_queued(
    sqlite_pipeline: PipelineUnderTest, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = sign(BODY, at=sqlite_pipeline.now)
    post(base, headers)

    def fail(*_: object) -> None:
        raise DatabaseUnavailableError("down")

    monkeypatch.setattr(outbox, "enqueue", fail)
    assert post(base, headers, forged_body(BODY)).status_code == 403


@pytest.mark.parametrize("id", ["WH-1; rm -rf ~", "<b>", "x" * 200, "WH-1\u202e", ""])
def test_alert_does_not_repeat_an_unusual_event_id(sqlite_pipeline: PipelineUnderTest, id: str) -> None:
    database: Database = sqlite_pipeline.database
    ReplayAlert(database, sqlite_pipeline.master, sqlite_pipeline.clock).send("T-1", id)
    with database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key(outbox.OPERATOR)
        assert key.decrypt_json("mail.facts", alerts(sqlite_pipeline)[0].facts) == {"transmission": "T-1", "event": ""}
