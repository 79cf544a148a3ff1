"""PayPal's JSON formats as it really sends them: v2 for subscriptions and plans, v1 for sales and refunds.

Amounts have PayPal's form: `29.0` in v2, `29.00` in v1. Fields that real webhooks omit are omitted here too; each
function describes them.
"""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from pipeline.money import Money, digits, format_amount, parse_amount
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import PRODUCT_ID, PRODUCT_SINCE, Plan
from pipeline.simulator.timeline import Json

API = "https://api.sandbox.paypal.com"

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥"}
_SUMMARIES = {
    "BILLING.SUBSCRIPTION.CREATED": "Subscription created",
    "BILLING.SUBSCRIPTION.ACTIVATED": "Subscription activated",
    "BILLING.SUBSCRIPTION.UPDATED": "Subscription updated",
    "BILLING.SUBSCRIPTION.PAYMENT.FAILED": "Payment failed on subscription",
    "BILLING.SUBSCRIPTION.SUSPENDED": "Subscription suspended",
    "BILLING.SUBSCRIPTION.RE-ACTIVATED": "Subscription re-activated",
    "BILLING.SUBSCRIPTION.CANCELLED": "Subscription cancelled",
    "BILLING.SUBSCRIPTION.EXPIRED": "Subscription expired",
    "PAYMENT.SALE.COMPLETED": "Payment completed for {sign} {value} {currency}",
    "PAYMENT.SALE.PENDING": "Payment pending for {sign} {value} {currency}",
    "PAYMENT.SALE.DENIED": "A {sign} {value} {currency} sale payment was denied",
    "PAYMENT.SALE.REFUNDED": "A {sign} {value} {currency} sale payment was refunded",
    "PAYMENT.SALE.REVERSED": "A {sign} {value} {currency} sale payment was reversed",
    "PAYMENT.CAPTURE.REFUNDED": "A {sign} {value} {currency} capture payment was refunded",
    "BILLING.PLAN.CREATED": "A billing plan was created",
    "BILLING.PLAN.UPDATED": "A billing plan was updated",
    "BILLING.PLAN.ACTIVATED": "A billing plan was activated",
    "BILLING.PLAN.DEACTIVATED": "A billing plan was deactivated",
    "BILLING.PLAN.PRICING-CHANGE.ACTIVATED": "A price change for the plan was activated",
    "CATALOG.PRODUCT.CREATED": "A product was created",
    "CATALOG.PRODUCT.UPDATED": "A product was updated",
}
ResourceType = Literal["subscription", "sale", "refund", "plan", "product"]
RefundKind = Literal["refund", "capture_refund"]

_VERSION_2 = ("subscription", "plan", "product")


def envelope(event_id: str, kind: str, created: datetime, of: ResourceType, resource: Json, amount: Money) -> Json:
    """Return an event with its resource. As at PayPal, events of sales and refunds have no `resource_version`."""
    summary = _SUMMARIES[kind].format(
        sign=_SIGNS.get(amount.currency, amount.currency), value=v2(amount)["value"], currency=amount.currency
    )
    url = f"{API}/v1/notifications/webhooks-events/{event_id}"
    return {
        "id": event_id,
        "event_version": "1.0",
        "create_time": millis(created),
        "resource_type": of,
        **({"resource_version": "2.0"} if of in _VERSION_2 or kind.startswith("PAYMENT.CAPTURE.") else {}),
        "event_type": kind,
        "summary": summary,
        "resource": resource,
        "links": [link(url, "self"), link(url + "/resend", "resend", "POST")],
    }


def subscriber(person: SimulatedCustomer) -> Json:
    """Return the subscriber's data; e-mail and shipping address are omitted if unknown."""
    name = {"given_name": person.given_name, "surname": person.surname}
    found: Json = {"name": name}
    if person.email:
        found["email_address"] = person.email
    found["payer_id"] = person.payer_id
    if person.city:
        found["shipping_address"] = {
            "name": {"full_name": person.company or f"{person.given_name} {person.surname}"},
            "address": {
                "address_line_1": person.street,
                "address_line_2": "",
                "admin_area_2": person.city,
                "admin_area_1": "",
                "postal_code": person.postal_code,
                "country_code": person.country,
            },
        }
    return found


def cycle_executions(plan: Plan, regular: int, *, begun: bool) -> list[Json]:
    """Return the completed cycles. `total_cycles` 0 means no end; `cycles_remaining` is then 0, too."""
    trial = [_cycle("TRIAL", 1, 1 if begun else 0, 1)] if plan.trial_days else []
    return [*trial, _cycle("REGULAR", len(trial) + 1, regular, plan.cycles)]


