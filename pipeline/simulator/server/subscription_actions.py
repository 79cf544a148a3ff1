"""Actions on an existing subscription: cancel, suspend, activate, capture an outstanding balance, PATCH.

They change the subscription's JSON, so they work for every subscription of the world, however it came to be there.
"""

import re

from pipeline.money import Money, parse_amount
from pipeline.simulator import ids, shapes
from pipeline.simulator.server.answers import Answer, Call, invalid, money_v2, not_found, patches, refused
from pipeline.simulator.server.feed import EventFeed
from pipeline.simulator.server.plan_prices import fixed_price, next_billing_after, plan_of
from pipeline.simulator.timeline import Json

FINAL_VERSION = 10**9  # higher than every version of a scenario, because a cancellation is final
_STATUS_INVALID = "Invalid subscription status for {} action; subscription status should be {}."
_PRICE = re.compile(r"/plan/billing_cycles/@sequence==(\d+)/pricing_scheme/fixed_price")
# Fields of the plan that PATCH can override, with the allowed operations.
_PLAN_FIELDS = {
    "/plan/payment_preferences/auto_bill_outstanding": ("replace",),
    "/plan/payment_preferences/payment_failure_threshold": ("replace",),
    "/plan/taxes/inclusive": ("add", "replace"),
    "/plan/taxes/percentage": ("add", "replace"),
}


