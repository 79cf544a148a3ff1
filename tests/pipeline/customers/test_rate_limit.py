"""Hourly rate limits: each limit is used, is counted separately, and stores no address."""

import ast
import re
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.customers import rate_limit
from pipeline.customers.rate_limit import PER_HOUR, Limit
from pipeline.db.models import RateLimitCounter
from pipeline.policy.stated_limits import PARAMETERS
from tests.support.pipeline_under_test import PipelineUnderTest

PRODUCT = Path(rate_limit.__file__).parents[1]


def attempt(pipeline: PipelineUnderTest, limit: Limit = "send_link", subject: str = "ada@example.com") -> bool:
    with pipeline.database.transaction() as session:
        return rate_limit.allow(session, pipeline.keyring(session), limit, subject, now=pipeline.now)


def named_limits() -> set[str]:
    """Return all string constants in modules that use rate limits, except the table itself."""
    found = set()
    for path in PRODUCT.rglob("*.py"):
        source = path.read_text("utf-8")
        if "rate_limit" in source and path != Path(rate_limit.__file__):
            found |= {str(node.value) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    return found


def test_every_limit_is_used() -> None:
    # The type checker verifies the reverse: every limit in use is listed in `Limit`.
    assert set(PER_HOUR) <= named_limits()


def test_limits_match_the_policy() -> None:
    stated = {name: figure for name, figure in PARAMETERS.items() if name in PER_HOUR}
    assert stated == {name: figure for name, figure in PER_HOUR.items() if name in stated}


def test_attempts_above_limit_are_refused_until_next_hour(pipeline: PipelineUnderTest) -> None:
    assert [attempt(pipeline) for _ in range(5)] == [True, True, True, False, False]
    pipeline.clock.advance(timedelta(hours=1))
    assert attempt(pipeline)


def test_limits_and_subjects_are_counted_separately(
    pipeline: PipelineUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("send_link", "sign_up"):
        monkeypatch.setitem(PER_HOUR, limit, 1)
    assert [attempt(pipeline), attempt(pipeline, "sign_up"), attempt(pipeline, subject="bob")] == [True] * 3
    assert not attempt(pipeline)


def ask(pipeline: PipelineUnderTest, *addresses: str) -> int:
    """Ask once from each address. Return how many attempts are allowed."""
    with pipeline.database.transaction() as session:
        keyring = pipeline.keyring(session)
        return sum(rate_limit.allow_client(session, keyring, "sign_up", each, now=pipeline.now) for each in addresses)


@pytest.mark.parametrize(
    ("pattern", "multiple"),
    [("2001:db8:1:2::{:x}", 1), ("2001:db8:1:{:x}::1", 2), ("2001:db8:1:{:x}00::1", 4)],
    ids=["one /64", "many /64 of one /56", "many /56 of one /48"],
)
def test_ipv6_client_cannot_walk_through_its_networks(pipeline: PipelineUnderTest, pattern: str, multiple: int) -> None:
    addresses = [pattern.format(number) for number in range(120)]
    assert ask(pipeline, *addresses) == PER_HOUR["sign_up"] * multiple
    assert ask(pipeline, "2001:db8:2::1") == 1


def test_flood_from_one_network_leaves_the_wider_ones_to_others(pipeline: PipelineUnderTest) -> None:
    assert ask(pipeline, *["2001:db8:1:2::1"] * 500) == PER_HOUR["sign_up"]
    assert ask(pipeline, "2001:db8:1:3::1") == 1


def test_text_that_is_no_address_is_counted_together(pipeline: PipelineUnderTest) -> None:
    assert ask(pipeline, *[f"bogus{number}" for number in range(50)], "", "1.2.3.4.5") == PER_HOUR["sign_up"]


def test_counter_does_not_store_the_subject(pipeline: PipelineUnderTest) -> None:
    attempt(pipeline)
    [row] = pipeline.rows(RateLimitCounter)
    assert not re.search("ada@|example", repr(vars(row)))
    assert row.expires_at == pipeline.now + timedelta(hours=1)


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("unix", "unknown"),
        ("bogus7", "unknown"),
    ],
)
def test_ipv6_address_counts_as_its_network(address: str, network: str) -> None:
    assert rate_limit.client_network(address) == network
