"""Lists of Subscriptions v1 and Disputes v1: subscriptions, transactions of a subscription, disputes.

The list of subscriptions is newer than the OpenAPI file; its parameters are those of PayPal's SDK
(paypal-server-sdk 2.4.0, `list_subscriptions`).
"""

import operator
import re
from collections import defaultdict
from datetime import datetime

from pipeline.clock import parse_time
from pipeline.simulator import shapes
from pipeline.simulator.server.answers import Answer, Call, invalid, link_to, moment, not_found, page_of
from pipeline.simulator.timeline import Json
from pipeline.simulator.world import PaypalState

_FILTER = re.compile(r"(create_time|status_update_time|start_time) (ge|gt|le|lt|eq) (\S+)")
_COMPARE = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt, "eq": operator.eq}
_DISPUTE_SUMMARY = (
    "dispute_id", "create_time", "update_time", "reason", "status", "dispute_state", "dispute_amount",
    "dispute_life_cycle_stage", "dispute_channel", "buyer_response_due_date", "seller_response_due_date", "links",
)  # fmt: skip


class Listings:
    """The calls that list objects of the world."""

    def __init__(self, world: PaypalState) -> None:
        self._world = world
        self._sales: tuple[int, dict[str, list[Json]]] = (-1, {})

    def subscriptions(self, call: Call) -> Answer:
        """List subscriptions by plan, status, creation and last change of the status; at most 20 a page."""
        plans, statuses = call.choices("plan_ids"), call.choices("statuses")
        asked_filter = call.query.get("filter", "")
        created, updated = (
            call.period("created_after", "created_before"),
            call.period("status_updated_after", "status_updated_before"),
        )
        found = [
            each.resource
            for each in self._world.objects("subscription")
            if (not plans or each.resource["plan_id"] in plans)
            and (not statuses or each.resource["status"] in statuses)
            and created(moment(each.resource, "create_time"))
            and updated(moment(each.resource, "status_update_time"))
            and _matches(asked_filter, each.resource)
        ]
        page = page_of(call, "subscriptions", found, largest=20)
        return 200, page | {"subscriptions": [_summary(each) for each in page["subscriptions"]]}

    def transactions(self, call: Call) -> Answer:
        """List the sales of a subscription between two times, both required."""
        subscription = self._world.show("subscription", call.id)
        if subscription is None:
            raise not_found()
        start, end = call.time("start_time", required=True), call.time("end_time", required=True)
        if start is None or end is None or end < start:
            raise invalid("INVALID_PARAMETER_VALUE", "end_time")
        found = [
            shapes.transaction(sale, subscription)
            for sale in self._sales_of(call.id)
            if start <= moment(sale, "create_time") <= end
        ]
        totals = {"total_items": len(found), "total_pages": 1 if found else 0}
        return 200, {"transactions": found, **totals, "links": [link_to(call, call.query, "self")]}

    def _sales_of(self, subscription: str) -> list[Json]:
        """Return the sales of a subscription. The index is made once for each state of the world."""
        if self._sales[0] != self._world.revision:
            by_subscription: dict[str, list[Json]] = defaultdict(list)
            for each in self._world.objects("sale"):
                by_subscription[str(each.resource.get("billing_agreement_id"))].append(each.resource)
            self._sales = self._world.revision, by_subscription
        return self._sales[1].get(subscription, [])

    def disputes(self, call: Call) -> Answer:
        """List disputes by time of update, sale and state; at most 50 a page, continued by `next_page_token`."""
        sale, states = call.query.get("disputed_transaction_id", ""), call.choices("dispute_state")
        found = [
            {key: each[key] for key in _DISPUTE_SUMMARY if key in each}
            for each in self._world.show_all("dispute")
            if call.within("update_time_after", "update_time_before", moment(each, "update_time"))
            and call.within("start_time", "", moment(each, "create_time"))
            and (not sale or sale in _sales(each))
            and (not states or each.get("dispute_state") in states)
        ]
        size, start = call.number("page_size", 10, 50), _offset(call.query.get("next_page_token", ""))
        links = [link_to(call, call.query, "self")]
        if start + size < len(found):
            links.append(link_to(call, {**call.query, "next_page_token": f"offset{start + size}"}, "next"))
        return 200, {"items": found[start : start + size], "links": links}


def _summary(subscription: Json) -> Json:
    """Return a subscription of the list: without the fields that only a single look-up returns on request."""
    shown = {key: value for key, value in subscription.items() if key != "plan"}
    if "billing_info" in shown:
        billing = shown["billing_info"].items()
        shown["billing_info"] = {key: value for key, value in billing if key != "last_failed_payment"}
    return shown


def _matches(expression: str, subscription: Json) -> bool:
    """Return whether a subscription matches a filter such as `create_time ge 2026-01-01T00:00:00Z and …`."""
    for condition in filter(None, expression.split(" and ")):
        found = _FILTER.fullmatch(condition.strip())
        limit = parse_time(found[3]) if found else None
        if found is None or limit is None:
            raise invalid("INVALID_PARAMETER_SYNTAX", "filter")
        if not _COMPARE[found[2]](_time(subscription, found[1]), limit):
            return False
    return True


def _time(subscription: Json, field: str) -> datetime:
    return moment(subscription, field)


def _sales(dispute: Json) -> list[str]:
    return [str(each.get("seller_transaction_id")) for each in dispute.get("disputed_transactions", [])]


def _offset(token: str) -> int:
    if not token:
        return 0
    if not re.fullmatch(r"offset\d{1,6}", token, re.ASCII):
        raise invalid("INVALID_PARAMETER_VALUE", "next_page_token")
    return int(token.removeprefix("offset"))
