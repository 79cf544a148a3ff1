"""Hourly rate limits: each is counted apart, each is used, and nobody's address is kept."""

import ast
import re
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.customers import rate_limit
from pipeline.customers.rate_limit import PER_HOUR, Limit
from pipeline.db.models import RateLimitCounter
from pipeline.policy.stated_limits import PARAMETERS
from tests.support.pipeline_under_test import River

PRODUCT = Path(rate_limit.__file__).parents[1]


def knock(river: River, limit: Limit = "send_link", who: str = "ada@example.com") -> bool:
    with river.database.transaction() as session:
        return rate_limit.allow(session, river.keyring(session), limit, who, now=river.now)


def named_limits() -> set[str]:
    """Every text in the modules that use rate limits, but the table's own."""
    found = set()
    for path in PRODUCT.rglob("*.py"):
        source = path.read_text("utf-8")
        if "rate_limit" in source and path != Path(rate_limit.__file__):
            found |= {str(node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return found


def test_every_limit_of_the_table_is_used() -> None:
    # That every limit which is used stands in the table is the type checker's: `Limit` names them.
    assert set(PER_HOUR) <= named_limits()


def test_a_limit_that_the_policy_states_has_the_figure_that_it_states() -> None:
    stated = {name: figure for name, figure in PARAMETERS.items() if name in PER_HOUR}
    assert stated == {name: figure for name, figure in PER_HOUR.items() if name in stated}


def test_so_many_an_hour_and_then_no_more_until_the_next(river: River) -> None:
    assert [knock(river) for _ in range(5)] == [True, True, True, False, False]
    river.clock.advance(timedelta(hours=1))
    assert knock(river)


def test_each_thing_and_each_person_is_counted_apart(river: River, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in ("send_link", "sign_up"):
        monkeypatch.setitem(PER_HOUR, limit, 1)
    assert [knock(river), knock(river, "sign_up"), knock(river, who="bob")] == [True] * 3
    assert not knock(river)


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
    assert rate_limit.client_network(address) == shared
