"""Secrets of links: guessed by nobody, kept by nobody, used once, and not for long."""

import quopri
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from pipeline.customers import links
from pipeline.db.models import EncryptionKey, Link
from tests.support.pipeline_under_test import River

ADA = "c0123456789"


def make(river: River, purpose: links.Purpose = "account", minutes: int = 30) -> str:
    with river.database.transaction() as session:
        return links.issue(session, river.keyring(session), ADA, purpose, river.now, details={"a": 1}, minutes=minutes)


def look(river: River, secret: str) -> bool:
    with river.database.reading() as session:
        return links.peek(session, secret, river.now) is not None


def use(river: River, secret: str) -> Link | None:
    with river.database.transaction() as session:
        return links.redeem(session, secret, river.now)


def test_a_secret_has_256_bits_and_only_its_hash_is_kept(river: River) -> None:
    secrets = {make(river) for _ in range(20)}
    assert len(secrets) == 20
    assert all(len(secret) == 43 for secret in secrets)  # 32 bytes in base64
    kept = repr([vars(row) for row in river.rows(Link)])
    assert not any(secret in kept for secret in secrets)


@pytest.mark.parametrize("purpose", links.PATHS)
def test_who_reads_a_mail_beside_its_reader_is_not_told_the_secret(purpose: links.Purpose) -> None:
    secret = "XITN7XhswN4B4LxqAvjSY5K7Fe1xtnXyphW16E-ZHy8"
    page = links.url("https://billing.example.com", purpose, secret)
    hidden = links.url("https://billing.example.com", purpose, "[hidden]")
    assert links.without_secrets(f'"{page}" <{page}>'.encode()) == f'"{hidden}" <{hidden}>'.encode()
    for before in range(80):  # quoted-printable breaks the line somewhere in the address, and somewhere in the secret
        broken = quopri.encodestring(b" " * before + page.encode())
        assert hidden in quopri.decodestring(links.without_secrets(broken)).decode()
    assert links.without_secrets(b"/account/open/ and /account/keep/soon") == b"/account/open/ and /account/keep/soon"


def test_a_link_may_be_looked_at_often_and_used_once(river: River) -> None:
    secret = make(river)
    assert look(river, secret)
    assert look(river, secret)
    used = use(river, secret)
    assert used
    assert (used.customer_id, used.purpose, used.used_at) == (ADA, "account", river.now)
    assert use(river, secret) is None
    assert not look(river, secret)


def test_a_link_ends_with_its_time(river: River) -> None:
    secret = make(river, minutes=30)
    river.clock.advance(timedelta(minutes=29, seconds=59))
    assert look(river, secret)
    river.clock.advance(timedelta(seconds=1))
    assert not look(river, secret)
    assert use(river, secret) is None


@pytest.mark.parametrize("secret", ["", "nobody", "x" * 10_000, "\ud800", "é", "' OR 1=1"])
def test_what_is_no_secret_of_ours_opens_nothing(river: River, secret: str) -> None:
    make(river)
    assert not look(river, secret)
    assert use(river, secret) is None


def test_of_many_who_use_it_at_once_one_is_given_it(river: River) -> None:
    secret, start, given = make(river), Barrier(6), list[Link | None]()

    def follow() -> None:
        start.wait()
        given.append(use(river, secret))

    threads = [Thread(target=follow) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == 6
    assert sum(link is not None for link in given) == 1


def test_details_are_sealed_with_the_customers_key_and_go_with_it(river: River) -> None:
    secret = make(river)
    with river.database.transaction() as session:
        link = links.peek(session, secret, river.now)
        assert link
        assert links.details(link, river.keyring(session)) == {"a": 1}
    [key] = [row for row in river.rows(EncryptionKey) if row.key_id == ADA]
    river.set(key, wrapped_key=None)
    with river.database.transaction() as session:
        assert links.details(link, river.keyring(session)) == {}
        assert links.issue(session, river.keyring(session), ADA, "account", river.now, details={"a": 1})


def test_what_opens_a_customers_data_is_ended_together_and_the_way_to_keep_an_account_stays(river: River) -> None:
    secrets = [make(river, purpose) for purpose in (*links.ENDED, "cancel_erase")]
    with river.database.transaction() as session:
        other = links.issue(session, river.keyring(session), "c9", "session", river.now)
        links.end_sessions(session, ADA, river.now)
    assert [look(river, each) for each in (*secrets, other)] == [*[False] * len(links.ENDED), True, True]
