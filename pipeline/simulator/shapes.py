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
from pipeline.simulator.summaries import SIGNS, SUMMARIES
from pipeline.simulator.timeline import Json

API = "https://api.sandbox.paypal.com"

ResourceType = Literal[
    "subscription",
    "sale",
    "refund",
    "plan",
    "product",
    "capture",
    "checkout-order",
    "dispute",
    "invoices",
    "payment_token",
    "account-limitation",
]
RefundKind = Literal["refund", "capture_refund"]

_VERSIONS: dict[str, str] = {
    "subscription": "2.0",
    "plan": "2.0",
    "product": "1.0",
    "capture": "2.0",
    "checkout-order": "2.0",
    "payment_token": "3.0",
    "CUSTOMER.DISPUTE.UPDATED": "1.0",  # CREATED and RESOLVED have none in the recorded events
}


def envelope(event_id: str, kind: str, created: datetime, of: ResourceType, resource: Json, amount: Money) -> Json:
    """Return an event with its resource. As at PayPal, events of sales and refunds have no `resource_version`."""
    summary = SUMMARIES.get(kind, kind.replace(".", " ").capitalize()).format(
        sign=SIGNS.get(amount.currency, amount.currency),
        value=v2(amount)["value"],
        currency=amount.currency,
        case=resource.get("dispute_id"),
    )
    v2_refund = of == "refund" and kind.startswith(("PAYMENT.CAPTURE.", "PAYMENT.REFUND."))
    version = "2.0" if v2_refund else _VERSIONS.get(kind, _VERSIONS.get(of))
    url = f"{API}/v1/notifications/webhooks-events/{event_id}"
    return {
        "id": event_id,
        "event_version": "1.0",
        "create_time": millis(created),
        "resource_type": of,
        **({"resource_version": version} if version else {}),
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


def cycle_executions(plan: Plan, regular: int, trial: int) -> list[Json]:
    """Return the completed cycles: `trial` and `regular`. `total_cycles` 0 means no end, with 0 `cycles_remaining`."""
    found = []
    for sequence, step in enumerate(plan.trial_steps, start=1):
        done = min(trial, step.cycles)
        found.append(_cycle("TRIAL", sequence, done, step.cycles))
        trial -= done
    return [*found, _cycle("REGULAR", len(found) + 1, regular, plan.cycles)]


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


def sale(
    sale_id: str, subscription: str, custom: str, amount: Money, created: datetime, *, tax: int = 0, shipping: int = 0
) -> Json:
    """Return a completed sale of a subscription; it has no parent payment. `tax` and `shipping` are in its amount."""
    details = {"subtotal": format_amount(Money(amount.amount - tax - shipping, amount.currency))}
    details |= {"tax": format_amount(Money(tax, amount.currency))} if tax else {}
    details |= {"shipping": format_amount(Money(shipping, amount.currency))} if shipping else {}
    url = f"{API}/v1/payments/sale/{sale_id}"
    return {
        "id": sale_id,
        "state": "completed",
        "amount": {**v1(amount), "details": details},
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


def refund(
    refund_id: str, sale_id: str, amount: Money, total: Money, created: datetime, *, returned_fee: int = 0
) -> Json:
    """Return a refund. `total` is the sum of the sale's refunds.

    `returned_fee` is the part of PayPal's fee that it returns: usually none (user agreement since 2019).
    """
    from_received = Money(amount.amount - returned_fee, amount.currency)
    return {
        "id": refund_id,
        "state": "completed",
        "amount": v1(amount),
        "refund_reason_code": "REFUND",
        "refund_from_received_amount": v1(from_received),
        "refund_from_transaction_fee": v1(Money(returned_fee, amount.currency)),
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
    trials = [
        _billing_cycle(step.unit, step.count, "TRIAL", number, step.cycles, _pricing(of, step.price))
        for number, step in enumerate(of.trial_steps, start=1)
    ]
    regular = _billing_cycle(of.unit, of.count, "REGULAR", len(trials) + 1, of.cycles, _pricing(of))
    return {
        "id": of.id,
        "product_id": PRODUCT_ID,
        "name": of.name,
        "description": of.name,
        "status": "ACTIVE",
        "billing_cycles": [*trials, regular],
        "payment_preferences": {
            "auto_bill_outstanding": of.auto_bill_outstanding,
            "setup_fee": v2(Money(of.setup_fee, of.currency)),
            "setup_fee_failure_action": of.setup_fee_failure,
            "payment_failure_threshold": of.failure_threshold,
        },
        "taxes": {"percentage": of.tax_percent, "inclusive": of.tax_inclusive},
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


def _billing_cycle(unit: str, count: int, tenure: str, sequence: int, total: int, pricing: Json) -> Json:
    return {
        "frequency": {"interval_unit": unit, "interval_count": count},
        "tenure_type": tenure,
        "sequence": sequence,
        "total_cycles": total,
        "pricing_scheme": pricing,
    }


def _pricing(of: Plan, trial: int | None = None) -> Json:
    """Return the pricing scheme of a trial step with the price `trial`, or of the regular cycles."""
    times = {"create_time": seconds(of.since), "update_time": seconds(of.since)}
    if trial is not None:
        return {"fixed_price": v2(Money(trial, of.currency)), "version": 1, **times}
    times["update_time"] = seconds(of.priced_at or of.since)
    if not of.tiers:
        return {"fixed_price": v2(of.price), "version": of.version, **times}
    tiers = [
        {
            "starting_quantity": str(tier.first),
            **({"ending_quantity": str(tier.last)} if tier.last else {}),
            "amount": v2(Money(tier.price, of.currency)),
        }
        for tier in of.tiers
    ]
    return {"pricing_model": of.tier_model, "tiers": tiers, "version": of.version, **times}


def link(href: str, rel: str, method: str = "GET") -> Json:
    """Return a link of an answer."""
    return {"href": href, "rel": rel, "method": method}
