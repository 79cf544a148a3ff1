"""Unit of work for a batch of events: loads and locks every row the batch can change, and writes all changes once.

Handlers change these rows like plain objects; `flush` writes them. Locks are always taken in the same order: events,
payments, plans, subscriptions, then the rows that `flush` adds; each by key, new rows before existing ones. So two
workers never deadlock.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from pipeline.billing.reminders import ReminderPolicy
from pipeline.clock import parse_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.customers import addresses, identity
from pipeline.db import lww_map
from pipeline.db.bulk import RowSet, in_list, insert
from pipeline.db.models import Customer, Dispute, Mail, Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.db.rows import DisputeRow, PaymentRow, PlanRow, RefundRow, SubscriptionRow
from pipeline.email_address import fold_address
from pipeline.inbox import lookups
from pipeline.inbox.event import Event, RetryLater
from pipeline.outbox import store as outbox
from pipeline.paypal.requests import LookupKind

CUSTOMER = Customer.__table__
# In these states a refund has not paid anything back (yet).
IMPORTED = "imported: it happened before this program took over"
INEFFECTIVE_REFUND_STATES = frozenset({"pending", "failed", "cancelled", "denied"})


class UnitOfWork:
    """The subscriptions, payments, refunds and plans of a batch of events, locked, with the mails and look-ups to add."""

    def __init__(
        self,
        session: Session,
        keyring: Keyring,
        now: datetime,
        reminders: ReminderPolicy,
        events: Sequence[Event],
        *,
        may_read: bool = False,
    ) -> None:
        """`may_read`: API credentials are set, so PayPal can be asked."""
        self.is_history = False  # whether the event that is being handled is from before this program took over
        self.now, self.reminders, self.may_read = now, reminders, may_read
        self._session, self._keyring = session, keyring
        self._subscribers: dict[str, lww_map.LwwMap] = {}
        self._changed_subscribers: set[str] = set()
        self._previous_addresses: dict[str, str] = {}
        self._mails: list[outbox.NewMail] = []
        self._lookups: list[lookups.LookupRequest] = []
        self._changes: list[dict[str, Any]] = []
        self._refunds, self._payments = RowSet(session, Refund, RefundRow), RowSet(session, Payment, PaymentRow)
        self._plans = RowSet(session, Plan, PlanRow)
        self._disputes = RowSet(session, Dispute, DisputeRow)
        self._subscriptions = RowSet(session, Subscription, SubscriptionRow)
        self._load([event.facts for event in events])
        self._was_established = {id for id, row in self._subscriptions.items() if row.is_established}

    def subscription(self, id: str) -> SubscriptionRow:
        """Return the subscription, locked; a placeholder if it was unknown."""
        return self._subscriptions[id]

    def payment(self, id: str) -> PaymentRow:
        """Return the payment, locked; a placeholder if it was unknown."""
        return self._payments[id]

    def payments_of(self, subscription_id: str) -> list[PaymentRow]:
        return list(self._by_subscription[subscription_id].values())

    def index_payment(self, row: PaymentRow) -> None:
        """Add the payment to those of its subscription."""
        if row.subscription_id:
            self._by_subscription[row.subscription_id][row.id] = row

    def refund(self, id: str) -> RefundRow | None:
        """Return the refund, None if it is unknown.

        Raises RetryLater if another worker stored it while this one waited for locks: its payment is not locked here.
        """
        row = self._refunds.get(id)
        if row is not None and row.payment_id not in self._locked_payments:
            raise RetryLater(timedelta(0), "another worker has just stored its refund")
        return row

    def refunds_of(self, payment_id: str) -> list[RefundRow]:
        return list(self._by_payment[payment_id].values())

    def effective_refunds(self, payment_id: str) -> list[RefundRow]:
        """Return the payment's refunds without those that are pending, failed, cancelled or denied."""
        return [
            row
            for row in self.refunds_of(payment_id)
            if lww_map.value(row.known, "state") not in INEFFECTIVE_REFUND_STATES
        ]

    def refunded_amount(self, payment: PaymentRow, until: datetime | None = None) -> int:
        """Return the refunded amount of a payment in minor units, in total or up to the time `until`.

        It is at least the total that PayPal reports in a refund, because an event of another refund may be lost.
        """
        rows = [row for row in self.effective_refunds(payment.id) if until is None or row.occurred_at <= until]
        counted = [row for row in rows if row.currency == payment.currency]
        totals = [lww_map.value(row.known, "refunded_total") or [0, None] for row in counted]
        sums: list[int] = [total for total, currency in totals if currency == payment.currency]
        returned = max([sum(row.amount for row in counted), *sums])
        # PayPal reports a reversal of a payment that was refunded before, and returns the money once.
        return returned if payment.amount is None else min(returned, payment.amount)

    def plan(self, id: str | None) -> PlanRow | None:
        """Return the plan; a placeholder if only its id is known, None without an id."""
        return self._plans.get(id or "")

    def plan_for_update(self, id: str) -> PlanRow:
        """Return the plan that an event reports, locked."""
        return self._plans[id]

    def subscriptions_on(self, plan_id: str) -> list[SubscriptionRow]:
        """Return the loaded subscriptions on this plan. These are all of them if an event changes the plan's cycle."""
        return [row for row in self._subscriptions.values() if row.plan_id == plan_id]

    def dispute(self, id: str) -> DisputeRow:
        """Return the dispute that an event reports, locked with its payment; a placeholder if it was unknown.

        Raises RetryLater if another worker stored its payment while this one waited for locks.
        """
        row = self._disputes[id]
        if row.payment_id is not None and row.payment_id not in self._locked_payments:
            raise RetryLater(timedelta(0), "another worker has just stored its payment")
        return row

    def add_refund(self, row: RefundRow) -> None:
        self._refunds[row.id] = self._by_payment[row.payment_id][row.id] = row

    def add_status_change(self, **columns: Any) -> None:
        """Add a status change: the columns of `StatusHistoryEntry` without the id."""
        self._changes.append(columns)

    def subscriber(self, subscription_id: str) -> Mapping[str, Any]:
        """Return the subscriber's personal data as a last-writer-wins map: field -> [time, value]. Empty once erased."""
        if subscription_id not in self._subscribers:
            key, row = self._keyring.get(subscription_id), self._subscriptions[subscription_id]
            known = key.decrypt_json("subscription.personal_data", row.personal_data) if key else None
            self._subscribers[subscription_id] = known or {}
        return self._subscribers[subscription_id]

    def update_subscriber(self, subscription_id: str, at: datetime, values: Mapping[str, str]) -> None:
        """Merge personal data that PayPal reported at time `at`; `flush` encrypts and writes it."""
        before = self.subscriber(subscription_id)
        known = lww_map.merge(before, at, values)
        if known != before:
            self._previous_addresses.setdefault(subscription_id, lww_map.value(before, "email") or "")
            self._subscribers[subscription_id] = known
            self._changed_subscribers.add(subscription_id)

    def add_mail(self, mail: outbox.NewMail) -> None:
        """Queue a mail in this transaction. A mail with the same idempotency key is queued only once."""
        self._mails.append(replace(mail, withheld=mail.withheld or IMPORTED) if self.is_history else mail)

    def request_lookup(self, kind: LookupKind, id: str, after: timedelta) -> None:
        """Request a look-up of this object at PayPal after a delay. Without API credentials it is never made."""
        self._lookups.append(lookups.LookupRequest(kind, id, self.now + after, self.now))

    def flush(self) -> list[str]:
        """Write all changes. Return the ids of the mails that became due."""
        self._changed_subscribers |= self._newly_established()
        for id in sorted(self._changed_subscribers):
            self._encrypt_subscriber(self._subscriptions[id])
        self._assign_customers()
        self._mails += self._address_changes()
        for rows in (self._payments, self._plans, self._subscriptions, self._refunds, self._disputes):
            rows.write()
        insert(self._session, StatusHistoryEntry, self._changes)
        lookups.enqueue(self._session, sorted(self._lookups, key=lambda request: (request.kind, request.id)))
        return outbox.enqueue(self._session, self._keyring, self._mails_with_address(), self.now) + self._release_mail()

    # -- loading

    def _load(self, facts: Sequence[Mapping[str, Any]]) -> None:
        self._lock_payments(facts)
        self._lock_plans_and_subscriptions(facts)
        self._load_siblings()
        self._index()
        self._load_other_plans()
        self._disputes.lock(_named(facts, "dispute"), {"known": {}})
        self._keyring.load([INDEX, *self._subscriptions])

    def _lock_payments(self, facts: Sequence[Mapping[str, Any]]) -> None:
        if refunds := _named(facts, "refund"):
            self._refunds.read(in_list(Refund.id, refunds))
        if disputes := _named(facts, "dispute"):
            self._disputes.read(in_list(Dispute.id, disputes))
        sales = _named(facts, "sale") | {refund.payment_id for refund in self._refunds.values()}
        sales |= {dispute.payment_id for dispute in self._disputes.values() if dispute.payment_id}
        self._payments.lock(sales, {"known": {}, "refunded": 0})
        self._locked_payments = frozenset(self._payments)

    def _lock_plans_and_subscriptions(self, facts: Sequence[Mapping[str, Any]]) -> None:
        subscriptions = _named(facts, "subscription")
        subscriptions |= {row.subscription_id for row in self._payments.values() if row.subscription_id}
        reported = {fact["plan"]: fact for fact in facts if "plan" in fact and "subscription" not in fact}
        # An event about a plan locks it exclusively. So a worker that puts a subscription on the plan either sees the
        # new plan, or is seen by the worker that changes it.
        self._plans.lock(_named(facts, "plan"), {"known": {}}, share=not reported)
        subscriptions |= self._on_plans([id for id, fact in reported.items() if self._changes_cycle(fact)])
        self._subscriptions.lock(subscriptions, {"known": {}, "created_at": self.now, "failed_count": 0})

    def _changes_cycle(self, facts: Mapping[str, Any]) -> bool:
        """Return whether the facts of a plan event change the plan's billing cycle."""
        known, at = self._plans[facts["plan"]].known, parse_time(facts.get("at"))
        merged = known if at is None else lww_map.merge(known, at, {"terms": facts.get("terms")})
        return bool(lww_map.value(known, "terms") != lww_map.value(merged, "terms"))

    def _on_plans(self, plans: Sequence[str]) -> set[str]:
        on_plan = select(Subscription.id).where(in_list(Subscription.plan_id, plans))
        return set(self._session.execute(on_plan).scalars()) if plans else set()

    def _load_siblings(self) -> None:
        """Load all payments of these subscriptions and their refunds: the paid-through date depends on all of them."""
        if self._subscriptions:
            self._payments.read(in_list(Payment.subscription_id, self._subscriptions))
        if self._payments:
            # Read again: refunds read before their payment was locked may have changed.
            self._refunds.read(in_list(Refund.payment_id, self._payments))

    def _index(self) -> None:
        self._by_subscription: dict[str, dict[str, PaymentRow]] = defaultdict(dict)
        self._by_payment: dict[str, dict[str, RefundRow]] = defaultdict(dict)
        for payment in self._payments.values():
            self.index_payment(payment)
        for refund in self._refunds.values():
            self._by_payment[refund.payment_id][refund.id] = refund

    def _load_other_plans(self) -> None:
        others = {row.plan_id for row in self._subscriptions.values() if row.plan_id} - self._plans.keys()
        if others:
            self._plans.read(in_list(Plan.id, others))

    # -- writing

    def _encrypt_subscriber(self, row: SubscriptionRow) -> None:
        key = self._keyring.get(row.id)
        if key is None:  # erased: later events update the billing state, but store no personal data again
            return
        known = self.subscriber(row.id)
        if not known:
            return
        email = lww_map.value(known, "email")
        row.personal_data = key.encrypt_json("subscription.personal_data", known)
        row.email_hash = self._keyring.email_hash(email) if email and row.is_established else None

    def _newly_established(self) -> set[str]:
        established = {id for id, row in self._subscriptions.items() if row.is_established}
        return established - self._was_established

    def _assign_customers(self) -> None:
        rows = list(self._subscriptions.values())
        assigned = identity.assign_customers(self._session, self._keyring, rows, self.now)
        self._mails += assigned.alerts
        self._assigned = assigned
        for id in sorted({row.customer_id for row in rows if row.customer_id}):
            erased_at = assigned.customers[id].erased_at
            if erased_at and self._subscribed_after(id, erased_at):
                self._reactivate_customer(id)

    def _address_changes(self) -> list[outbox.NewMail]:
        """Return mails to the previous addresses of subscribers, and confirm the addresses that they entered at sign-up."""
        mails, first = [], []
        for id in sorted(self._changed_subscribers):
            row, email = self._subscriptions[id], lww_map.value(self.subscriber(id), "email")
            if row.customer_id is None or not email:
                continue
            if id not in self._was_established and row.customer_id not in self._assigned.new:
                first.append((row, email))
            elif (old := self._previous_address(row)) and fold_address(old) != fold_address(email):
                mails.append(addresses.changed_at_paypal(row.customer_id, id, old, self.now))
        unconfirmed = [row for row, email in first if not self._has_confirmed(row, email)]
        return mails + addresses.tell_previous(self._session, self._keyring, unconfirmed, self.now)

    def _has_confirmed(self, row: SubscriptionRow, email: str) -> bool:
        """Return whether the customer has confirmed an address. PayPal's first report may confirm the one from sign-up."""
        owner = self._assigned.customers.get(row.customer_id or "")
        if owner is None or owner.email_hash is not None:  # not loaded: merged a moment ago, because it is confirmed
            return True
        if owner.signed_up_at is None:
            return False
        kept = addresses.confirm_reported(self._session, self._keyring, owner.id, email, self.now)
        if kept is not None:
            identity.follow_merges(self._session, self._subscriptions.values())
        return kept is not None

    def _previous_address(self, row: SubscriptionRow) -> str:
        """Return the address that PayPal reported before this batch; "" if none, or if the customer confirmed another one."""
        has_own = self._assigned.customers[row.customer_id or ""].email_hash is not None
        return "" if has_own else self._previous_addresses.get(row.id, "")

    def _subscribed_after(self, customer_id: str, moment: datetime) -> bool:
        subscriptions = [row for row in self._subscriptions.values() if row.customer_id == customer_id]
        starts = [parse_time(lww_map.value(row.known, "start_at")) for row in subscriptions]
        return any(start is not None and start > moment for start in starts)

    def _reactivate_customer(self, customer_id: str) -> None:
        """Make an erased customer who subscribes again a new customer, without any earlier data."""
        self._keyring.recreate(customer_id)
        self._session.execute(
            update(Customer)
            .where(Customer.id == customer_id)
            .values(erased_at=None, created_at=self.now, wants_service_mail=True)
            .execution_options(synchronize_session=False)
        )

    def _mails_with_address(self) -> list[outbox.NewMail]:
        """Return the new mails, those without any address marked to wait for one.

        An address comes from PayPal or from the customer. The customer's row is locked, so that an address that is
        entered at the same time is not missed.
        """
        named = {mail.subscription_id for mail in self._mails if mail.subscription_id}
        rows = [self._subscriptions[id] for id in named]
        unsure = {row.id: row.customer_id for row in rows if row.email_hash is None}
        if not unsure:
            return self._mails
        reachable = self._customers_with_address({customer for customer in unsure.values() if customer})
        waiting = {id for id, customer in unsure.items() if customer not in reachable}
        return [replace(mail, has_address=False) if mail.subscription_id in waiting else mail for mail in self._mails]

    def _customers_with_address(self, customers: set[str]) -> set[str]:
        """Return those of these customers who have entered an address."""
        query = select(CUSTOMER.c.id, CUSTOMER.c.email_hash).where(in_list(CUSTOMER.c.id, sorted(customers)))
        found = self._session.connection().execute(query.order_by(CUSTOMER.c.id).with_for_update(read=True))
        return {row.id for row in found.all() if row.email_hash is not None}

    def _release_mail(self) -> list[str]:
        """Make mails due that waited for an address which this batch supplies. Return their ids."""
        ids = [id for id in self._changed_subscribers if self._subscriptions[id].email_hash]
        if not ids:
            return []
        customers = {id for row in ids if (id := self._subscriptions[row].customer_id)}
        recipient = or_(in_list(Mail.subscription_id, ids), in_list(Mail.customer_id, customers))
        waiting = update(Mail).where(recipient, Mail.state == "queued", Mail.due_at.is_(None))
        result = self._session.execute(
            waiting.values(due_at=self.now).returning(Mail.id).execution_options(synchronize_session=False)
        )
        return list(result.scalars())


Handler = Callable[[Event, UnitOfWork], None]


def _named(facts: Sequence[Mapping[str, Any]], kind: str) -> set[str]:
    return {fact[kind] for fact in facts if kind in fact}
