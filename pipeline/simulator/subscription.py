"""One subscription at PayPal. Each verb changes it and delivers the events PayPal would send.

What is true of PayPal here (docs: developer.paypal.com/docs/subscriptions/customize/payment-failure-retry/):
charges come minutes to hours after `next_billing_time`; a failed charge is tried again after five and ten days; the
unpaid amount goes to the outstanding balance and is collected with the next cycle, one sale for two cycles; when as
many cycles as the plan's threshold stay unpaid, the subscription is suspended. A renewal sends a sale and no
subscription event, so only the API tells the new `next_billing_time`.
"""

from datetime import datetime, timedelta
from random import Random
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import Plan
from pipeline.simulator.sale import InvalidTransitionError, Sale, Way
from pipeline.simulator.timeline import ApiObject, Delivery, Json

Status = Literal["APPROVAL_PENDING", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]
Return = Literal["RE-ACTIVATED", "ACTIVATED"]

RETRY_EVERY = timedelta(days=5)
ATTEMPTS = 3  # the charge itself and two more


class SimulatedSubscription:
    """A subscription of one person to one plan. `deliveries` grows with every verb; `now` is the last thing's time."""

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

    # What can happen -------------------------------------------------------------------------------------------------

    def start(self, way: Way = "instant", *, lagging: bool = False) -> None:
        """CREATED, ACTIVATED and, without a trial, the first sale.

        `lagging`: ACTIVATED still calls today the next billing time, as PayPal does for free trials; no event corrects
        it.
        """
        self._say("CREATED", self.created)
        at = self.created + timedelta(seconds=self.rng.randint(40, 240))
        self._turn("ACTIVE", at)
        sale = None if self.plan.trial_days else self._collect(at, way)
        today = shapes.seconds(at.replace(hour=10, minute=0, second=0)) if lagging else ""
        self._say("ACTIVATED", at, next_billing=today)
        if sale:
            self._tell(sale, at)

    def renew(self, way: Way = "instant") -> Sale:
        """The next cycle's charge, with the outstanding balance if any. The last cycle ends the subscription."""
        at = self._due() + timedelta(seconds=self.rng.randint(300, 10_800))
        sale = self._collect(at, way)
        self._tell(sale, at)
        self._end_after(at)
        return sale

    def fail_payment(self, attempts: int = ATTEMPTS) -> None:
        """The next cycle's charge fails so many times. After the last try PayPal counts, and may suspend."""
        due = self._due()
        self.balance += self._price()
        self.next_cycle, self.unpaid, self.failures = self.next_cycle + 1, self.unpaid + 1, self.failures + 1
        for attempt in range(attempts):
            at = due + attempt * RETRY_EVERY + timedelta(seconds=self.rng.randint(300, 3_600))
            retry = due + (attempt + 1) * RETRY_EVERY if attempt + 1 < ATTEMPTS else None
            self._fail(at, retry)
        if attempts == ATTEMPTS and self.failures >= self.plan.failure_threshold:
            self.suspend(self.now + timedelta(seconds=30))

    def pay_balance(self, at: datetime) -> Sale:
        """The outstanding balance is collected: a retry that succeeds, or the vendor's capture."""
        if not self.balance:
            raise InvalidTransitionError("there is no outstanding balance")
        sale = self._charge(at, self.balance, self.unpaid, "instant")
        self._tell(sale, at)
        self._end_after(at)
        return sale

    def suspend(self, at: datetime, note: str = "") -> None:
        self._allow("ACTIVE")
        self._turn("SUSPENDED", at, note)
        self._say("SUSPENDED", at)

    def reactivate(self, at: datetime, kind: Return = "RE-ACTIVATED") -> None:
        """Back to ACTIVE; cycles that fell due meanwhile are not charged. PayPal may name the event either way."""
        self._allow("SUSPENDED")
        while self.plan.due(self.anchor, self.next_cycle) <= at:
            self.next_cycle += 1
        self.failures = 0
        self._turn("ACTIVE", at, "Reactivating the subscription")
        self._say(kind, at)

    def cancel(self, at: datetime, note: str = "No longer needed") -> None:
        """Final at once: no further charge, and no `next_billing_time` in the event."""
        self._allow("ACTIVE", "SUSPENDED")
        self._turn("CANCELLED", at, note)
        self._say("CANCELLED", at)

    def revise(self, at: datetime, quantity: int) -> None:
        """Another number of units from the next charge on."""
        self._allow("ACTIVE")
        self.quantity, self.updated = quantity, at
        self._say("UPDATED", at)

    def release(self, sale: Sale, at: datetime) -> None:
        """A held sale is released: COMPLETED once more, same sale, another event."""
        sale.release(at)
        self._sale_event("COMPLETED", sale, at)

    def clear(self, sale: Sale, at: datetime) -> None:
        """A pending eCheck is paid."""
        sale.clear(at)
        self._sale_event("COMPLETED", sale, at)

    def bounce(self, sale: Sale, at: datetime) -> None:
        """A pending eCheck is refused: its cycles are unpaid again."""
        self.balance += sale.amount.amount
        self.completed, self.unpaid = self.completed - sale.cycles, self.unpaid + sale.cycles
        self.updated = at
        sale.deny(at)
        self._sale_event("DENIED", sale, at)

    def refund(
        self, sale: Sale, at: datetime, amount: int | None = None, *, tell_sale: bool = True, negative: bool = False
    ) -> str:
        """Give back `amount` minor units, or what is left. The id of the refund.

        `tell_sale` False is a refund from the dashboard, which does not say of which sale; `negative` writes the amount
        with a minus sign, as PayPal did until 2017.
        """
        given = Money(sale.rest if amount is None else amount, sale.amount.currency)
        name, shown = self._give_back(sale, given, at)
        event = shown if tell_sale else shapes.without_sale(shown)
        if negative:
            event = {**event, "amount": shapes.v1(-given)}
        self._deliver("PAYMENT.SALE.REFUNDED", at, event, given, sale, shown)
        return name

    def reverse(self, sale: Sale, at: datetime) -> str:
        """PayPal takes the money back (a chargeback). The id of the reversal."""
        taken = Money(sale.rest, sale.amount.currency)
        name, shown = self._give_back(sale, taken, at)
        shown["refund_reason_code"] = "CHARGEBACK"
        self._deliver("PAYMENT.SALE.REVERSED", at, shapes.reversal(name, taken, at), taken, sale, shown)
        return name

    # What can be asked -----------------------------------------------------------------------------------------------

    @property
    def next_billing(self) -> datetime | None:
        """When the next charge is due; None when there will be none, or none while suspended."""
        if self.status != "ACTIVE" or (self.plan.cycles and self.next_cycle >= self.plan.cycles):
            return None
        return self.plan.due(self.anchor, self.next_cycle)

    def moment_within(self, days: float) -> datetime:
        """Some moment in the next days, after all that happened and before the next charge."""
        end = self.now + timedelta(days=days)
        if self.next_billing is not None:
            end = min(end, self.next_billing)
        moment = self.now + max(end - self.now, timedelta(0)) * self.rng.uniform(0.1, 0.9) + timedelta(seconds=2)
        return moment.replace(microsecond=0)

    def snapshot(self, *, failed: bool = False, next_billing: str = "") -> Json:
        """The subscription as PayPal shows it now. CREATED has neither subscriber nor billing_info."""
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

    # How it works ----------------------------------------------------------------------------------------------------

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

    def _allow(self, *statuses: Status) -> None:
        if self.status not in statuses:
            raise InvalidTransitionError(f"the subscription is {self.status}, not {' or '.join(statuses)}")

    def _due(self) -> datetime:
        if self.next_billing is None:
            raise InvalidTransitionError(f"no charge is due: the subscription is {self.status}")
        return self.next_billing

    def _price(self) -> int:
        return self.plan.price.amount * self.quantity

    def _money(self, amount: int) -> Money:
        return Money(amount, self.plan.price.currency)

    def _turn(self, status: Status, at: datetime, note: str = "") -> None:
        self.status, self.status_at, self.updated, self.note = status, at, at, note

    def _collect(self, at: datetime, way: Way) -> Sale:
        """Charge the next cycle together with what is outstanding."""
        self.next_cycle += 1
        return self._charge(at, self.balance + self._price(), self.unpaid + 1, way)

    def _charge(self, at: datetime, amount: int, cycles: int, way: Way) -> Sale:
        name, money = ids.payment(self.rng), self._money(amount)
        sale = self.sales[name] = Sale(shapes.sale(name, self.id, self.person.custom_id, money, at), money, cycles)
        if way == "held":
            sale.hold()
        if way == "echeck":
            sale.await_clearing(at)
        self.completed += cycles
        self.balance = self.unpaid = self.failures = 0
        self.last_payment = {"amount": shapes.v2(money), "time": shapes.seconds(at)}
        self.updated = at
        return sale

    def _tell(self, sale: Sale, at: datetime) -> None:
        """The events of a new sale. A held one is PENDING though its `state` says completed, and soon COMPLETED."""
        if sale.held or not sale.settled:
            self._sale_event("PENDING", sale, at)
        if sale.settled:
            self._sale_event("COMPLETED", sale, at + timedelta(seconds=45) if sale.held else at)

    def _end_after(self, at: datetime) -> None:
        """A plan with an end expires seconds after its last charge."""
        if self.status == "ACTIVE" and self.plan.cycles and self.completed >= self.plan.cycles:
            self._turn("EXPIRED", at + timedelta(seconds=10))
            self._say("EXPIRED", self.status_at)

    def _fail(self, at: datetime, retry: datetime | None) -> None:
        self.updated = at
        self.last_failed = {
            "amount": shapes.v2(self._money(self.balance)),
            "time": shapes.seconds(at),
            "reason_code": "PAYMENT_DENIED",
            **({"next_payment_retry_time": shapes.seconds(retry)} if retry else {}),
        }
        self._say("PAYMENT.FAILED", at)

    def _give_back(self, sale: Sale, amount: Money, at: datetime) -> tuple[str, Json]:
        """Book a refund on its sale: the refund's id, and how the API shows it."""
        sale.give_back(amount, at)
        name = ids.payment(self.rng)
        return name, shapes.refund(name, sale.resource["id"], amount, self._money(sale.refunded), at)

    def _say(self, kind: str, at: datetime, *, next_billing: str = "") -> None:
        resource = self.snapshot(failed=kind == "PAYMENT.FAILED", next_billing=next_billing)
        self._deliver(f"BILLING.SUBSCRIPTION.{kind}", at, resource, self._money(0))

    def _sale_event(self, kind: str, sale: Sale, at: datetime) -> None:
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
        """Send the event some seconds after it happened, with what the API shows from now on."""
        self._version += 1
        written = at + timedelta(milliseconds=self.rng.randint(3_000, 40_000))
        of: shapes.ResourceType = "refund" if refund else "sale" if sale else "subscription"
        event = shapes.envelope(ids.event(self.rng), kind, written, of, resource, amount)
        kept = [ApiObject("subscription", self._version, self.snapshot(failed=True))]
        kept += [ApiObject("sale", self._version, sale.resource)] if sale else []
        kept += [ApiObject("refund", self._version, refund)] if refund else []
        arrives = written + timedelta(milliseconds=self.rng.randint(300, 4_000))
        self.deliveries.append(Delivery(arrives, event, tuple(kept)))
        self.now = max(self.now, arrives)
