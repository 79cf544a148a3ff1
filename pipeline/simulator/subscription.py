"""One simulated subscription at PayPal. Each method changes it and adds the events that PayPal would send.

It follows PayPal's rules (developer.paypal.com/docs/subscriptions/customize/payment-failure-retry/):

- A charge happens minutes to hours after `next_billing_time`. A failed charge is repeated after five and ten days.
- An unpaid amount is added to the outstanding balance. The next cycle's sale collects it, so one sale pays two cycles.
- The subscription is suspended when the number of unpaid cycles reaches the plan's threshold.
- A renewal sends a sale event but no subscription event, so only the API shows the new `next_billing_time`.
"""

from datetime import datetime, timedelta
from random import Random
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import Plan
from pipeline.simulator.sale import InvalidTransitionError, PaymentMode, Sale
from pipeline.simulator.timeline import ApiObject, Delivery, Json

Status = Literal["APPROVAL_PENDING", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]
ReactivationType = Literal["RE-ACTIVATED", "ACTIVATED"]

RETRY_EVERY = timedelta(days=5)
ATTEMPTS = 3  # the first charge and two retries


class SimulatedSubscription:
    """One person's subscription to one plan. Methods append to `deliveries`; `now` is the time of the last change."""

    def __init__(self, person: SimulatedCustomer, plan: Plan, start: datetime, rng: Random) -> None:
        self.person, self.plan, self.rng = person, plan, rng
        self.id = ids.subscription(rng)
        self.quantity = plan.quantity
        self.status: Status = "APPROVAL_PENDING"
        self.created = self.updated = self.status_at = self.now = start.replace(microsecond=0)
        self.anchor = plan.first_due(self.created)
        self.note = ""
        self.next_cycle = self.completed = self.unpaid = self.failures = self.balance = 0
        self.last_payment: Json | None = None
        self.last_failed: Json | None = None
        self.sales: dict[str, Sale] = {}
        self.deliveries: list[Delivery] = []
        self._version = 0

    # Changes ---------------------------------------------------------------------------------------------------------

    def start(self, mode: PaymentMode = "instant", *, lagging: bool = False, at: datetime | None = None) -> None:
        """Create and activate the subscription and, without a trial, make the first sale.

        `at` is the time of the buyer's approval; default: minutes after the creation.

        With `lagging`, ACTIVATED gives today as the next billing time, as PayPal does for free trials. No later event
        corrects it.
        """
        self._add_event("CREATED", self.created)
        at = (at or self.created + timedelta(seconds=self.rng.randint(40, 240))).replace(microsecond=0)
        self._set_status("ACTIVE", at)
        sale = None if self.plan.trial_days else self._collect(at, mode)
        today = shapes.seconds(at.replace(hour=10, minute=0, second=0)) if lagging else ""
        self._add_event("ACTIVATED", at, next_billing=today)
        if sale:
            self._add_sale_events(sale, at)

    def renew(self, mode: PaymentMode = "instant") -> Sale:
        """Charge the next cycle together with the outstanding balance. The last cycle ends the subscription."""
        at = self._next_charge() + timedelta(seconds=self.rng.randint(300, 10_800))
        sale = self._collect(at, mode)
        self._add_sale_events(sale, at)
        self._end_after(at)
        return sale

    def fail_payment(self, attempts: int = ATTEMPTS) -> None:
        """Let the next cycle's charge fail `attempts` times. After ATTEMPTS failures PayPal may suspend."""
        due = self._next_charge()
        self.balance += self._price()
        self.next_cycle, self.unpaid, self.failures = self.next_cycle + 1, self.unpaid + 1, self.failures + 1
        for attempt in range(attempts):
            at = due + attempt * RETRY_EVERY + timedelta(seconds=self.rng.randint(300, 3_600))
            retry = due + (attempt + 1) * RETRY_EVERY if attempt + 1 < ATTEMPTS else None
            self._fail(at, retry)
        if attempts == ATTEMPTS and self.failures >= self.plan.failure_threshold:
            self.suspend(self.now + timedelta(seconds=30))

    def pay_balance(self, at: datetime) -> Sale:
        """Collect the outstanding balance, by a successful retry or by the vendor's capture."""
        if not self.balance:
            raise InvalidTransitionError("there is no outstanding balance")
        sale = self._charge(at, self.balance, self.unpaid, "instant")
        self._add_sale_events(sale, at)
        self._end_after(at)
        return sale

    def suspend(self, at: datetime, note: str = "") -> None:
        """Suspend the active subscription."""
        self._require_status("ACTIVE")
        self._set_status("SUSPENDED", at, note)
        self._add_event("SUSPENDED", at)

    def reactivate(self, at: datetime, kind: ReactivationType = "RE-ACTIVATED") -> None:
        """Reactivate the subscription. Cycles that fell due while it was suspended are not charged.

        `kind` is the event type; PayPal may send either.
        """
        self._require_status("SUSPENDED")
        while self.plan.due(self.anchor, self.next_cycle) <= at:
            self.next_cycle += 1
        self.failures = 0
        self._set_status("ACTIVE", at, "Reactivating the subscription")
        self._add_event(kind, at)

    def cancel(self, at: datetime, note: str = "No longer needed") -> None:
        """Cancel the subscription at once, for good. The event has no `next_billing_time`."""
        self._require_status("ACTIVE", "SUSPENDED")
        self._set_status("CANCELLED", at, note)
        self._add_event("CANCELLED", at)

    def revise(self, at: datetime, quantity: int) -> None:
        """Change the quantity from the next charge on."""
        self._require_status("ACTIVE")
        self.quantity, self.updated = quantity, at
        self._add_event("UPDATED", at)

    def release(self, sale: Sale, at: datetime) -> None:
        """Release a held sale. PayPal sends a second COMPLETED event for the same sale."""
        sale.release(at)
        self._add_sale_event("COMPLETED", sale, at)

    def clear(self, sale: Sale, at: datetime) -> None:
        """Let the bank pay a pending eCheck."""
        sale.clear(at)
        self._add_sale_event("COMPLETED", sale, at)

    def bounce(self, sale: Sale, at: datetime) -> None:
        """Let the bank refuse a pending eCheck. Its cycles are unpaid again."""
        self.balance += sale.amount.amount
        self.completed, self.unpaid = self.completed - sale.cycles, self.unpaid + sale.cycles
        self.updated = at
        sale.deny(at)
        self._add_sale_event("DENIED", sale, at)

    def refund(
        self, sale: Sale, at: datetime, amount: int | None = None, *, name_sale: bool = True, negative: bool = False
    ) -> str:
        """Refund `amount` minor units, or the rest of the sale. Return the refund's id.

        Without `name_sale`, the event does not name the sale, like a refund from PayPal's dashboard. With `negative`, the
        amount has a minus sign, as PayPal sent it until 2017.
        """
        money = Money(sale.rest if amount is None else amount, sale.amount.currency)
        name, shown = self._refund_sale(sale, money, at)
        event = shown if name_sale else shapes.without_sale(shown)
        if negative:
            event = {**event, "amount": shapes.v1(-money)}
        self._deliver("PAYMENT.SALE.REFUNDED", at, event, money, sale, shown)
        return name

    def reverse(self, sale: Sale, at: datetime) -> str:
        """Reverse the rest of a sale, as in a chargeback. Return the reversal's id."""
        money = Money(sale.rest, sale.amount.currency)
        name, shown = self._refund_sale(sale, money, at)
        shown["refund_reason_code"] = "CHARGEBACK"
        self._deliver("PAYMENT.SALE.REVERSED", at, shapes.reversal(name, money, at), money, sale, shown)
        return name

    # State -----------------------------------------------------------------------------------------------------------

    @property
    def next_billing(self) -> datetime | None:
        """The time of the next charge; None if the subscription is suspended or has no further charge."""
        if self.status != "ACTIVE" or (self.plan.cycles and self.next_cycle >= self.plan.cycles):
            return None
        return self.plan.due(self.anchor, self.next_cycle)

    def moment_within(self, days: float) -> datetime:
        """Return a random time within `days`, after the last change and before the next charge."""
        end = self.now + timedelta(days=days)
        if self.next_billing is not None:
            end = min(end, self.next_billing)
        moment = self.now + max(end - self.now, timedelta(0)) * self.rng.uniform(0.1, 0.9) + timedelta(seconds=2)
        return moment.replace(microsecond=0)

    def snapshot(self, *, failed: bool = False, next_billing: str = "") -> Json:
        """Return the subscription in PayPal's JSON format. Before activation it has no subscriber and no billing_info."""
        begun = self.status != "APPROVAL_PENDING"
        return {
            "id": self.id,
            "plan_id": self.plan.id,
            "start_time": shapes.seconds(self.created),
            "quantity": str(self.quantity),
            **({"subscriber": shapes.subscriber(self.person)} if begun else {}),
            **({"billing_info": self._billing_info(failed, next_billing)} if begun else {}),
            "create_time": shapes.seconds(self.created),
            **({"update_time": shapes.seconds(self.updated)} if begun else {}),
            "links": shapes.subscription_links(self.id, self.status),
            "status": self.status,
            "status_update_time": shapes.seconds(self.status_at),
            "custom_id": self.person.custom_id,
            "plan_overridden": False,
            **({"status_change_note": self.note} if self.note else {}),
        }

    # Internal --------------------------------------------------------------------------------------------------------

    def _billing_info(self, failed: bool, next_billing: str) -> Json:
        following = next_billing or (shapes.seconds(self.next_billing) if self.next_billing else "")
        return {
            "outstanding_balance": shapes.v2(self._money(self.balance)),
            "cycle_executions": shapes.cycle_executions(self.plan, self.completed, begun=True),
            **({"last_payment": self.last_payment} if self.last_payment else {}),
            **({"next_billing_time": following} if following else {}),
            "failed_payments_count": self.failures,
            **({"last_failed_payment": self.last_failed} if failed and self.last_failed else {}),
        }

    def _require_status(self, *statuses: Status) -> None:
        if self.status not in statuses:
            raise InvalidTransitionError(f"the subscription is {self.status}, not {' or '.join(statuses)}")

    def _next_charge(self) -> datetime:
        if self.next_billing is None:
            raise InvalidTransitionError(f"no charge is due: the subscription is {self.status}")
        return self.next_billing

    def _price(self) -> int:
        return self.plan.price.amount * self.quantity

    def _money(self, amount: int) -> Money:
        return Money(amount, self.plan.price.currency)

    def _set_status(self, status: Status, at: datetime, note: str = "") -> None:
        self.status, self.status_at, self.updated, self.note = status, at, at, note

    def _collect(self, at: datetime, mode: PaymentMode) -> Sale:
        """Charge the next cycle together with the outstanding balance."""
        self.next_cycle += 1
        return self._charge(at, self.balance + self._price(), self.unpaid + 1, mode)

    def _charge(self, at: datetime, amount: int, cycles: int, mode: PaymentMode) -> Sale:
        name, money = ids.payment(self.rng), self._money(amount)
        sale = self.sales[name] = Sale(shapes.sale(name, self.id, self.person.custom_id, money, at), money, cycles)
        if mode == "held":
            sale.hold()
        if mode == "echeck":
            sale.await_clearing(at)
        self.completed += cycles
        self.balance = self.unpaid = self.failures = 0
        self.last_payment = {"amount": shapes.v2(money), "time": shapes.seconds(at)}
        self.updated = at
        return sale

    def _add_sale_events(self, sale: Sale, at: datetime) -> None:
        """Add the events of a new sale. A held sale has `state` completed, and sends PENDING and soon COMPLETED."""
        if sale.held or not sale.settled:
            self._add_sale_event("PENDING", sale, at)
        if sale.settled:
            self._add_sale_event("COMPLETED", sale, at + timedelta(seconds=45) if sale.held else at)

    def _end_after(self, at: datetime) -> None:
        """Expire a subscription with a fixed number of cycles, seconds after its last charge."""
        if self.status == "ACTIVE" and self.plan.cycles and self.completed >= self.plan.cycles:
            self._set_status("EXPIRED", at + timedelta(seconds=10))
            self._add_event("EXPIRED", self.status_at)

    def _fail(self, at: datetime, retry: datetime | None) -> None:
        self.updated = at
        self.last_failed = {
            "amount": shapes.v2(self._money(self.balance)),
            "time": shapes.seconds(at),
            "reason_code": "PAYMENT_DENIED",
            **({"next_payment_retry_time": shapes.seconds(retry)} if retry else {}),
        }
        self._add_event("PAYMENT.FAILED", at)

    def _refund_sale(self, sale: Sale, amount: Money, at: datetime) -> tuple[str, Json]:
        """Refund the sale. Return the refund's id and its JSON as the API shows it."""
        sale.refund(amount, at)
        name = ids.payment(self.rng)
        return name, shapes.refund(name, sale.resource["id"], amount, self._money(sale.refunded), at)

    def _add_event(self, kind: str, at: datetime, *, next_billing: str = "") -> None:
        resource = self.snapshot(failed=kind == "PAYMENT.FAILED", next_billing=next_billing)
        self._deliver(f"BILLING.SUBSCRIPTION.{kind}", at, resource, self._money(0))

    def _add_sale_event(self, kind: str, sale: Sale, at: datetime) -> None:
        self._deliver(f"PAYMENT.SALE.{kind}", at, sale.resource, sale.amount, sale)

    def _deliver(
        self,
        kind: str,
        at: datetime,
        resource: Json,
        amount: Money,
        sale: Sale | None = None,
        refund: Json | None = None,
    ) -> None:
        """Add a delivery some seconds after the change, with the API objects that result from it."""
        self._version += 1
        created = at + timedelta(milliseconds=self.rng.randint(3_000, 40_000))
        of: shapes.ResourceType = "refund" if refund else "sale" if sale else "subscription"
        event = shapes.envelope(ids.event(self.rng), kind, created, of, resource, amount)
        kept = [ApiObject("subscription", self._version, self.snapshot(failed=True))]
        kept += [ApiObject("sale", self._version, sale.resource)] if sale else []
        kept += [ApiObject("refund", self._version, refund)] if refund else []
        arrives = created + timedelta(milliseconds=self.rng.randint(300, 4_000))
        self.deliveries.append(Delivery(arrives, event, tuple(kept)))
        self.now = max(self.now, arrives)
