"""Catalogue: products, and plans of Subscriptions v1 with their prices."""

from random import Random

from pipeline.money import parse_amount
from pipeline.simulator import ids, shapes
from pipeline.simulator.server.answers import Answer, Call, invalid, money_v2, not_found, page_of, patches, refused
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.timeline import Json

_PLAN_FIELDS = (
    "/description", "/name", "/taxes/percentage", "/payment_preferences/auto_bill_outstanding",
    "/payment_preferences/payment_failure_threshold", "/payment_preferences/setup_fee",
    "/payment_preferences/setup_fee_failure_action",
)  # fmt: skip
_PRODUCT_FIELDS = ("/description", "/category", "/image_url", "/home_url")
_MINIMAL = ("id", "product_id", "status", "name", "description", "create_time", "links")


class Products:
    """The calls under `/v1/catalogs/products`."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed, self._world = feed, feed.world

    def list_page(self, call: Call) -> Answer:
        """List products, at most 20 a page."""
        keys = ("id", "name", "description", "create_time", "links")
        found = [{key: each[key] for key in keys if key in each} for each in self._world.show_all("product")]
        return 200, page_of(call, "products", found, largest=20)

    def create(self, call: Call) -> Answer:
        """Create a product."""
        name, kind = call.text("name", 127), call.body.get("type")
        if kind not in ("PHYSICAL", "DIGITAL", "SERVICE"):
            raise invalid("INVALID_PARAMETER_VALUE", "/type")
        product = shapes.product(
            str(call.body.get("id") or f"PROD-{ids.payment(self._feed.rng)}"), name, self._feed.now
        )
        fields = ("description", "type", "category", "image_url", "home_url")
        product = {key: value for key, value in product.items() if key not in fields}
        product |= {key: call.body[key] for key in fields if key in call.body}
        self._feed.change("CATALOG.PRODUCT.CREATED", "product", product, {"product": product})
        return 201, product

    def patch(self, call: Call) -> Answer:
        """Add, replace or remove description, category and URLs."""
        product = self._world.show("product", call.id)
        if product is None:
            raise not_found()
        for operation, path, value in patches(call):
            if path not in _PRODUCT_FIELDS:
                raise invalid("INVALID_PATCH_PATH", path)
            if operation == "remove":
                product.pop(path[1:], None)
            else:
                product[path[1:]] = value
        product["update_time"] = shapes.seconds(self._feed.now)
        self._feed.change("CATALOG.PRODUCT.UPDATED", "product", product, {"product": product})
        return 204, None


class CatalogPlans:
    """The calls under `/v1/billing/plans`."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed, self._world = feed, feed.world

    def list_page(self, call: Call) -> Answer:
        """List plans, at most 20 a page. Without `Prefer: return=representation` they have no billing cycles."""
        product, plans = call.query.get("product_id", ""), call.choices("plan_ids")
        found = [
            each if call.wants_representation else {key: each[key] for key in _MINIMAL if key in each}
            for each in self._world.show_all("plan")
            if (not product or each["product_id"] == product) and (not plans or each["id"] in plans)
        ]
        return 200, page_of(call, "plans", found, largest=20)

    def create(self, call: Call) -> Answer:
        """Create a plan, ACTIVE unless the request says CREATED or INACTIVE."""
        call.text("name", 127)
        product, status = call.text("product_id", 50, shortest=6), call.body.get("status", "ACTIVE")
        if self._world.show("product", product) is None:
            raise not_found()
        if status not in ("CREATED", "INACTIVE", "ACTIVE"):
            raise invalid("INVALID_PARAMETER_VALUE", "/status")
        if not isinstance(call.body.get("payment_preferences"), dict):
            raise invalid("MISSING_REQUIRED_PARAMETER", "/payment_preferences")
        plan = self._new(call.body, str(status))
        self._send("CREATED", plan)
        if status == "ACTIVE":
            self._send("ACTIVATED", plan)
        return 201, plan

    def patch(self, call: Call) -> Answer:
        """Replace name, description, payment preferences and tax of a plan."""
        plan = self._find(call)
        if plan["status"] == "INACTIVE":
            description = "Status update is the only patchable filed on an inactive plan."
            raise refused("PLAN_STATUS_INACTIVE", description)
        for operation, path, value in patches(call):
            if path not in _PLAN_FIELDS:
                raise invalid("INVALID_PATCH_PATH", path)
            if operation != "replace":
                raise invalid("UNSUPPORTED_PATCH_OPERATION", path)
            *group, name = path[1:].split("/")
            (plan.setdefault(group[0], {}) if group else plan)[name] = value
        self._send("UPDATED", plan)
        return 204, None

    def activate(self, call: Call) -> Answer:
        """Activate a created or inactive plan."""
        return self._switch(call, "activate", "ACTIVE", "either created or inactive", "CREATED", "INACTIVE")

    def deactivate(self, call: Call) -> Answer:
        """Deactivate an active plan: it takes no new subscriptions."""
        return self._switch(call, "deactivate", "INACTIVE", "active", "ACTIVE")

    def change_prices(self, call: Call) -> Answer:
        """Change prices of billing cycles for new subscriptions and for charges after the next ten days."""
        plan, schemes = self._find(call), call.body.get("pricing_schemes")
        if not isinstance(schemes, list) or not schemes:
            raise invalid("MISSING_REQUIRED_PARAMETER", "/pricing_schemes")
        for scheme in schemes:
            self._change_price(plan, scheme if isinstance(scheme, dict) else {})
        self._send("PRICING-CHANGE.ACTIVATED", plan)
        return 204, None

    # Internal --------------------------------------------------------------------------------------------------------

    def _find(self, call: Call) -> Json:
        found = self._world.show("plan", call.id)
        if found is None:
            raise not_found()
        return found

    def _new(self, body: Json, status: str) -> Json:
        at, id = shapes.seconds(self._feed.now), "P-" + _plan_suffix(self._feed.rng)
        versions = {"version": 1, "create_time": at, "update_time": at}
        cycles = [{**cycle, "pricing_scheme": {**cycle["pricing_scheme"], **versions}} for cycle in _cycles(body)]
        texts: Json = {key: body[key] for key in ("description", "taxes") if key in body}
        preferences = {
            "auto_bill_outstanding": True,
            "setup_fee_failure_action": "CANCEL",
            "payment_failure_threshold": 0,
            **body["payment_preferences"],
        }
        return {
            "id": id,
            "product_id": body["product_id"],
            "name": body["name"],
            "status": status,
            **texts,
            "billing_cycles": cycles,
            "payment_preferences": preferences,
            "quantity_supported": bool(body.get("quantity_supported", False)),
            "create_time": at,
            "update_time": at,
        }

    def _switch(self, call: Call, action: str, status: str, allowed: str, *statuses: str) -> Answer:
        plan = self._find(call)
        if plan["status"] not in statuses:
            description = f"Invalid plan status for {action} action; plan status should be {allowed}."
            raise refused("PLAN_STATUS_INVALID", description)
        plan["status"] = status
        self._send("ACTIVATED" if status == "ACTIVE" else "DEACTIVATED", plan)
        return 204, None

    def _change_price(self, plan: Json, scheme: Json) -> None:
        sequence, new = scheme.get("billing_cycle_sequence"), scheme.get("pricing_scheme", {})
        cycle = next((each for each in plan["billing_cycles"] if each["sequence"] == sequence), None)
        if cycle is None:
            raise refused("INVALID_BILLING_CYCLE_SEQUENCE", "The provided billing cycle sequence is not available.")
        price, old = money_v2(new.get("fixed_price"), "/pricing_schemes/fixed_price"), cycle["pricing_scheme"]
        if price.currency != old["fixed_price"]["currency_code"]:
            raise refused("CURRENCY_MISMATCH", "The currency code is different from the plan's currency code.")
        if price == parse_amount(old["fixed_price"]["value"], price.currency):
            raise refused("PRICING_SCHEME_UPDATE_NOT_ALLOWED", "Pricing scheme update is not allowed for the plan.")
        at = shapes.seconds(self._feed.now)
        old |= {"fixed_price": shapes.v2(price), "version": old["version"] + 1, "update_time": at}

    def _send(self, event: str, plan: Json) -> None:
        plan["update_time"] = shapes.seconds(self._feed.now)
        plan["links"] = _links(plan["id"], plan["status"])
        self._feed.change(f"BILLING.PLAN.{event}", "plan", plan, {"plan": plan})