def subscription_links(subscription: str, status: str) -> list[Json]:
    """Return the links for a status; an ended subscription has only the link to itself."""
    url = f"{API}/v1/billing/subscriptions/{subscription}"
    edit, itself = link(url, "edit", "PATCH"), link(url, "self")
    if status == "APPROVAL_PENDING":
        page = f"https://www.sandbox.paypal.com/webapps/billing/subscriptions?ba_token=BA-2{subscription[2:]}0X56"
        return [link(page, "approve"), edit, itself]
    if status in ("CANCELLED", "EXPIRED"):
        return [{**itself, "encType": "application/json"}]
    switch = "activate" if status == "SUSPENDED" else "suspend"
    ends = [link(f"{url}/{verb}", verb, "POST") for verb in ("cancel", switch, "capture")]
    return [ends[0], edit, itself, *ends[1:]]


def sale(sale_id: str, subscription: str, custom: str, amount: Money, created: datetime) -> Json:
    """Return a completed sale of a subscription; it has no parent payment."""
    url = f"{API}/v1/payments/sale/{sale_id}"
    return {
        "id": sale_id,
        "state": "completed",
        "amount": {**v1(amount), "details": {"subtotal": format_amount(amount)}},
        "payment_mode": "INSTANT_TRANSFER",
        "protection_eligibility": "ELIGIBLE",
        "protection_eligibility_type": "ITEM_NOT_RECEIVED_ELIGIBLE,UNAUTHORIZED_PAYMENT_ELIGIBLE",
        "transaction_fee": {"value": format_amount(fee(amount)), "currency": amount.currency},
        "invoice_number": "",
        "billing_agreement_id": subscription,
        "custom": custom,
        "create_time": seconds(created),
        "update_time": seconds(created),
        "links": [link(url, "self"), link(url + "/refund", "refund", "POST")],
    }


def refund(refund_id: str, sale_id: str, amount: Money, total: Money, created: datetime) -> Json:
    """Return a refund. `total` is the sum of the sale's refunds. PayPal keeps its fee (user agreement since 2019)."""
    return {
        "id": refund_id,
        "state": "completed",
        "amount": v1(amount),
        "refund_reason_code": "REFUND",
        "refund_from_received_amount": v1(amount),
        "refund_from_transaction_fee": v1(Money(0, amount.currency)),
        "refund_to_payer": v1(amount),
        "total_refunded_amount": v1(total),
        "invoice_number": "",
        "sale_id": sale_id,
        "create_time": seconds(created),
        "update_time": seconds(created),
        "links": [
            link(f"{API}/v1/payments/refund/{refund_id}", "self"),
            link(f"{API}/v1/payments/sale/{sale_id}", "sale"),
        ],
    }


TRANSACTION_STATUS = {
    "completed": "COMPLETED",
    "pending": "PENDING",
    "denied": "DECLINED",
    "partially_refunded": "PARTIALLY_REFUNDED",
    "refunded": "REFUNDED",
}


def transaction(of: Json, subscription: Json) -> Json:
    """Return a sale as the list of a subscription's transactions shows it. A pending sale has no fee yet."""
    gross = parse_amount(of["amount"]["total"], of["amount"]["currency"])
    cost = of.get("transaction_fee")
    amounts = {"gross_amount": decimals(gross)}
    if cost and cost["currency"] == gross.currency:
        charged = parse_amount(cost["value"], cost["currency"])
        net = Money(gross.amount - charged.amount, gross.currency)
        amounts |= {"fee_amount": decimals(charged), "net_amount": decimals(net)}
    payer = subscription.get("subscriber", {})
    email = payer.get("email_address")
    return {
        "id": of["id"],
        "status": TRANSACTION_STATUS[of["state"]],
        **({"payer_email": email} if email else {}),
        **({"payer_name": payer["name"]} if "name" in payer else {}),
        "amount_with_breakdown": amounts,
        "time": of["create_time"].replace("Z", ".000Z"),
    }


def decimals(amount: Money) -> Json:
    """Return an amount as in lists and reports: `{"currency_code": "EUR", "value": "29.00"}`."""
    return {"currency_code": amount.currency, "value": format_amount(amount)}


def capture_refund(refund_id: str, capture: Json, amount: Money, total: Money, created: datetime, texts: Json) -> Json:
    """Return a refund of a capture (v2). `total` is the sum of the capture's refunds; `texts` are added as they are."""
    nothing = decimals(Money(0, amount.currency))
    custom = capture.get("custom_id")
    return {
        "id": refund_id,
        "status": "COMPLETED",
        "amount": decimals(amount),
        **({"custom_id": custom} if custom else {}),
        **texts,
        "seller_payable_breakdown": {
            "gross_amount": decimals(amount),
            "paypal_fee": nothing,
            "net_amount": decimals(amount),
            "total_refunded_amount": decimals(total),
        },
        "create_time": seconds(created),
        "update_time": seconds(created),
        "links": [
            link(f"{API}/v2/payments/refunds/{refund_id}", "self"),
            link(f"{API}/v2/payments/captures/{capture['id']}", "up"),
        ],
    }