class SubscriptionActions:
    """The calls under `/v1/billing/subscriptions/{id}` that change a subscription."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed, self._world = feed, feed.world

    def cancel(self, call: Call) -> Answer:
        """Cancel an active or suspended subscription at once, for good."""
        found, reason = self._find(call), call.text("reason", 128)
        self._require(found, "cancel", "active or suspended", "ACTIVE", "SUSPENDED")
        found["billing_info"].pop("next_billing_time", None)
        self._set_status(found, "CANCELLED", reason, "CANCELLED", FINAL_VERSION)
        return 204, None

    def suspend(self, call: Call) -> Answer:
        """Suspend an active subscription: it has no next charge until it is activated."""
        found, reason = self._find(call), call.text("reason", 128)
        self._require(found, "suspend", "active", "ACTIVE")
        found["billing_info"].pop("next_billing_time", None)
        self._set_status(found, "SUSPENDED", reason, "SUSPENDED")
        return 204, None

    def activate(self, call: Call) -> Answer:
        """Activate a suspended subscription. PayPal refuses while the failure threshold is reached."""
        found = self._find(call)
        reason = call.text("reason", 128) if "reason" in call.body else "Reactivating the subscription"
        self._require(found, "activate", "suspended", "SUSPENDED")
        plan, billing = plan_of(self._plan(found)), found["billing_info"]
        if 0 < plan.failure_threshold <= billing["failed_payments_count"] and _balance(found).amount:
            description = "Subscription cannot be activated after payment failure threshold has reached."
            raise refused("SUBSCRIPTION_CANNOT_BE_ACTIVATED", description)
        billing["failed_payments_count"] = 0
        billing["next_billing_time"] = shapes.seconds(next_billing_after(found, plan, self._feed.now))
        self._set_status(found, "ACTIVE", reason, "ACTIVATED")
        return 204, None

    def capture(self, call: Call) -> Answer:
        """Collect the outstanding balance or a part of it with a sale."""
        found = self._find(call)
        call.text("note", 128)
        if call.body.get("capture_type") != "OUTSTANDING_BALANCE":
            raise invalid("INVALID_PARAMETER_VALUE", "/capture_type")
        amount = money_v2(call.body.get("amount"), "/amount")
        statuses = "active or suspended or expired"
        self._require(found, "capture", statuses, "ACTIVE", "SUSPENDED", "EXPIRED")
        balance = _balance(found)
        self._check_capture(amount, balance)
        return 200, self._collect(found, amount, Money(balance.amount - amount.amount, balance.currency))

    def patch(self, call: Call) -> Answer:
        """Change the fields that PayPal allows to change. Sends UPDATED."""
        found = self._find(call)
        self._require(found, "patch", "either active or suspended", "ACTIVE", "SUSPENDED")
        for operation, path, value in patches(call):
            self._patch(found, operation, path, value)
        self.update(found)
        return 204, None

    def update(self, found: Json) -> None:
        """Store a changed subscription and send UPDATED."""
        found["update_time"] = shapes.seconds(self._feed.now)
        self._send("UPDATED", found)

    # Internal --------------------------------------------------------------------------------------------------------

    def _find(self, call: Call) -> Json:
        found = self._world.show("subscription", call.id)
        if found is None:
            raise not_found()
        return found

    def _plan(self, found: Json) -> Json:
        """Return the plan with the subscription's own prices and terms."""
        return found.get("plan") or self._world.show("plan", found["plan_id"]) or {}

    def _require(self, found: Json, action: str, allowed: str, *statuses: str) -> None:
        if found["status"] not in statuses:
            raise refused("SUBSCRIPTION_STATUS_INVALID", _STATUS_INVALID.format(action, allowed))

    def _set_status(self, found: Json, status: str, note: str, event: str, version: int = 0) -> None:
        at = shapes.seconds(self._feed.now)
        found |= {"status": status, "status_change_note": note, "status_update_time": at, "update_time": at}
        self._send(event, found, version)

    def _send(self, event: str, found: Json, version: int = 0) -> None:
        found["links"] = shapes.subscription_links(found["id"], found["status"])
        shown = {key: value for key, value in found.items() if key != "plan"}
        kind = f"BILLING.SUBSCRIPTION.{event}"
        self._feed.change(kind, "subscription", shown, {"subscription": found}, version=version)

    def _check_capture(self, amount: Money, balance: Money) -> None:
        if balance.amount <= 0:
            raise refused("ZERO_OUTSTANDING_BALANCE", "Current outstanding balance should be greater than zero.")
        if amount.currency != balance.currency:
            description = "The currency code is different from the subscription's currency code."
            raise refused("CURRENCY_MISMATCH", description)
        if not 0 < amount.amount <= balance.amount:
            description = "The capture amount can not be greater than the current outstanding balance."
            raise refused("AMOUNT_GREATER_THAN_OUTSTANDING_BALANCE", description)

    def _collect(self, found: Json, amount: Money, rest: Money) -> Json:
        now, name = self._feed.now, ids.payment(self._feed.rng)
        billing = found["billing_info"]
        billing["outstanding_balance"] = shapes.v2(rest)
        billing["last_payment"] = {"amount": shapes.v2(amount), "time": shapes.seconds(now)}
        billing["failed_payments_count"] = 0
        price = fixed_price(self._plan(found)["billing_cycles"][-1])
        if price and price.amount:
            paid = amount.amount // (price.amount * int(found.get("quantity", "1")))
            billing["cycle_executions"][-1]["cycles_completed"] += paid
        found["update_time"] = shapes.seconds(now)
        sale = shapes.sale(name, found["id"], found.get("custom_id", ""), amount, now)
        self._feed.change("PAYMENT.SALE.COMPLETED", "sale", sale, {"sale": sale, "subscription": found}, amount)
        return shapes.transaction(sale, found)

    def _patch(self, found: Json, operation: str, path: str, value: object) -> None:
        if path == "/billing_info/outstanding_balance":
            _allow(operation, "replace")
            self._reduce_balance(found, money_v2(value, path))
        elif path == "/custom_id":
            _allow(operation, "add", "replace")
            found["custom_id"] = custom_id(value)
        elif path == "/shipping_amount":
            _allow(operation, "add", "replace")
            found["shipping_amount"] = shapes.v2(money_v2(value, path))
        elif path == "/subscriber/shipping_address":
            _allow(operation, "add", "replace")
            found.setdefault("subscriber", {})["shipping_address"] = value
        elif path == "/start_time":
            raise refused(
                "INVALID_START_TIME", "The start time cannot be updated for a subscription that has been activated."
            )
        else:
            self._override_plan(found, operation, path, value)

    def _reduce_balance(self, found: Json, balance: Money) -> None:
        if balance.amount > _balance(found).amount:
            description = "The new outstanding balance cannot be greater than the current outstanding balance."
            raise refused("AMOUNT_GREATER_THAN_OUTSTANDING_BALANCE", description)
        found["billing_info"]["outstanding_balance"] = shapes.v2(balance)

    def _override_plan(self, found: Json, operation: str, path: str, value: object) -> None:
        plan, price = self._plan(found), _PRICE.fullmatch(path)
        if price:
            _allow(operation, "add", "replace")
            cycle = next((each for each in plan["billing_cycles"] if each["sequence"] == int(price[1])), None)
            if cycle is None:
                raise invalid("INVALID_PATCH_PATH", path)
            cycle["pricing_scheme"]["fixed_price"] = shapes.v2(money_v2(value, path))
        elif path in _PLAN_FIELDS:
            _allow(operation, *_PLAN_FIELDS[path])
            _, _, group, name = path.split("/")
            plan.setdefault(group, {})[name] = value
        else:
            raise invalid("INVALID_PATCH_PATH", path)
        found |= {"plan": plan, "plan_overridden": True}


def custom_id(value: object) -> str:
    """Return a valid `custom_id`: 1 to 127 printable ASCII characters. Raises ApiError."""
    if not isinstance(value, str):
        raise invalid("INVALID_PARAMETER_SYNTAX", "/custom_id")
    if len(value) > 127:
        raise invalid("INVALID_STRING_MAX_LENGTH", "/custom_id")
    if not re.fullmatch(r"[\x20-\x7E]+", value):
        raise invalid("INVALID_PARAMETER_SYNTAX", "/custom_id")
    return value


def _allow(operation: str, *allowed: str) -> None:
    if operation not in allowed:
        raise invalid("UNSUPPORTED_PATCH_OPERATION")


def _balance(found: Json) -> Money:
    balance = found["billing_info"]["outstanding_balance"]
    return parse_amount(balance["value"], balance["currency_code"])
