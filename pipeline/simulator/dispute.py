"""A dispute about one sale of a subscription, from the buyer's complaint to PayPal's decision.

Stages: INQUIRY, CHARGEBACK, PRE_ARBITRATION, ARBITRATION. PayPal holds the disputed amount while the dispute is open. A
chargeback takes the money back at once, with PAYMENT.SALE.REVERSED; a lost inquiry does so at the end. Source:
https://developer.paypal.com/docs/disputes/
"""

from datetime import datetime, timedelta
from typing import Literal

from pipeline.money import Money
from pipeline.simulator import shapes
from pipeline.simulator.sale import InvalidTransitionError, Sale
from pipeline.simulator.subscription import SimulatedSubscription
from pipeline.simulator.timeline import Json, Kind

Reason = Literal["UNAUTHORISED", "MERCHANDISE_OR_SERVICE_NOT_RECEIVED", "MERCHANDISE_OR_SERVICE_NOT_AS_DESCRIBED"]
Stage = Literal["INQUIRY", "CHARGEBACK", "PRE_ARBITRATION", "ARBITRATION"]
Outcome = Literal["RESOLVED_SELLER_FAVOUR", "RESOLVED_BUYER_FAVOUR"]

RESPONSE_TIME = timedelta(days=10)
DISPUTE_FEE = 1500  # minor units; assumption: PayPal's fee differs by country and volume


class SimulatedDispute:
    """A dispute. Its events are added to the subscription's deliveries. `held` is the amount that PayPal holds."""

    def __init__(
        self,
        subscription: SimulatedSubscription,
        sale: Sale,
        at: datetime,
        *,
        amount: int | None = None,
        reason: Reason = "UNAUTHORISED",
        stage: Stage = "INQUIRY",
    ) -> None:
        """Open the dispute about `amount` minor units, or the rest of the sale; at most that rest."""
        if not 0 < (sale.rest if amount is None else amount) <= sale.rest:
            raise InvalidTransitionError("the disputed amount must be positive and at most what is left of the sale")
        self._subscription, self.sale, self.reason, self.stage = subscription, sale, reason, stage
        self.amount = Money(sale.rest if amount is None else amount, sale.amount.currency)
        self.id = (
            f"PP-R-{''.join(subscription.rng.choices('ABCDEFGHJK', k=3))}-{subscription.rng.randrange(10**7, 10**8)}"
        )
        self.status = "WAITING_FOR_SELLER_RESPONSE"
        self.created = self.updated = at
        self.due_at: datetime | None = at + RESPONSE_TIME
        self.outcome: Outcome | None = None
        self.fee: Money | None = None
        self.reversal: str | None = None
        subscription.disputes.append(self)
        self._emit("CREATED", at)
        self._take_back_for_chargeback(at)

    @property
    def held(self) -> Money:
        """The amount that PayPal holds while the dispute is open and the money is not taken back."""
        return Money(0 if self.outcome or self.reversal else self.amount.amount, self.amount.currency)

    def respond(self, at: datetime) -> None:
        """Send the vendor's answer: PayPal reviews the case, and nothing is due."""
        self._require_open()
        self.status, self.due_at = "UNDER_REVIEW", None
        self._emit("UPDATED", at)

    def escalate(self, stage: Stage, at: datetime) -> None:
        """Move the dispute to a later stage. The vendor has to answer again."""
        self._require_open()
        self.stage, self.status, self.due_at = stage, "WAITING_FOR_SELLER_RESPONSE", at + RESPONSE_TIME
        self._emit("UPDATED", at)
        self._take_back_for_chargeback(at)

    def resolve(self, outcome: Outcome, at: datetime) -> None:
        """Decide the dispute. A lost one takes the money back and costs a fee; a won one gives reversed money back."""
        self._require_open()
        self.outcome, self.status, self.due_at = outcome, "RESOLVED", None
        if outcome == "RESOLVED_BUYER_FAVOUR":
            self.fee = Money(DISPUTE_FEE, self.amount.currency)
            self._take_back(at)
        elif self.reversal is not None:
            self.sale.reinstate(self.reversal, at)
        self._emit("RESOLVED", at)

    def shape(self) -> Json:
        """Return the dispute as the API shows it."""
        shown: Json = {
            "dispute_id": self.id,
            "create_time": shapes.millis(self.created),
            "update_time": shapes.millis(self.updated),
            "disputed_transactions": [self._transaction()],
            "reason": self.reason,
            "status": self.status,
            "dispute_amount": shapes.decimals(self.amount),
            "dispute_life_cycle_stage": self.stage,
            "dispute_channel": "INTERNAL" if self.stage == "INQUIRY" else "EXTERNAL",
            "messages": [
                {"posted_by": "BUYER", "time_posted": shapes.millis(self.created), "content": "I did not order this."}
            ],
            "refund_details": {"allowed_refund_amount": shapes.decimals(Money(self.sale.rest, self.amount.currency))},
            "links": [shapes.link(f"{shapes.API}/v1/customer/disputes/{self.id}", "self")],
        }
        if self.due_at:
            shown["seller_response_due_date"] = shapes.millis(self.due_at)
        if self.outcome:
            refunded = self.amount if self.outcome == "RESOLVED_BUYER_FAVOUR" else Money(0, self.amount.currency)
            shown["dispute_outcome"] = {"outcome_code": self.outcome, "amount_refunded": shapes.decimals(refunded)}
        return shown

    def _transaction(self) -> Json:
        return {
            "seller_transaction_id": self.sale.id,
            "create_time": shapes.millis(self.sale.at),
            "transaction_status": "REVERSED" if self.reversal else "COMPLETED",
            "gross_amount": shapes.decimals(self.sale.amount),
            "custom": self._subscription.person.custom_id,
            "seller": {"merchant_id": "5U29WL78XSAEL", "name": "SMT-CRM"},
            "seller_protection_eligible": True,
        }

    def _take_back_for_chargeback(self, at: datetime) -> None:
        if self.stage == "CHARGEBACK":
            self._take_back(at + timedelta(minutes=2))

    def _take_back(self, at: datetime) -> None:
        """Reverse the disputed amount, or what refunds have left of it."""
        amount = min(self.amount.amount, self.sale.rest)
        if self.reversal is None and amount:
            self.reversal = self._subscription.reverse(self.sale, at, amount)

    def _emit(self, kind: str, at: datetime) -> None:
        self.updated = at
        shown = self.shape()
        kept: list[tuple[Kind, Json]] = [("dispute", shown), ("sale", self.sale.resource)]
        if self.reversal is not None:
            kept.append(("refund", self.sale.refunds[self.reversal]))
        self._subscription.add_event(f"CUSTOMER.DISPUTE.{kind}", at, "dispute", shown, self.amount, kept)

    def _require_open(self) -> None:
        if self.outcome:
            raise InvalidTransitionError(f"the dispute {self.id} is resolved")
