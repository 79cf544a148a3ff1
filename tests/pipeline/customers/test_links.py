"""Link secrets: random, stored only as hashes, single-use, and valid for a limited time."""

import quopri
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from pipeline.customers import links
from pipeline.db.models import EncryptionKey, Link
from tests.support.pipeline_under_test import River

ADA = "c0123456789"


def issue(river: River, purpose: links.Purpose = "account", minutes: int = 30) -> str:
    with river.database.transaction() as session:
        return links.issue(session, river.keyring(session), ADA, purpose, river.now, details={"a": 1}, minutes=minutes)


def is_valid(river: River, secret: str) -> bool:
    with river.database.reading() as session:
        return links.peek(session, secret, river.now) is not None


def redeem(river: River, secret: str) -> Link | None:
    with river.database.transaction() as session:
        return links.redeem(session, secret, river.now)


def test_secret_has_256_bits_and_is_stored_as_hash(river: River) -> None:
    secrets = {issue(river) for _ in range(20)}
    assert len(secrets) == 20
    assert all(len(secret) == 43 for secret in secrets)  # 32 bytes in base64
    kept = repr([vars(row) for row in river.rows(Link)])
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


def test_link_is_opened_repeatedly_and_redeemed_once(river: River) -> None:
    secret = issue(river)
    assert is_valid(river, secret)
    assert is_valid(river, secret)
    used = redeem(river, secret)
    assert used
    assert (used.customer_id, used.purpose, used.used_at) == (ADA, "account", river.now)
    assert redeem(river, secret) is None
    assert not is_valid(river, secret)


def test_link_expires(river: River) -> None:
    secret = issue(river, minutes=30)
    river.clock.advance(timedelta(minutes=29, seconds=59))
    assert is_valid(river, secret)
    river.clock.advance(timedelta(seconds=1))
    assert not is_valid(river, secret)
    assert redeem(river, secret) is None


@pytest.mark.parametrize("secret", ["", "unknown", "x" * 10_000, "\ud800", "é", "' OR 1=1"])
def test_unknown_secret_is_rejected(river: River, secret: str) -> None:
    issue(river)
    assert not is_valid(river, secret)
    assert redeem(river, secret) is None


def test_concurrent_redemption_succeeds_once(river: River) -> None:
    secret, start, redeemed = issue(river), Barrier(6), list[Link | None]()

    def redeem_at_once() -> None:
        start.wait()
        redeemed.append(redeem(river, secret))

    threads = [Thread(target=redeem_at_once) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(redeemed) == 6
    assert sum(link is not None for link in redeemed) == 1


def test_link_details_are_lost_with_customer_key(river: River) -> None:
    secret = issue(river)
    with river.database.transaction() as session:
        link = links.peek(session, secret, river.now)
        assert link
        assert links.details(link, river.keyring(session)) == {"a": 1}
    [key] = [row for row in river.rows(EncryptionKey) if row.key_id == ADA]
    river.set(key, wrapped_key=None)
    with river.database.transaction() as session:
        assert links.details(link, river.keyring(session)) == {}
        assert links.issue(session, river.keyring(session), ADA, "account", river.now, details={"a": 1})


def test_end_sessions_revokes_all_links_except_cancel_erase(river: River) -> None:
    secrets = [issue(river, purpose) for purpose in (*links.REVOKED, "cancel_erase")]
    with river.database.transaction() as session:
        other = links.issue(session, river.keyring(session), "c9", "session", river.now)
        links.end_sessions(session, ADA, river.now)
    assert [is_valid(river, each) for each in (*secrets, other)] == [*[False] * len(links.REVOKED), True, True]
