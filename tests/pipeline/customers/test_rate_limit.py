"""So many an hour and no more, each counted apart, and nobody's address kept."""

import re
from datetime import timedelta

import pytest

from pipeline.customers import rate_limit as knocks
from pipeline.db.models import RateLimitCounter
from tests.support.pipeline_under_test import River


def knock(river: River, what: str = "account", who: str = "ada@example.com", limit: int = 3) -> bool:
    with river.database.transaction() as session:
        return knocks.allow(session, river.keyring(session), what, who, limit=limit, now=river.now)


def test_so_many_an_hour_and_then_no_more_until_the_next(river: River) -> None:
    assert [knock(river) for _ in range(5)] == [True, True, True, False, False]
    river.clock.advance(timedelta(hours=1))
    assert knock(river)


def test_each_thing_and_each_person_is_counted_apart(river: River) -> None:
    assert [knock(river, limit=1), knock(river, "sign up", limit=1), knock(river, who="bob", limit=1)] == [True] * 3
    assert not knock(river, limit=1)


def test_who_knocked_is_not_kept(river: River) -> None:
    knock(river)
    [row] = river.rows(RateLimitCounter)
    assert not re.search("ada@|example", repr(vars(row)))
    assert row.expires_at == river.now + timedelta(hours=1)


@pytest.mark.parametrize(
    ("address", "shared"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unix"),
    ],
)
def test_an_ipv6_line_has_many_addresses(address: str, shared: str) -> None:
    assert knocks.neighbourhood(address) == shared
