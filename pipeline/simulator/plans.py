"""Plans of the simulated vendor: SMT-CRM as a yearly licence and as a monthly cloud service."""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.money import Money

Unit = Literal["MONTH", "YEAR"]

PRODUCT_ID = "PROD-4SM73190TC266804R"
PRODUCT_SINCE = datetime(2024, 3, 4, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Plan:
    """A PayPal plan: `price` is for one seat and one cycle of `count` times `unit`; `cycles` 0 means no end.

    `trial_days` is the length of one free cycle before the first payment. `quantity` is the number of seats of a new
    subscription. PayPal suspends the subscription after `failure_threshold` unpaid cycles.
    """

    id: str
    name: str
    price: Money
    unit: Unit
    count: int = 1
    cycles: int = 0
    trial_days: int = 0
    quantity: int = 1
    failure_threshold: int = 2
    since: datetime = datetime(2024, 3, 4, 9, 15, tzinfo=UTC)

    def due(self, anchor: datetime, cycle: int) -> datetime:
        """Return when charge number `cycle` (0 is the first) is due for a subscription that began at `anchor`.

        PayPal charges at 10:00 UTC. Each date is computed from the anchor, so the 31st is used again after February.
        """
        months = anchor.month - 1 + cycle * self.count * (12 if self.unit == "YEAR" else 1)
        year, month = anchor.year + months // 12, months % 12 + 1
        day = min(anchor.day, calendar.monthrange(year, month)[1])
        return datetime(year, month, day, 10, tzinfo=UTC)

    def first_due(self, start: datetime) -> datetime:
        """Return the due time of the first charge: the end of the trial, or the start."""
        return start + timedelta(days=self.trial_days)


LICENCE = Plan(
    "P-3LC82617XK4430921MZ7QRTA",
    "SMT-CRM self-hosted licence, yearly",
    Money(49900, "USD"),
    "YEAR",
    failure_threshold=1,
)
CLOUD = Plan("P-8CD19043WE7725614MZ7QRUI", "SMT-CRM managed cloud, monthly", Money(2900, "EUR"), "MONTH")
CLOUD_JAPAN = Plan("P-2JP55870RB1193846MZ7QRVY", "SMT-CRM マネージドクラウド 月額", Money(4800, "JPY"), "MONTH")
CLOUD_SEATS = Plan(
    "P-6ST40285HN9967130MZ7QRXQ",
    "SMT-CRM managed cloud, per seat",
    Money(900, "USD"),
    "MONTH",
    quantity=5,
)
CLOUD_TRIAL = Plan(
    "P-9TR73311GV2084657MZ7QRZI",
    "SMT-CRM managed cloud, 14 days free",
    Money(2900, "EUR"),
    "MONTH",
    trial_days=14,
)
ONBOARDING = Plan(
    "P-1NB64928DF5530172MZ7QR3Y",
    "SMT-CRM onboarding, three months",
    Money(12000, "GBP"),
    "MONTH",
    cycles=3,
)

PLANS = {plan.id: plan for plan in (LICENCE, CLOUD, CLOUD_JAPAN, CLOUD_SEATS, CLOUD_TRIAL, ONBOARDING)}
