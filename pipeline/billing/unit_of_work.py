"""The rows a batch of events may touch, locked in key order and at hand in memory.

Handlers work on these rows as on plain objects; `close` writes everything once. Locks are always taken in the same
order (events, payments, plans, subscriptions, then what `close` adds; each by key, new rows before old ones), so two
workers can never wait for each other in a circle.
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
from pipeline.db import lww_map
from pipeline.db.bulk import RowSet, in_list, insert, insert_new
from pipeline.db.models import Customer, Mail, Payment, Plan, Refund, StatusHistoryEntry, Subscription
from pipeline.db.rows import PaymentRow, PlanRow, RefundRow, SubscriptionRow
from pipeline.inbox import lookups
from pipeline.inbox.event import Event, RetryLater
from pipeline.outbox import store as outbox
from pipeline.paypal.requests import LookupKind

CUSTOMER = Customer.__table__
INEFFECTIVE_REFUND_STATES = frozenset(
    {"pending", "failed", "cancelled", "denied"}
)  # states of a refund that moves no money (yet)


class UnitOfWork:
    """Subscriptions, payments, refunds and plans that these events name, ready to be changed."""

    def __init__(
        self, session: Session, keyring: Keyring, now: datetime, reminders: ReminderPolicy, events: Sequence[Event]
    ) -> None:
        self.now, self.reminders = now, reminders
        self._session, self._keyring = session, keyring
        self._people: dict[str, lww_map.LwwMap] = {}
        self._changed_people: set[str] = set()
        self._owed: list[outbox.NewMail] = []
        self._reads: list[lookups.LookupRequest] = []
        self._changes: list[dict[str, Any]] = []
        self._refunds, self._payments = RowSet(session, Refund, RefundRow), RowSet(session, Payment, PaymentRow)
        self._plans = RowSet(session, Plan, PlanRow)
        self._subscriptions = RowSet(session, Subscription, SubscriptionRow)
        self._load([event.facts for event in events])

    def subscription(self, id: str) -> SubscriptionRow:
        """The subscription, locked; a placeholder if nothing was known of it."""
        return self._subscriptions[id]

    def payment(self, id: str) -> PaymentRow:
        """The payment, locked; a placeholder if nothing was known of it."""
        return self._payments[id]

    def payments_of(self, subscription_id: str) -> list[PaymentRow]:
        return list(self._by_subscription[subscription_id].values())

    def index_payment(self, row: PaymentRow) -> None:
        """Keep the payment with those of its subscription."""
        if row.subscription_id:
            self._by_subscription[row.subscription_id][row.id] = row

    def refund(self, id: str) -> RefundRow | None:
        """The refund, None if nothing was known of it.

        Raises TryLater where another worker booked it while we waited for its siblings: then its payment is not locked.
        """
        row = self._refunds.get(id)
        if row is not None and row.payment_id not in self._locked_payments:
            raise RetryLater(timedelta(0), "its refund was booked a moment ago")
        return row

    def refunds_of(self, payment_id: str) -> list[RefundRow]:
        return list(self._by_payment[payment_id].values())

    def effective_refunds(self, payment_id: str) -> list[RefundRow]:
        """Its refunds, less those that are pending or came to nothing."""
        return [
            row
            for row in self.refunds_of(payment_id)
            if lww_map.value(row.known, "state") not in INEFFECTIVE_REFUND_STATES
        ]

    def refunded_amount(self, payment: PaymentRow, until: datetime | None = None) -> int:
        """Minor units given back of a payment, in all or up to a moment.

        PayPal's running sum counts too: a refund's own event may have been lost.
        """
        rows = [row for row in self.effective_refunds(payment.id) if until is None or row.occurred_at <= until]
        counted = [row for row in rows if row.currency == payment.currency]
        totals = [lww_map.value(row.known, "refunded_total") or [0, None] for row in counted]
        sums: list[int] = [total for total, currency in totals if currency == payment.currency]
        return max([sum(row.amount for row in counted), *sums])

    def plan(self, id: str | None) -> PlanRow | None:
        """The plan; a placeholder if it was named and nothing is known of it."""
        return self._plans.get(id or "")

    def plan_for_update(self, id: str) -> PlanRow:
        """The plan that an event is about, locked."""
        return self._plans[id]

    def subscriptions_on(self, plan_id: str) -> list[SubscriptionRow]:
        """Those at hand that are on this plan; all there are, if what is told of the plan is new."""
        return [row for row in self._subscriptions.values() if row.plan_id == plan_id]

    def add_refund(self, row: RefundRow) -> None:
        self._refunds[row.id] = self._by_payment[row.payment_id][row.id] = row

    def add_status_change(self, **told: Any) -> None:
        """A move of a status: the columns of `StatusHistoryEntry`, less its id."""
        self._changes.append(told)

    def subscriber(self, subscription_id: str) -> Mapping[str, Any]:
        """What is known of the subscriber: field -> [time, value]. Empty once erased."""
        if subscription_id not in self._people:
            seal, row = self._keyring.get(subscription_id), self._subscriptions[subscription_id]
            known = seal.decrypt_json("subscription.personal_data", row.personal_data) if seal else None
            self._people[subscription_id] = known or {}
        return self._people[subscription_id]

    def update_subscriber(self, subscription_id: str, at: datetime, values: Mapping[str, str]) -> None:
        """Take in what PayPal tells of the subscriber; sealed when the books are closed."""
        known = lww_map.merge(self.subscriber(subscription_id), at, values)
        if known != self._people[subscription_id]:
            self._people[subscription_id] = known
            self._changed_people.add(subscription_id)

    def add_mail(self, mail: outbox.NewMail) -> None:
        """A mail is owed, in the transaction that makes it so. Its key decides whether it already was."""
        self._owed.append(mail)

    def request_lookup(self, kind: LookupKind, id: str, after: timedelta) -> None:
        """Ask PayPal for this object some time later; without credentials nothing is asked."""
        self._reads.append(lookups.LookupRequest(kind, id, self.now + after))

    def flush(self) -> list[str]:
        """Write what changed. The ids of mails that became due."""
        for id in sorted(self._changed_people):
            self._encrypt_subscriber(self._subscriptions[id])
        self._add_customers()
        for rows in (self._payments, self._plans, self._subscriptions, self._refunds):
            rows.write()
        insert(self._session, StatusHistoryEntry, self._changes)
        lookups.enqueue(self._session, sorted(self._reads, key=lambda want: (want.kind, want.id)))
        return outbox.enqueue(self._session, self._keyring, self._mails_with_address(), self.now) + self._release_mail()

    # -- loading

    def _load(self, facts: Sequence[Mapping[str, Any]]) -> None:
        self._lock_payments(facts)
        self._lock_plans_and_subscriptions(facts)
        self._load_siblings()
        self._index()
        self._load_other_plans()
        self._keyring.load([INDEX, *self._subscriptions])

    def _lock_payments(self, facts: Sequence[Mapping[str, Any]]) -> None:
        if refunds := _named(facts, "refund"):
            self._refunds.read(in_list(Refund.id, refunds))
        sales = _named(facts, "sale") | {refund.payment_id for refund in self._refunds.values()}
        self._payments.lock(sales, {"known": {}, "refunded": 0})
        self._locked_payments = frozenset(self._payments)

    def _lock_plans_and_subscriptions(self, facts: Sequence[Mapping[str, Any]]) -> None:
        subscriptions = _named(facts, "subscription")
        subscriptions |= {row.subscription_id for row in self._payments.values() if row.subscription_id}
        told = {fact["plan"]: fact for fact in facts if "plan" in fact and "subscription" not in fact}
        # Shared unless one is told: who puts a subscription on a plan, and who tells the plan, must see each other.
        self._plans.lock(_named(facts, "plan"), {"known": {}}, share=not told)
        subscriptions |= self._on_plans([id for id, fact in told.items() if self._changes_cycle(fact)])
        self._subscriptions.lock(subscriptions, {"known": {}, "created_at": self.now})

    def _changes_cycle(self, told: Mapping[str, Any]) -> bool:
        """Whether what is told of a plan changes what one cycle of it is."""
        known, at = self._plans[told["plan"]].known, parse_time(told.get("at"))
        merged = known if at is None else lww_map.merge(known, at, {"terms": told.get("terms")})
        return bool(lww_map.value(known, "terms") != lww_map.value(merged, "terms"))

    def _on_plans(self, plans: Sequence[str]) -> set[str]:
        on_plan = select(Subscription.id).where(in_list(Subscription.plan_id, plans))
        return set(self._session.execute(on_plan).scalars()) if plans else set()

    def _load_siblings(self) -> None:
        """All payments of these subscriptions, and their refunds: what was paid until when depends on all of them."""
        if self._subscriptions:
            self._payments.read(in_list(Payment.subscription_id, self._subscriptions))
        if self._payments:
            # Anew: those read before their payment was locked may have changed meanwhile.
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
        seal = self._keyring.get(row.id)
        if seal is None:  # erased: later events move the books and bring nobody back
            return
        known = self._people[row.id]
        email = lww_map.value(known, "email")
        row.personal_data = seal.encrypt_json("subscription.personal_data", known)
        row.email_hash = self._keyring.email_hash(email) if email else None

    def _add_customers(self) -> None:
        ids = {row.customer_id for row in self._subscriptions.values() if row.customer_id}
        known = self._known_customers(ids) if ids else {}
        rows = [{"id": id, "created_at": self.now} for id in sorted(ids - known.keys())]
        insert_new(self._session, Customer, rows, returning=Customer.id)
        for id, erased_at in sorted(known.items()):
            if erased_at and self._began_after(id, erased_at):
                self._reactivate_customer(id)

    def _known_customers(self, ids: set[str]) -> dict[str, datetime | None]:
        """Those that have a row, and when they were erased."""
        asked = select(CUSTOMER.c.id, CUSTOMER.c.erased_at).where(in_list(CUSTOMER.c.id, ids))
        found = self._session.connection().execute(asked)
        return {row.id: row.erased_at for row in found.all()}

    def _began_after(self, customer_id: str, moment: datetime) -> bool:
        theirs = [row for row in self._subscriptions.values() if row.customer_id == customer_id]
        begun = [parse_time(lww_map.value(row.known, "start_at")) for row in theirs]
        return any(start is not None and start > moment for start in begun)

    def _reactivate_customer(self, customer_id: str) -> None:
        """Who was erased and subscribes anew is a customer again, of whom nothing of before is known."""
        self._keyring.recreate(customer_id)
        self._session.execute(
            update(Customer)
            .where(Customer.id == customer_id)
            .values(erased_at=None, created_at=self.now, wants_service_mail=True)
            .execution_options(synchronize_session=False)
        )

    def _mails_with_address(self) -> list[outbox.NewMail]:
        """The mails owed; those wait that have nowhere to go, neither by PayPal's word nor by the customer's own.

        What the customer told is locked against change, so that a mail cannot begin to wait for what comes meanwhile.
        """
        named = {mail.subscription_id for mail in self._owed if mail.subscription_id}
        rows = [self._subscriptions[id] for id in named]
        unsure = {row.id: row.customer_id for row in rows if row.email_hash is None}
        if not unsure:
            return self._owed
        told = self._customers_with_address({customer for customer in unsure.values() if customer})
        lost = {id for id, customer in unsure.items() if customer not in told}
        return [replace(mail, has_address=False) if mail.subscription_id in lost else mail for mail in self._owed]

    def _customers_with_address(self, customers: set[str]) -> set[str]:
        """Those of these customers who have told us an address."""
        asked = select(CUSTOMER.c.id, CUSTOMER.c.email_hash).where(in_list(CUSTOMER.c.id, sorted(customers)))
        found = self._session.connection().execute(asked.order_by(CUSTOMER.c.id).with_for_update(read=True))
        return {row.id for row in found.all() if row.email_hash is not None}

    def _release_mail(self) -> list[str]:
        """Mails that waited for an address are due now that one is known."""
        ids = [id for id in self._changed_people if lww_map.value(self._people[id], "email")]
        if not ids:
            return []
        customers = {id for row in ids if (id := self._subscriptions[row].customer_id)}
        theirs = or_(in_list(Mail.subscription_id, ids), in_list(Mail.customer_id, customers))
        waiting = update(Mail).where(theirs, Mail.state == "queued", Mail.due_at.is_(None))
        result = self._session.execute(
            waiting.values(due_at=self.now).returning(Mail.id).execution_options(synchronize_session=False)
        )
        return list(result.scalars())


Handler = Callable[[Event, UnitOfWork], None]


def _named(facts: Sequence[Mapping[str, Any]], kind: str) -> set[str]:
    return {fact[kind] for fact in facts if kind in fact}
