"""Read and create products and plans at PayPal. Nothing here changes an existing one.

Catalog Products v1 and Subscriptions v1: https://developer.paypal.com/docs/api/subscriptions/v1/#plans
"""

import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import orjson

from pipeline.paypal.api import PaypalApi
from pipeline.paypal.errors import PaypalUnavailableError

PAGE_SIZE = 20  # the most that PayPal returns on a page
MOST_PAGES = 500  # so that a wrong answer cannot repeat for ever
_PLANS, _PRODUCTS = "/v1/billing/plans", "/v1/catalogs/products"


class CatalogRequest:
    """A request that the SDK's client executes. A POST has a key, so that its repetition creates nothing more."""

    def __init__(self, verb: str, path: str, body: dict[str, Any] | None = None) -> None:
        self.verb, self.path, self.body = verb, path, body
        self.headers = {"Accept": "application/json", "Content-Type": "application/json"}
        if body is not None:
            key = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()[:36]
            self.headers |= {"PayPal-Request-Id": key, "Prefer": "return=representation"}


def list_plans(paypal: PaypalApi) -> list[dict[str, Any]]:
    """Return all plans, each as PayPal's plan resource with its billing cycles.

    The list of PayPal's API has no prices, so each plan is read. Raises PaypalRejectedError or PaypalUnavailableError,
    like all functions here.
    """
    return [paypal.get("plan", str(each["id"])) for each in _pages(paypal, _PLANS, "plans")]


def list_products(paypal: PaypalApi) -> list[dict[str, Any]]:
    """Return all products: id, name, description."""
    return list(_pages(paypal, _PRODUCTS, "products"))


def create_product(paypal: PaypalApi, body: dict[str, Any]) -> str:
    """Create a product and return its id."""
    return _id_of(paypal.execute(CatalogRequest("POST", _PRODUCTS, body)))


def create_plan(paypal: PaypalApi, body: dict[str, Any]) -> str:
    """Create a plan and return its id (`P-…`)."""
    return _id_of(paypal.execute(CatalogRequest("POST", _PLANS, body)))


def _pages(paypal: PaypalApi, path: str, key: str) -> Iterator[dict[str, Any]]:
    for page in range(1, MOST_PAGES + 1):
        query = f"?page_size={PAGE_SIZE}&page={quote(str(page))}&total_required=true"
        items = paypal.execute(CatalogRequest("GET", path + query)).get(key)
        found = [each for each in items if isinstance(each, dict)] if isinstance(items, list) else []
        yield from (each for each in found if isinstance(each.get("id"), str))
        if len(found) < PAGE_SIZE:
            return


def _id_of(created: dict[str, Any]) -> str:
    id = created.get("id")
    if not isinstance(id, str) or not id:
        raise PaypalUnavailableError("PayPal's answer contains no id; run the command again, it creates nothing twice")
    return id
