"""The truth about a simulated subscription in plain values, to compare with what the product stores.

All amounts are minor units of the given currency; all times are UTC. Example:

    life = random_life(Random(7))
    truth = truth_of(life.subscription)
    assert payment_row.amount == truth.transactions[payment_row.id].gross
"""

from dataclasses import dataclass
from datetime import datetime

from pipeline.money import Money, parse_amount
from pipeline.simulator import shapes
from pipeline.simulator.sale import Dispute, Sale
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Json


@dataclass(frozen=True, slots=True)
class NextBilling:
    """The next charge: its time, its parts (see `pricing.Charge`) and their `total`."""

    at: datetime
    price: int
    tax: int
    shipping: int
    balance: int
    total: int
    currency: str


@dataclass(frozen=True, slots=True)
class TrueRefund:
    """A refund or reversal. `amount` is positive. `cancelled`: given back after a won dispute."""

    id: str
    amount: int
    returned_fee: int
    at: datetime
    is_reversal: bool
    cancelled: bool


@dataclass(frozen=True, slots=True)
class TrueTransaction:
    """A sale. `status` is PayPal's state: completed, pending, denied, partially_refunded, refunded.

    `tax` and `shipping` are in `gross`. `fee` is None while nothing is settled; its currency may be the account's.
    `receivable` is what reaches an account in another currency. `cycles` is how many regular cycles it pays.
    """

    id: str
    at: datetime
    gross: int
    currency: str
    tax: int
    shipping: int
    setup_fee: int
    balance: int
    fee: Money | None
    receivable: Money | None
    status: str
    held: bool
    cycles: int
    covers_until: datetime | None
    refunds: tuple[TrueRefund, ...]

    @property
    def refunded(self) -> int:
        """The sum of the refunds and reversals that stand."""
        return sum(refund.amount for refund in self.refunds if not refund.cancelled)


@dataclass(frozen=True, slots=True)
class TrueDispute:
    """A dispute: what is disputed, what PayPal holds, until when the vendor must answer, and how it ended."""

    id: str
    sale: str
    amount: Money
    held: Money
    status: str
    due_at: datetime | None
    outcome: str | None
    fee: Money | None


@dataclass(frozen=True, slots=True)
class Truth:
    """One subscription at PayPal. `resource` is its full representation, as the API shows it now.

    `paid_until` is the end of the time that standing sales and free trials cover; None if nothing was paid.
    """

    id: str
    status: str
    plan_id: str
    quantity: int
    next_billing: NextBilling | None
    paid_until: datetime | None
    outstanding: Money
    failed_payments: int
    transactions: dict[str, TrueTransaction]
    disputes: dict[str, TrueDispute]
    resource: Json


def truth_of(subscription: SimulatedSubscription) -> Truth:
    """Return the truth about a subscription as it is now, after its last change."""
    return Truth(
        subscription.id,
        subscription.status,
        subscription.plan.id,
        subscription.quantity,
        _next_billing(subscription),
        paid_until(subscription),
        Money(subscription.balance, subscription.plan.currency),
        subscription.failures,
        {name: _transaction(sale) for name, sale in subscription.sales.items()},
        {each.id: _dispute(each) for each in subscription.disputes},
        subscription.snapshot(failed=True),
    )


def paid_until(subscription: SimulatedSubscription) -> datetime | None:
    """Return the end of the time that is paid or free. Pending, denied and wholly refunded sales pay nothing."""
    ends = [sale.covers_until for sale in subscription.sales.values() if sale.rest]
    return max(
        (end for end in (*ends, subscription.free_until if subscription.activated else None) if end), default=None
    )


def _next_billing(subscription: SimulatedSubscription) -> NextBilling | None:
    at, charge = subscription.next_billing, subscription.next_charge
    if at is None or charge is None:
        return None
    currency = subscription.plan.currency
    return NextBilling(at, charge.price, charge.tax, charge.shipping, charge.balance, charge.total, currency)


def _transaction(sale: Sale) -> TrueTransaction:
    return TrueTransaction(
        sale.id,
        sale.at,
        sale.amount.amount,
        sale.amount.currency,
        sale.charge.tax + sale.charge.balance_tax,
        sale.charge.shipping,
        sale.charge.setup_fee,
        sale.charge.balance,
        sale.fee,
        sale.receivable,
        str(sale.resource["state"]),
        sale.held,
        sale.cycles,
        sale.covers_until,
        tuple(_refund(shown, sale) for shown in sale.refunds.values()),
    )


def _refund(shown: Json, sale: Sale) -> TrueRefund:
    returned = parse_amount(shown["refund_from_transaction_fee"]["total"], sale.amount.currency).amount
    return TrueRefund(
        str(shown["id"]),
        abs(shapes.refunded_amount(shown)),
        returned,
        datetime.fromisoformat(shown["create_time"]),
        shown["id"] in sale.reversed_ids,
        shown["state"] == "cancelled",
    )


def _dispute(found: Dispute) -> TrueDispute:
    outcome = found.shape().get("dispute_outcome", {}).get("outcome_code")
    return TrueDispute(
        found.id, found.sale.id, found.amount, found.held, found.status, found.due_at, outcome, found.fee
    )
