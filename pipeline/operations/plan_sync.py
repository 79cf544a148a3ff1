"""Compare the vendor's plan file with PayPal, and create what PayPal does not have.

Products and plans are identified by their names. A difference is reported, never changed: a new price would reach
existing subscribers, so the operator changes it at PayPal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.operations.plan_file import WantedPlan, WantedProduct
from pipeline.paypal import catalog
from pipeline.paypal.api import PaypalApi


@dataclass(slots=True)
class SyncResult:
    """`created`: id by name. `same`: id by name. `differences`: sentences for the operator."""

    created: dict[str, str] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def sync(paypal: PaypalApi, wanted: Sequence[WantedProduct], *, create: bool) -> SyncResult:
    """Compare, and create what is missing if `create`. Raises PaypalRejectedError or PaypalUnavailableError."""
    products = {each.get("name"): str(each["id"]) for each in catalog.list_products(paypal)}
    plans = catalog.list_plans(paypal)
    result = SyncResult()
    for product in wanted:
        id = products.get(product.name)
        if id is None:
            id = _create(result, product.name, create and catalog.create_product(paypal, product.body))
        for plan in product.plans:
            _sync_plan(paypal, result, plan, id, plans, create=create)
    return result


def _sync_plan(
    paypal: PaypalApi, result: SyncResult, plan: WantedPlan, product: str, plans: list[dict[str, Any]], *, create: bool
) -> None:
    found = [each for each in plans if each.get("name") == plan.name and each.get("product_id") == product]
    if not found:
        body = plan.body | {"product_id": product}
        _create(result, plan.name, create and catalog.create_plan(paypal, body))
        return
    if len(found) > 1:
        ids = ", ".join(str(each["id"]) for each in found)
        result.differences.append(
            f"{plan.name}: PayPal has {len(found)} plans of this name ({ids}); rename or deactivate one"
        )
    differences = _differences(plan.body, found[0], "")
    result.differences += [f"{plan.name} ({found[0]['id']}): {each}" for each in differences]
    if not differences:
        result.same[plan.name] = str(found[0]["id"])


def _create(result: SyncResult, name: str, created: str | bool) -> str:
    """Record a new object, or that it is missing if it was not to be created. Return its id, "" without one."""
    if not isinstance(created, str):
        result.differences.append(f"{name}: PayPal does not have it; run this command with --create")
        return ""
    result.created[name] = created
    return created


def _differences(wanted: Any, found: Any, path: str) -> list[str]:
    """Return where PayPal's resource differs from the file. What the file does not say is not compared."""
    if isinstance(wanted, Mapping):
        of = found if isinstance(found, Mapping) else {}
        return [each for key in wanted for each in _differences(wanted[key], of.get(key), f"{path}.{key}".strip("."))]
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            number = len(found) if isinstance(found, list) else 0
            return [f"{path}: the file has {len(wanted)}, PayPal has {number}"]
        return [
            each
            for place, item in enumerate(wanted)
            for each in _differences(item, found[place], f"{path}.{place + 1}")
        ]
    return [] if _equal(wanted, found) else [f"{path}: the file says {wanted}, PayPal has {found}"]


def _equal(wanted: Any, found: Any) -> bool:
    """Return whether two values are equal. PayPal writes "19" as "19.0", and "10" as "10.00"."""
    if wanted == found:
        return True
    try:
        return not isinstance(wanted, bool) and float(wanted) == float(found)
    except (TypeError, ValueError):
        return False
