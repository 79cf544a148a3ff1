"""Link secrets: random, stored only as hashes, single-use, and valid for a limited time."""

import quopri
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from pipeline.customers import links
from pipeline.db.models import EncryptionKey, Link
from tests.support.pipeline_under_test import PipelineUnderTest

ADA = "c0123456789"


def issue(pipeline: PipelineUnderTest, purpose: links.Purpose = "account", minutes: int = 30) -> str:
    with pipeline.database.transaction() as session:
        return links.issue(
            session, pipeline.keyring(session), ADA, purpose, pipeline.now, details={"a": 1}, minutes=minutes
        )


def is_valid(pipeline: PipelineUnderTest, secret: str) -> bool:
    with pipeline.database.reading() as session:
        return links.peek(session, secret, pipeline.now) is not None


def redeem(pipeline: PipelineUnderTest, secret: str) -> Link | None:
    with pipeline.database.transaction() as session:
        return links.redeem(session, secret, pipeline.now)


def test_secret_has_256_bits_and_is_stored_as_hash(pipeline: PipelineUnderTest) -> None:
    secrets = {issue(pipeline) for _ in range(20)}
    assert len(secrets) == 20
    assert all(len(secret) == 43 for secret in secrets)  # 32 bytes in base64
    kept = repr([vars(row) for row in pipeline.rows(Link)])
    assert not any(secret in kept for secret in secrets)


@pytest.mark.parametrize("purpose", links.PATHS)
def test_secret_is_hidden_in_displayed_mail(purpose: links.Purpose) -> None:
    secret = "XITN7XhswN4B4LxqAvjSY5K7Fe1xtnXyphW16E-ZHy8"
    page = links.url("https://billing.example.com", purpose, secret)
    hidden = links.url("https://billing.example.com", purpose, "[hidden]")
    assert links.without_secrets(f'"{page}" <{page}>'.encode()) == f'"{hidden}" <{hidden}>'.encode()
    for before in range(80):  # quoted-printable breaks the line at different places in path and secret
        broken = quopri.encodestring(b" " * before + page.encode())
        assert hidden in quopri.decodestring(links.without_secrets(broken)).decode()
    assert links.without_secrets(b"/account/open/ and /account/keep/soon") == b"/account/open/ and /account/keep/soon"


def test_link_is_opened_repeatedly_and_redeemed_once(pipeline: PipelineUnderTest) -> None:
    secret = issue(pipeline)
    assert is_valid(pipeline, secret)
    assert is_valid(pipeline, secret)
    used = redeem(pipeline, secret)
    assert used
    assert (used.customer_id, used.purpose, used.used_at) == (ADA, "account", pipeline.now)
    assert redeem(pipeline, secret) is None
    assert not is_valid(pipeline, secret)


def test_link_expires(pipeline: PipelineUnderTest) -> None:
    secret = issue(pipeline, minutes=30)
    pipeline.clock.advance(timedelta(minutes=29, seconds=59))
    assert is_valid(pipeline, secret)
    pipeline.clock.advance(timedelta(seconds=1))
    assert not is_valid(pipeline, secret)
    assert redeem(pipeline, secret) is None


@pytest.mark.parametrize("secret", ["", "unknown", "x" * 10_000, "\ud800", "é", "' OR 1=1"])
def test_unknown_secret_is_rejected(pipeline: PipelineUnderTest, secret: str) -> None:
    issue(pipeline)
    assert not is_valid(pipeline, secret)
    assert redeem(pipeline, secret) is None


def test_concurrent_redemption_succeeds_once(pipeline: PipelineUnderTest) -> None:
    secret, start, redeemed = issue(pipeline), Barrier(6), list[Link | None]()

    def redeem_at_once() -> None:
        start.wait()
        redeemed.append(redeem(pipeline, secret))

    threads = [Thread(target=redeem_at_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(redeemed) == 6
    assert sum(link is not None for link in redeemed) == 1


def test_link_details_are_lost_with_customer_key(pipeline: PipelineUnderTest) -> None:
    secret = issue(pipeline)
    with pipeline.database.transaction() as session:
        link = links.peek(session, secret, pipeline.now)
        assert link
        assert links.details(link, pipeline.keyring(session)) == {"a": 1}
    [key] = [row for row in pipeline.rows(EncryptionKey) if row.key_id == ADA]
    pipeline.set(key, wrapped_key=None)
    with pipeline.database.transaction() as session:
        assert links.details(link, pipeline.keyring(session)) == {}
        assert links.issue(session, pipeline.keyring(session), ADA, "account", pipeline.now, details={"a": 1})


def test_end_sessions_revokes_all_links_except_cancel_erase(pipeline: PipelineUnderTest) -> None:
    secrets = [issue(pipeline, purpose) for purpose in (*links.REVOKED, "cancel_erase")]
    with pipeline.database.transaction() as session:
        other = links.issue(session, pipeline.keyring(session), "c9", "session", pipeline.now)
        links.end_sessions(session, ADA, pipeline.now)
    assert [is_valid(pipeline, each) for each in (*secrets, other)] == [*[False] * len(links.REVOKED), True, True]
