"""PayPal's lists: webhook events, subscriptions, and reported transactions.

Each function yields JSON objects, newest or oldest first as PayPal returns them. Links are never followed: only the query
of a link to the next page is used. All raise PaypalNotFoundError, PaypalRejectedError or PaypalUnavailableError.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from pipeline.clock import format_time
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalUnavailableError

EVENTS = "/v1/notifications/webhooks-events"
SUBSCRIPTIONS = "/v1/billing/subscriptions"
REPORT = "/v1/reporting/transactions"
EVENT_HISTORY = timedelta(days=30)  # PayPal lists webhook events of the last 30 days
REPORT_WINDOW = timedelta(days=31)  # the longest period of one report
EVENTS_PAGE, SUBSCRIPTIONS_PAGE, REPORT_PAGE = 100, 20, 100  # an answer of more than 1 MiB is refused
MOST_PAGES = 10_000  # so that a wrong answer cannot repeat for ever


class ListRequest:
    """A GET request of a list, which the SDK's client executes."""

    verb, body = "GET", None

    def __init__(self, path: str, query: str) -> None:
        self.path = f"{path}?{query}"
        self.headers: dict[str, str] = {"Accept": "application/json"}


def webhook_events(paypal: PaypalApi, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """Yield the webhook events that PayPal sent, or tried to send, in this period. At most 30 days back."""
    query = {"page_size": EVENTS_PAGE, "start_time": format_time(since), "end_time": format_time(until)}
    yield from _linked_pages(paypal, EVENTS, urlencode(query), "events")


def changed_subscriptions(paypal: PaypalApi, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """Yield the subscriptions whose status changed in this period. Not every account offers this list."""
    query = {"page_size": SUBSCRIPTIONS_PAGE, "page": 1, "status_updated_after": format_time(since)}
    query |= {"status_updated_before": format_time(until)}
    yield from _linked_pages(paypal, SUBSCRIPTIONS, urlencode(query), "subscriptions")


def all_subscriptions(paypal: PaypalApi, page: int) -> tuple[list[dict[str, Any]], int]:
    """Return one page of all subscriptions in every state, oldest first, and how many there are."""
    query = urlencode({"page_size": SUBSCRIPTIONS_PAGE, "page": page, "total_required": "true"})
    found = paypal.execute(ListRequest(SUBSCRIPTIONS, query))
    total = found.get("total_items")
    return _items(found, "subscriptions"), total if isinstance(total, int) else 0


def subscription_transactions(paypal: PaypalApi, id: str, since: datetime, until: datetime) -> list[dict[str, Any]]:
    """Return the sales of one subscription in this period."""
    query = urlencode({"start_time": format_time(since), "end_time": format_time(until)})
    return _items(paypal.execute(ListRequest(f"{SUBSCRIPTIONS}/{id}/transactions", query)), "transactions")


def reported_transactions(paypal: PaypalApi, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    """Yield the `transaction_info` of each transaction of the account in this period. PayPal reports hours later."""
    start = since
    while start < until:
        end = min(start + REPORT_WINDOW, until)
        yield from _report(paypal, start, end)
        start = end


def _report(paypal: PaypalApi, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    for page in range(1, MOST_PAGES):
        query = {
            "start_date": format_time(since),
            "end_date": format_time(until),
            "page_size": REPORT_PAGE,
            "page": page,
        }
        found = paypal.execute(ListRequest(REPORT, urlencode(query)))
        items = _items(found, "transaction_details")
        yield from (info for each in items if isinstance(info := each.get("transaction_info"), dict))
        pages = found.get("total_pages")
        if not items or not isinstance(pages, int) or page >= pages:
            return


def _linked_pages(paypal: PaypalApi, path: str, query: str, key: str) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    while query and query not in seen:
        if len(seen) >= MOST_PAGES:
            raise PaypalUnavailableError(f"GET {path}: more than {MOST_PAGES} pages; ask for a shorter period")
        seen.add(query)
        found = paypal.execute(ListRequest(path, query))
        yield from _items(found, key)
        query = _next_query(found.get("links"))


def _next_query(links: Any) -> str:
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == "next" and isinstance(link.get("href"), str):
            return urlsplit(link["href"]).query
    return ""


def _items(found: dict[str, Any], key: str) -> list[dict[str, Any]]:
    items = found.get(key)
    return [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
