"""Read the vendor's products and plans from a TOML file, as PayPal's API expects them.

docs/going-live.md shows the format. All amounts are texts in the currency's usual writing, such as "10.00".
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.money import InvalidAmountError, format_amount, parse_amount

UNITS = {"day": "DAY", "week": "WEEK", "month": "MONTH", "year": "YEAR"}
LONGEST = {"DAY": 365, "WEEK": 52, "MONTH": 12, "YEAR": 1}  # PayPal's limits of a cycle
MOST_TRIALS = 2
PRODUCT_KEYS = frozenset({"name", "type", "description", "plan"})
PLAN_KEYS = frozenset(
    {"name", "description", "currency", "price", "every", "cycles", "trial", "tax", "tax_included", "setup_fee",
     "bill_outstanding", "failures", "quantity"}
)  # fmt: skip
TRIAL_KEYS = frozenset({"price", "every", "cycles"})


@dataclass(frozen=True, slots=True)
class WantedPlan:
    """A plan of the file. `body` is PayPal's plan resource without `product_id`."""

    name: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WantedProduct:
    """A product of the file with its plans. `body` is PayPal's product resource."""

    name: str
    body: dict[str, Any]
    plans: tuple[WantedPlan, ...]


def read_plan_file(path: Path) -> list[WantedProduct]:
    """Return the products and plans in the file. Raises UsageError, which names the file and the entry."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}") from error
    try:
        products = [_product(each) for each in _tables(document, "product", "the file")]
        _require_unique([product.name for product in products], "product")
        _require_unique([plan.name for product in products for plan in product.plans], "plan")
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return products


def _product(table: Mapping[str, Any]) -> WantedProduct:
    name = _text(table, "name", "a product")
    _require_known(table, PRODUCT_KEYS, name)
    kind = str(table.get("type", "SERVICE")).upper()
    if kind not in ("PHYSICAL", "DIGITAL", "SERVICE"):
        raise ValueError(f"{name}: type must be PHYSICAL, DIGITAL or SERVICE")
    body = {"name": name, "type": kind} | _optional(table, "description", name)
    return WantedProduct(name, body, tuple(_plan(each) for each in _tables(table, "plan", name)))


def _plan(table: Mapping[str, Any]) -> WantedPlan:
    name = _text(table, "name", "a plan")
    _require_known(table, PLAN_KEYS, name)
    currency = _text(table, "currency", name)
    body: dict[str, Any] = {
        "name": name,
        "status": "ACTIVE",
        "billing_cycles": _cycles(table, name, currency),
        "payment_preferences": _preferences(table, name, currency),
        "quantity_supported": table.get("quantity", False) is True,
    }
    return WantedPlan(name, body | _optional(table, "description", name) | _taxes(table, name))


def _cycles(table: Mapping[str, Any], name: str, currency: str) -> list[dict[str, Any]]:
    trials = _tables(table, "trial", name) if "trial" in table else []
    if len(trials) > MOST_TRIALS:
        raise ValueError(f"{name}: PayPal allows {MOST_TRIALS} trials")
    for trial in trials:
        _require_known(trial, TRIAL_KEYS, f"trial of {name}")
    cycles = [_cycle(trial, f"trial of {name}", currency, "TRIAL", 1) for trial in trials]
    cycles.append(_cycle(table, name, currency, "REGULAR", 0))
    return [cycle | {"sequence": place} for place, cycle in enumerate(cycles, 1)]


def _cycle(table: Mapping[str, Any], name: str, currency: str, tenure: str, cycles: int) -> dict[str, Any]:
    total = table.get("cycles", cycles)
    if not isinstance(total, int) or isinstance(total, bool) or not cycles <= total <= 999:
        raise ValueError(f"{name}: cycles must be a number from {cycles} to 999 (0: without end)")
    price = _amount(table, "price", name, currency)
    scheme = {} if tenure == "TRIAL" and float(price["value"]) == 0 else {"pricing_scheme": {"fixed_price": price}}
    return {"frequency": _frequency(table, name), "tenure_type": tenure, "total_cycles": total, **scheme}


def _frequency(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return PayPal's frequency of a text such as `1 month` or `12 months`."""
    count, _, unit = _text(table, "every", name).partition(" ")
    interval = UNITS.get(unit.strip().lower().removesuffix("s"))
    if not count.isdecimal() or interval is None or not 1 <= int(count) <= LONGEST[interval]:
        raise ValueError(f"{name}: every must be like '1 month'; at most 365 days, 52 weeks, 12 months or 1 year")
    return {"interval_unit": interval, "interval_count": int(count)}


def _preferences(table: Mapping[str, Any], name: str, currency: str) -> dict[str, Any]:
    failures = table.get("failures", 2)
    if not isinstance(failures, int) or isinstance(failures, bool) or not 0 <= failures <= 999:
        raise ValueError(f"{name}: failures must be a number from 0 to 999 (0: never suspend)")
    fee = {"setup_fee": _amount(table, "setup_fee", name, currency)} if "setup_fee" in table else {}
    bills = table.get("bill_outstanding", True) is True
    return {"auto_bill_outstanding": bills, "payment_failure_threshold": failures, **fee}


def _taxes(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    if "tax" not in table:
        return {}
    if table.get("tax_included") not in (True, False):
        raise ValueError(f"{name}: tax_included must be true (the price contains the tax) or false (PayPal adds it)")
    percentage = str(table["tax"])
    try:
        valid = 0 <= float(percentage) < 100
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{name}: tax must be a percentage such as '19'")
    return {"taxes": {"percentage": percentage, "inclusive": table["tax_included"]}}


def _amount(table: Mapping[str, Any], key: str, name: str, currency: str) -> dict[str, str]:
    try:
        money = parse_amount(table.get(key), currency)
    except InvalidAmountError as error:
        raise ValueError(f"{name}: {key} must be an amount in {currency} such as '10.00': {error}") from error
    if money.amount < 0:
        raise ValueError(f"{name}: {key} must not be negative")
    return {"value": format_amount(money), "currency_code": currency}


def _text(table: Mapping[str, Any], key: str, name: str) -> str:
    value = table.get(key)
    if not isinstance(value, str) or not value.strip() or len(value) > 127:
        raise ValueError(f"{name}: {key} must be a text of at most 127 characters")
    return value.strip()


def _optional(table: Mapping[str, Any], key: str, name: str) -> dict[str, str]:
    return {key: _text(table, key, name)} if key in table else {}


def _tables(table: Mapping[str, Any], key: str, name: str) -> list[Mapping[str, Any]]:
    found = table.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(each, dict) for each in found):
        raise ValueError(f"{name} needs one or more [[{key}]] entries")
    return found


def _require_known(table: Mapping[str, Any], keys: frozenset[str], name: str) -> None:
    unknown = sorted(set(table) - keys)
    if unknown:
        raise ValueError(f"{name}: unknown {', '.join(unknown)}; possible are {', '.join(sorted(keys))}")


def _require_unique(names: list[str], what: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"the {what} {repeated[0]} occurs twice; names must differ, because they identify the {what}")
