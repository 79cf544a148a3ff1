"""Checks of section 1 about the CRM data of managed cloud customers. That data is the product's, so the product answers.

Its hook gets {"action": "privacy"} and answers with one JSON object: `servers` (host names), `encrypted_at_rest`,
`encrypted_in_transit`, `reads` (a list of objects with `purpose`) and `shared_with` (a list). docs/privacy.md describes it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken_if,
    count_noun,
    not_applicable,
    not_looked_at,
)

PURPOSES = ("operation", "maintenance")


def place(live: LiveSystem) -> Finding:
    """The product names the servers that store the data, and all belong to the vendor's domain or a private network."""

    def judge(answer: Mapping[str, Any]) -> Finding:
        servers = _texts(answer, "servers")
        if not servers:
            return not_looked_at("the product names no servers")
        others = [each for each in servers if not live.is_own_host(each)]
        return broken_if(others, f"on {', '.join(servers)}", f"not the vendor's servers: {', '.join(others)}")

    return _asked(live, judge)


def at_rest(live: LiveSystem) -> Finding:
    """The product says that the data is encrypted at rest."""
    return _stated(live, "encrypted_at_rest", "encrypted at rest")


def in_transit(live: LiveSystem) -> Finding:
    """The product says that the data is encrypted in transit."""
    return _stated(live, "encrypted_in_transit", "encrypted in transit")


def access(live: LiveSystem) -> Finding:
    """Every read of the vendor that the product reports was for operation or maintenance."""

    def judge(answer: Mapping[str, Any]) -> Finding:
        reads = answer.get("reads")
        if not isinstance(reads, list):
            return not_looked_at("the product does not say who read the data")
        wrong = [each for each in reads if not isinstance(each, dict) or each.get("purpose") not in PURPOSES]
        return broken_if(
            wrong,
            f"{count_noun(len(reads), 'read')}, each for {' or '.join(PURPOSES)}",
            f"{count_noun(len(wrong), 'read')} for another purpose",
        )

    return _asked(live, judge)


def sharing(live: LiveSystem) -> Finding:
    """The product says that the data is shared with nobody."""

    def judge(answer: Mapping[str, Any]) -> Finding:
        if not isinstance(answer.get("shared_with"), list):
            return not_looked_at("the product does not say with whom the data is shared")
        shared = _texts(answer, "shared_with")
        return broken_if(shared, "shared with nobody", f"shared with {', '.join(shared)}")

    return _asked(live, judge)


def _stated(live: LiveSystem, name: str, words: str) -> Finding:
    def judge(answer: Mapping[str, Any]) -> Finding:
        if not isinstance(answer.get(name), bool):
            return not_looked_at(f"the product does not say whether the data is {words}")
        return broken_if(not answer[name], f"the product says: {words}", f"the product says: not {words}")

    return _asked(live, judge)


def _asked(live: LiveSystem, judge: Callable[[Mapping[str, Any]], Finding]) -> Finding:
    if not live.settings.product_url and not live.settings.product_command:
        return not_applicable("no managed cloud: neither SMT_PRODUCT_COMMAND nor SMT_PRODUCT_URL is set")
    if live.product is None:
        return not_looked_at('the product does not answer {"action": "privacy"}; see docs/privacy.md')
    return judge(live.product)


def _texts(answer: Mapping[str, Any], name: str) -> list[str]:
    found = answer.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
