"""Events of the vendor's PayPal account beside subscriptions: plans, products, invoices, saved cards, limitations."""

from dataclasses import replace
from datetime import datetime
from random import Random
from typing import Literal

from pipeline.money import Money, format_amount
from pipeline.simulator import shapes
from pipeline.simulator.event_source import EventSource
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import Plan
from pipeline.simulator.timeline import Json

PlanChange = Literal["CREATED", "UPDATED", "ACTIVATED", "DEACTIVATED", "PRICING-CHANGE.ACTIVATED"]
InvoiceStatus = Literal["SENT", "PAID", "REFUNDED", "CANCELLED"]
_INVOICE_EVENTS = {"SENT": "CREATED", "PAID": "PAID", "REFUNDED": "REFUNDED", "CANCELLED": "CANCELLED"}
_NOTHING = Money(0, "USD")


class VendorAccount(EventSource):
    """The vendor's account. Each method adds one event."""

    def __init__(self, start: datetime, rng: Random) -> None:
        super().__init__(rng, start)

    def change_plan(self, plan: Plan, change: PlanChange, at: datetime) -> None:
        """Add a change of a plan. `plan` has the terms after it."""
        shown = {**shapes.plan(plan), "update_time": shapes.seconds(at)}
        shown["status"] = "INACTIVE" if change == "DEACTIVATED" else "ACTIVE"
        self.emit(f"BILLING.PLAN.{change}", at, "plan", shown, plan.price, [("plan", shown)])

    def change_price(self, plan: Plan, price: Money, at: datetime) -> Plan:
        """Give a plan a new price (update-pricing-schemes). Return the plan with the new price.

        Pass the returned plan to `SimulatedSubscription.change_price` of each subscriber.
        """
        changed = replace(plan, price=price, tiers=(), version=plan.version + 1, priced_at=at)
        self.change_plan(changed, "PRICING-CHANGE.ACTIVATED", at)
        return changed

    def change_product(self, change: Literal["CREATED", "UPDATED"], at: datetime) -> None:
        """Add a change of the product."""
        shown = {**shapes.product(), "update_time": shapes.seconds(at)}
        self.emit(f"CATALOG.PRODUCT.{change}", at, "product", shown, _NOTHING, [("product", shown)])

    def invoice(
        self, person: SimulatedCustomer, amount: Money, status: InvoiceStatus, at: datetime, *, number: int = 1
    ) -> None:
        """Add an event of the invoice `number`, which PayPal (not the vendor's pipeline) issues."""
        shown = _invoice(person, amount, status, at, number)
        self.emit(f"INVOICING.INVOICE.{_INVOICE_EVENTS[status]}", at, "invoices", shown, amount, [])

    def vault(
        self, person: SimulatedCustomer, change: Literal["CREATED", "DELETED", "DELETION-INITIATED"], at: datetime
    ) -> None:
        """Add an event of a saved card."""
        token = person.payer_id[:8].lower()
        url = f"{shapes.API}/v3/vault/payment-tokens/{token}"
        shown: Json = {"id": token, "customer": {"id": f"customer_{person.payer_id}"}}
        if change == "CREATED":
            name = f"{person.given_name} {person.surname}"
            card = {"last_digits": "1111", "expiry": "2031-02", "brand": "VISA", "name": name}
            shown["payment_source"] = {"card": card}
            shown["links"] = [shapes.link(url, "self"), shapes.link(url, "delete", "DELETE")]
        self.emit(f"VAULT.PAYMENT-TOKEN.{change}", at, "payment_token", shown, _NOTHING, [])

    def limit(self, change: Literal["ADDED", "ESCALATED", "UPDATED", "LIFTED"], at: datetime) -> None:
        """Add a limitation of the vendor's account. No recorded sample exists: the format is an assumption."""
        shown = {"limitation_id": "LIM-1", "status": change, "create_time": shapes.seconds(at)}
        self.emit(f"CUSTOMER.ACCOUNT-LIMITATION.{change}", at, "account-limitation", shown, _NOTHING, [])


def _invoice(person: SimulatedCustomer, amount: Money, status: str, at: datetime, number: int) -> Json:
    value, name = {"currency": amount.currency, "value": format_amount(amount)}, f"INV2-8FSD-3HT6-BRHR-{number:04}"
    day = f"{at:%Y-%m-%d} PDT"
    paid = status in ("PAID", "REFUNDED")
    payment = {"type": "PAYPAL", "transaction_id": f"2259212{number:04}V90711U"[:17], "transaction_type": "SALE"}
    return {
        "id": name,
        "number": f"SMT{number:05}",
        "status": status,
        "merchant_info": {"email": "vendor@example.com", "business_name": "SMT"},
        "billing_info": [{"email": person.email, "business_name": person.company, "language": "en_US"}],
        "items": [{"name": "SMT-CRM", "quantity": 1, "unit_price": value, "unit_of_measure": "QUANTITY"}],
        "invoice_date": day,
        "payment_term": {"term_type": "DUE_ON_RECEIPT", "due_date": day},
        "tax_calculated_after_discount": True,
        "tax_inclusive": False,
        "total_amount": value,
        **({"payments": [{**payment, "method": "PAYPAL", "date": f"{at:%Y-%m-%d %H:%M:%S} PDT"}]} if paid else {}),
        "metadata": {"created_date": f"{at:%Y-%m-%d %H:%M:%S} PDT"},
        **({"paid_amount": {"paypal": value}} if paid else {}),
        "links": [shapes.link(f"{shapes.API}/v1/invoicing/invoices/{name}", "self")],
    }