def _cycles(body: Json) -> list[Json]:
    """Return the billing cycles of a request: trials first, then one regular cycle. Raises ApiError."""
    cycles = body.get("billing_cycles")
    if not isinstance(cycles, list) or not cycles or not all(isinstance(cycle, dict) for cycle in cycles):
        raise invalid("MISSING_REQUIRED_PARAMETER", "/billing_cycles")
    kinds = [cycle.get("tenure_type") for cycle in cycles]
    if "REGULAR" not in kinds:
        raise refused("MISSING_REGULAR_BILLING_CYCLE", "Plan should have at least one regular billing cycle.")
    if kinds.count("REGULAR") > 1:
        raise refused("MULTIPLE_REGULAR_BILLING_CYCLES_NOT_SUPPORTED", "Only one regular billing cycle is allowed.")
    if len(kinds) > 3:
        raise refused("MORE_THAN_TWO_TRIAL_BILLING_CYCLE_NOT_SUPPORTED", "Only two trial billing cycles are allowed.")
    if [cycle.get("sequence") for cycle in cycles] != list(range(1, len(cycles) + 1)) or kinds[-1] != "REGULAR":
        description = "Billing cycle sequence should start with `1` and be consecutive."
        raise refused("INVALID_BILLING_CYCLE_SEQUENCE", description)
    for cycle in cycles:
        money_v2(cycle.get("pricing_scheme", {}).get("fixed_price"), "/billing_cycles/pricing_scheme/fixed_price")
    return cycles


def _plan_suffix(rng: Random) -> str:
    return "".join(rng.choice("0123456789ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(24))


def _links(id: str, status: str) -> list[Json]:
    url, switch = f"{shapes.API}/v1/billing/plans/{id}", "deactivate" if status == "ACTIVE" else "activate"
    edits = [shapes.link(url, "edit", "PATCH"), shapes.link(f"{url}/{switch}", switch, "POST")]
    return [shapes.link(url, "self"), *edits, shapes.link(f"{url}/update-pricing-schemes", "edit", "POST")]