def refunded_payment(refund: Json, field: str) -> str:
    """Return the id of the payment that a refund belongs to: `sale_id`, or `capture` from the link to it."""
    if field in refund:
        return str(refund[field])
    up = next((each["href"] for each in refund.get("links", []) if each["rel"] == "up"), "")
    return str(up).rpartition("/")[2]


def refunded_amount(refund: Json) -> int:
    """Return the amount of a refund in minor units; old refunds and reversals have a minus sign."""
    amount = refund["amount"]
    if "total" in amount:
        return parse_amount(amount["total"], amount["currency"]).amount
    return parse_amount(amount["value"], amount["currency_code"]).amount


def reversal(refund_id: str, amount: Money, created: datetime) -> Json:
    """Return a reversal: its amount is negative, and it does not name its sale."""
    return {
        "id": refund_id,
        "state": "completed",
        "amount": {**v1(-amount), "details": {"subtotal": format_amount(-amount)}},
        "create_time": seconds(created),
        "links": [link(f"{API}/v1/payments/refund/{refund_id}", "self")],
    }


def without_sale(resource: Json) -> Json:
    """Return the refund as if made in PayPal's dashboard: without `sale_id` and without the link to the sale."""
    links = [link for link in resource["links"] if link["rel"] != "sale"]
    return {**{key: value for key, value in resource.items() if key != "sale_id"}, "links": links}


def plan(of: Plan) -> Json:
    """Return a plan as the API shows it."""
    url = f"{API}/v1/billing/plans/{of.id}"
    free = [_billing_cycle("DAY", of.trial_days, "TRIAL", 1, 1, Money(0, of.price.currency), of.since)]
    trial = free if of.trial_days else []
    regular = _billing_cycle(of.unit, of.count, "REGULAR", len(trial) + 1, of.cycles, of.price, of.since)
    return {
        "id": of.id,
        "product_id": PRODUCT_ID,
        "name": of.name,
        "description": of.name,
        "status": "ACTIVE",
        "billing_cycles": [*trial, regular],
        "payment_preferences": {
            "auto_bill_outstanding": True,
            "setup_fee": v2(Money(0, of.price.currency)),
            "setup_fee_failure_action": "CANCEL",
            "payment_failure_threshold": of.failure_threshold,
        },
        "taxes": {"percentage": "0.0", "inclusive": True},
        "quantity_supported": of.quantity > 1,
        "create_time": seconds(of.since),
        "update_time": seconds(of.since),
        "links": [link(url, "self"), link(url, "edit", "PATCH"), link(url + "/deactivate", "deactivate", "POST")],
    }


def product(product_id: str = PRODUCT_ID, name: str = "SMT-CRM", since: datetime = PRODUCT_SINCE) -> Json:
    """Return a product of the catalogue as the API shows it."""
    url = f"{API}/v1/catalogs/products/{product_id}"
    return {
        "id": product_id,
        "name": name,
        "description": name,
        "type": "SERVICE",
        "category": "SOFTWARE",
        "create_time": seconds(since),
        "update_time": seconds(since),
        "links": [link(url, "self"), link(url, "edit", "PATCH")],
    }


def fee(amount: Money) -> Money:
    """Return PayPal's fee: 3.49 % and a fixed part, rounded half up."""
    fixed = 49 if digits(amount.currency) else 40
    return Money((amount.amount * 349 + 5000) // 10000 + fixed, amount.currency)


def v1(amount: Money) -> Json:
    """Return an amount in v1 format: `{"total": "29.00", "currency": "EUR"}`."""
    return {"total": format_amount(amount), "currency": amount.currency}


def v2(amount: Money) -> Json:
    """Return an amount in v2 format: `29.0`, `1.15`; without decimals for a currency that has none."""
    places = digits(amount.currency)
    text = str(Decimal(amount.amount).scaleb(-places).normalize().__format__("f"))
    return {"currency_code": amount.currency, "value": text if not places or "." in text else text + ".0"}


def seconds(moment: datetime) -> str:
    """Return a time as in a resource: `2026-03-01T10:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def millis(moment: datetime) -> str:
    """Return a time as in an event's `create_time`: `2026-03-01T10:00:00.123Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _cycle(tenure: str, sequence: int, completed: int, total: int) -> Json:
    return {
        "tenure_type": tenure,
        "sequence": sequence,
        "cycles_completed": completed,
        "cycles_remaining": max(total - completed, 0),
        "total_cycles": total,
    }


def _billing_cycle(
    unit: str, count: int, tenure: str, sequence: int, total: int, price: Money, since: datetime
) -> Json:
    return {
        "frequency": {"interval_unit": unit, "interval_count": count},
        "tenure_type": tenure,
        "sequence": sequence,
        "total_cycles": total,
        "pricing_scheme": {
            "fixed_price": v2(price),
            "version": 1,
            "create_time": seconds(since),
            "update_time": seconds(since),
        },
    }


def link(href: str, rel: str, method: str = "GET") -> Json:
    """Return a link of an answer."""
    return {"href": href, "rel": rel, "method": method}
