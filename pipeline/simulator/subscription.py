"""One simulated subscription at PayPal. Each method changes it and adds the events that PayPal would send.

It follows PayPal's rules (developer.paypal.com/docs/subscriptions/customize/payment-failure-retry/):

- A charge happens minutes to hours after `next_billing_time`. A failed charge is repeated after five and ten days.
- An unpaid amount is added to the outstanding balance. The next cycle's sale collects it, so one sale pays two cycles.
- The subscription is suspended when the number of unpaid cycles reaches the plan's threshold.
- A renewal sends a sale event but no subscription event, so only the API shows the new `next_billing_time`.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import ids, shapes
from pipeline.simulator.cycles import CycleSchedule
from pipeline.simulator.event_source import EventSource
from pipeline.simulator.people import SimulatedCustomer
from pipeline.simulator.plans import PLANS, Plan
from pipeline.simulator.pricing import Charge, Outstanding
from pipeline.simulator.sale import Dispute, InvalidTransitionError, PaymentMode, Sale, Settlement
from pipeline.simulator.timeline import Json, Kind

Status = Literal["APPROVAL_PENDING", "ACTIVE", "SUSPENDED", "CANCELLED", "EXPIRED"]
ReactivationType = Literal["RE-ACTIVATED", "ACTIVATED"]

RETRY_EVERY = timedelta(days=5)
ATTEMPTS = 3  # the first charge and two retries


class SimulatedSubscription(CycleSchedule, EventSource):
    """One person's subscription to one plan. Methods append to `deliveries`; `now` is the time of the last change.

    `begins` is a later start time chosen by the vendor. `settlement` is the vendor's account currency, if it differs from
    the plan's. `overridden` means that the subscription has its own terms, which price changes of the plan do not touch.
    """

    def __init__(
        self,
        person: SimulatedCustomer,
        plan: Plan,
        start: datetime,
        rng: Random,
        *,
        begins: datetime | None = None,
        settlement: Settlement | None = None,
        overridden: bool = False,
    ) -> None:
        EventSource.__init__(self, rng, start)
        self.person, self.settlement = person, settlement
        self.id = ids.subscription(rng)
        self.status: Status = "APPROVAL_PENDING"
        self.created = self.updated = self.status_at = self.now
        self.begins = (begins or self.created).replace(microsecond=0)
        CycleSchedule.__init__(self, plan, self.begins, overridden=overridden)
        self.note, self.activated = "", False
        self.completed = self.failures = 0
        self.outstanding = Outstanding()
        self.last_payment: Json | None = None
        self.last_failed: Json | None = None
        self.sales: dict[str, Sale] = {}
        self.disputes: list[Dispute] = []

    def start(
        self,
        mode: PaymentMode = "instant",
        *,
        lagging: bool = False,
        at: datetime | None = None,
        setup_fee_fails: bool = False,
    ) -> None:
        """Create and activate the subscription and make the first sale: the first cycle and the set-up fee.

        A free trial or a later start has no first charge; the set-up fee is then a sale of its own. `at` is the time of the
        buyer's approval; default: minutes after the creation. If `setup_fee_fails`, PayPal cancels the subscription or adds
        the fee to the outstanding balance, as the plan says.

        With `lagging`, ACTIVATED gives today as the next billing time, as PayPal does for free trials. No later event
        corrects it.
        """
        self._add_event("CREATED", self.created)
        at = (at or self.created + timedelta(seconds=self.rng.randint(40, 240))).replace(microsecond=0)
        if setup_fee_fails and self.plan.setup_fee and self.plan.setup_fee_failure == "CANCEL":
            self._set_status("CANCELLED", at, "The set-up fee could not be collected")
            self._add_event("CANCELLED", at)
            return
        self._set_status("ACTIVE", at)
        self.activated = True
        sale = self._first_charge(at, mode, setup_fee_fails)
        today = shapes.seconds(at.replace(hour=10, minute=0, second=0)) if lagging else ""
        self._add_event("ACTIVATED", at, next_billing=today)
        if sale:
            self._add_sale_events(sale, at)

    def renew(self, mode: PaymentMode = "instant", *, shift: timedelta | None = None) -> Sale:
        """Charge the next cycle together with the outstanding balance. The last cycle ends the subscription.

        `shift` is the time from the due time to the charge; default: minutes to hours. It may be negative.
        """
        at = self._next_charge() + (shift or timedelta(seconds=self.rng.randint(300, 10_800)))
        sale = self._collect(at, mode)
        self._add_sale_events(sale, at)
        self._end_after(at)
        return sale

    def fail_payment(self, attempts: int = ATTEMPTS) -> None:
        """Let the next cycle's charge fail `attempts` times. After ATTEMPTS failures PayPal may suspend."""
        due = self._next_charge()
        missed = self.take_cycle(self.quantity)
        self.outstanding.add(missed.total, missed.tax, missed.cycles)
        self.failures += 1
        tried = self.balance if self.plan.auto_bill_outstanding else missed.total
        for attempt in range(attempts):
            at = due + attempt * RETRY_EVERY + timedelta(seconds=self.rng.randint(300, 3_600))
            retry = due + (attempt + 1) * RETRY_EVERY if attempt + 1 < ATTEMPTS else None
            self._fail(at, retry, tried)
        if attempts == ATTEMPTS and 0 < self.plan.failure_threshold <= self.failures:
            self.suspend(self.now + timedelta(seconds=30))

    def pay_balance(self, at: datetime, amount: int | None = None) -> Sale:
        """Collect the outstanding balance, by a successful retry or by the vendor's capture of `amount` minor units."""
        amount = self.balance if amount is None else amount
        if not 0 < amount <= self.balance:
            raise InvalidTransitionError(f"cannot collect {amount}: the outstanding balance is {self.balance}")
        sale = self._charge(at, self.outstanding.settle(amount), "instant")
        self._add_sale_events(sale, at)
        self._end_after(at)
        return sale

    def waive_balance(self, at: datetime) -> None:
        """Set the outstanding balance to zero without a payment (PATCH). Its cycles count as unpaid for good."""
        self._require_status("ACTIVE", "SUSPENDED")
        self.outstanding = Outstanding()
        self.updated = at
        self._add_event("UPDATED", at)

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
        self.skip_until(at)
        self.failures = 0
        self._set_status("ACTIVE", at, "Reactivating the subscription")
        self._add_event(kind, at)

    def cancel(self, at: datetime, note: str = "No longer needed") -> None:
        """Cancel the subscription at once, for good. The event has no `next_billing_time`."""
        self._require_status("ACTIVE", "SUSPENDED")
        self._set_status("CANCELLED", at, note)
        self._add_event("CANCELLED", at)

    def revise(
        self, at: datetime, quantity: int | None = None, *, plan: Plan | None = None, at_once: bool = False
    ) -> Sale | None:
        """Change the quantity or the plan from the next charge on; `at_once`: charge the new terms now.

        PayPal sends UPDATED with the new plan id at once. The new plan's cycles count from its first charge.
        """
        self._require_status("ACTIVE")
        self.quantity, self.updated = quantity or self.quantity, at
        if plan is not None:
            self.change_plan(plan, at if at_once else self._next_charge())
            self.completed = 0
        elif at_once:
            self.restart_cycles(at)
        sale = self._collect(at, "instant") if at_once else None
        self._add_event("UPDATED", at)
        if sale:
            self._add_sale_events(sale, at)
        return sale

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
        self.outstanding.add(sale.amount.amount, sale.charge.tax, sale.cycles)
        self.completed -= sale.cycles
        self.updated = at
        sale.deny(at)
        self._add_sale_event("DENIED", sale, at)

    def refund(
        self,
        sale: Sale,
        at: datetime,
        amount: int | None = None,
        *,
        name_sale: bool = True,
        negative: bool = False,
        returned_fee: int = 0,
    ) -> str:
        """Refund `amount` minor units, or the rest of the sale. Return the refund's id.

        Without `name_sale`, the event does not name the sale, like a refund from PayPal's dashboard. With `negative`, the
        amount has a minus sign, as PayPal sent it until 2017. `returned_fee` is the part of its fee that PayPal returns.
        """
        money = Money(sale.rest if amount is None else amount, sale.amount.currency)
        shown = self._refund_sale(sale, money, at, returned_fee)
        event = shown if name_sale else shapes.without_sale(shown)
        if negative:
            event = {**event, "amount": shapes.v1(-money)}
        self.add_event(
            "PAYMENT.SALE.REFUNDED", at, "refund", event, money, [("sale", sale.resource), ("refund", shown)]
        )
        return str(shown["id"])

    def reverse(self, sale: Sale, at: datetime, amount: int | None = None) -> str:
        """Reverse `amount` minor units or the rest of a sale, as in a chargeback. Return the reversal's id."""
        money = Money(sale.rest if amount is None else amount, sale.amount.currency)
        shown = self._refund_sale(sale, money, at)
        shown["refund_reason_code"] = "CHARGEBACK"
        sale.reversed_ids.add(shown["id"])
        event = shapes.reversal(shown["id"], money, at)
        self.add_event(
            "PAYMENT.SALE.REVERSED", at, "refund", event, money, [("sale", sale.resource), ("refund", shown)]
        )
        return str(shown["id"])

    @property
    def next_billing(self) -> datetime | None:
        """The time of the next charge; None if the subscription is suspended or has no further charge."""
        return self.due if self.status == "ACTIVE" else None

    @property
    def balance(self) -> int:
        """The outstanding balance in minor units."""
        return self.outstanding.amount

    @property
    def next_charge(self) -> Charge | None:
        """The parts of the next charge; None if there is none."""
        if self.next_billing is None:
            return None
        return replace(self.coming_charge(self.quantity), balance=self._billed_balance)

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
            "start_time": shapes.seconds(self.begins),
            "quantity": str(self.quantity),
            **({"shipping_amount": shapes.v2(self._money(self.plan.shipping))} if self.plan.shipping else {}),
            **({"subscriber": shapes.subscriber(self.person)} if begun else {}),
            **({"billing_info": self._billing_info(failed, next_billing)} if begun else {}),
            "create_time": shapes.seconds(self.created),
            **({"update_time": shapes.seconds(self.updated)} if begun else {}),
            "links": shapes.subscription_links(self.id, self.status),
            "status": self.status,
            "status_update_time": shapes.seconds(self.status_at),
            "custom_id": self.person.custom_id,
            "plan_overridden": self.overridden,
            **({"status_change_note": self.note} if self.note else {}),
        }

    def _billing_info(self, failed: bool, next_billing: str) -> Json:
        following = next_billing or (shapes.seconds(self.next_billing) if self.next_billing else "")
        return {
            "outstanding_balance": shapes.v2(self._money(self.balance)),
            "cycle_executions": shapes.cycle_executions(self.plan, self.completed, self.trials_begun(self.updated)),
            **({"last_payment": self.last_payment} if self.last_payment else {}),
            **({"next_billing_time": following} if following else {}),
            **({"final_payment_time": shapes.seconds(self.final_due)} if following and self.final_due else {}),
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

    def _money(self, amount: int) -> Money:
        return Money(amount, self.plan.currency)

    def _set_status(self, status: Status, at: datetime, note: str = "") -> None:
        self.status, self.status_at, self.updated, self.note = status, at, at, note

    @property
    def _billed_balance(self) -> int:
        return self.balance if self.plan.auto_bill_outstanding else 0

    def _first_charge(self, at: datetime, mode: PaymentMode, setup_fee_fails: bool) -> Sale | None:
        fee = 0 if setup_fee_fails else self.plan.setup_fee
        if setup_fee_fails:
            self.outstanding.add(self.plan.setup_fee, 0, 0)
        if self.skip_free_cycles() or self.begins > at:
            return self._charge(at, Charge(setup_fee=fee, covers=False), mode) if fee else None
        return self._charge(at, replace(self.take_cycle(self.quantity), setup_fee=fee), mode)

    def _collect(self, at: datetime, mode: PaymentMode) -> Sale:
        """Charge the next cycle together with the outstanding balance."""
        cycle = self.take_cycle(self.quantity)
        if self._billed_balance:
            old = self.outstanding.settle(self.balance)
            cycle = replace(cycle, balance=old.balance, balance_tax=old.balance_tax, cycles=cycle.cycles + old.cycles)
        return self._charge(at, cycle, mode)

    def _charge(self, at: datetime, charge: Charge, mode: PaymentMode) -> Sale:
        name, money = ids.payment(self.rng), self._money(charge.total)
        tax, custom = charge.tax + charge.balance_tax, self.person.custom_id
        shown = shapes.sale(name, self.id, custom, money, at, tax=tax, shipping=charge.shipping)
        sale = self.sales[name] = Sale(shown, money, charge, at, self.settlement)
        # A part of the balance pays no time. The price of a cycle pays that cycle, whatever else is open.
        covers = charge.covers and (charge.price or not self.outstanding.cycles)
        sale.covers_until = self.cycle_end if covers else None
        sale.set_mode(mode, at)
        self.completed += charge.cycles
        self.failures = 0
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

    def _fail(self, at: datetime, retry: datetime | None, amount: int) -> None:
        self.updated = at
        self.last_failed = {
            "amount": shapes.v2(self._money(amount)),
            "time": shapes.seconds(at),
            "reason_code": "PAYMENT_DENIED",
            **({"next_payment_retry_time": shapes.seconds(retry)} if retry else {}),
        }
        self._add_event("PAYMENT.FAILED", at)

    def _refund_sale(self, sale: Sale, amount: Money, at: datetime, returned_fee: int = 0) -> Json:
        """Refund the sale. Return the refund's JSON as the API shows it."""
        sale.refund(amount, at)
        name, sale_id = ids.payment(self.rng), sale.resource["id"]
        total = self._money(sale.refunded)
        shown = shapes.refund(name, sale_id, amount, total, at, returned_fee=returned_fee)
        sale.refunds[name] = shown
        return shown

    def _add_event(self, kind: str, at: datetime, *, next_billing: str = "") -> None:
        resource = self.snapshot(failed=kind == "PAYMENT.FAILED", next_billing=next_billing)
        self.add_event(f"BILLING.SUBSCRIPTION.{kind}", at, "subscription", resource, self._money(0))

    def _add_sale_event(self, kind: str, sale: Sale, at: datetime) -> None:
        self.add_event(f"PAYMENT.SALE.{kind}", at, "sale", sale.resource, sale.amount, [("sale", sale.resource)])

    def add_event(
        self,
        kind: str,
        at: datetime,
        of: shapes.ResourceType,
        resource: Json,
        amount: Money,
        kept: Iterable[tuple[Kind, Json]] = (),
    ) -> None:
        """Add an event. PayPal's API then also shows the subscription, and a plan that the world does not have yet."""
        plan: list[tuple[Kind, Json]] = [] if self.plan.id in PLANS else [("plan", shapes.plan(self.listed_plan))]
        own = {"plan": shapes.plan(self.plan)} if self.overridden else {}
        shown = {**self.snapshot(failed=True), **own}
        self.emit(kind, at, of, resource, amount, [("subscription", shown), *kept, *plan])
