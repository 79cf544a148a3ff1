"""Plans of the simulated vendor: SMT-CRM as a yearly licence and as a monthly cloud service."""

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipeline.money import Money

Unit = Literal["MONTH", "YEAR"]
TrialUnit = Literal["DAY", "WEEK", "MONTH", "YEAR"]
TierModel = Literal["VOLUME", "TIERED"]

PRODUCT_ID = "PROD-4SM73190TC266804R"
PRODUCT_SINCE = datetime(2024, 3, 4, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Trial:
    """A trial step of a plan: `cycles` cycles of `count` times `unit`, each for `price` minor units a seat; 0 is free."""

    unit: TrialUnit
    count: int = 1
    cycles: int = 1
    price: int = 0


@dataclass(frozen=True, slots=True)
class Tier:
    """A price per seat in minor units for the seats `first` to `last`; `last` None means no upper limit."""

    first: int
    last: int | None
    price: int


@dataclass(frozen=True, slots=True)
class Plan:
    """A PayPal plan: `price` is for one seat and one cycle of `count` times `unit`; `cycles` 0 means no end.

    `trial_days` is the length of one free cycle before the first payment. `quantity` is the number of seats of a new
    subscription. PayPal suspends the subscription after `failure_threshold` unpaid cycles; 0 means never.

    `trials` are at most two trial steps (instead of `trial_days`). `setup_fee` and `shipping` are minor units; `shipping`
    belongs to each charge. `tax_percent` is a decimal such as "19.0". With `tiers`, `tier_model` says whether all seats
    cost the price of the last tier (VOLUME) or each seat the price of its own tier (TIERED). `version` is the number of the
    pricing scheme, one higher after each price change; `priced_at` is the time of the last one.
    Source: https://developer.paypal.com/docs/subscriptions/customize/pricing-plans/
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
    priced_at: datetime | None = None
    trials: tuple[Trial, ...] = ()
    setup_fee: int = 0
    setup_fee_failure: Literal["CANCEL", "CONTINUE"] = "CANCEL"
    tax_percent: str = "0.0"
    tax_inclusive: bool = True
    shipping: int = 0
    tiers: tuple[Tier, ...] = ()
    tier_model: TierModel = "VOLUME"
    auto_bill_outstanding: bool = True
    version: int = 1

    @property
    def currency(self) -> str:
        """The currency of all amounts of the plan."""
        return self.price.currency

    @property
    def trial_steps(self) -> tuple[Trial, ...]:
        """The trial steps in their sequence."""
        return (Trial("DAY", self.trial_days),) if self.trial_days else self.trials

    @property
    def trial_cycles(self) -> list[Trial]:
        """Each trial cycle in its sequence: a step with three cycles is listed three times."""
        return [step for step in self.trial_steps for _ in range(step.cycles)]

    def due(self, anchor: datetime, cycle: int) -> datetime:
        """Return when charge number `cycle` (0 is the first) is due for a subscription that began at `anchor`.

        PayPal charges at 10:00 UTC. Each date is computed from the anchor, so the 31st is used again after February.
        """
        return add_months(anchor, cycle * self.count * (12 if self.unit == "YEAR" else 1)).replace(
            hour=10, minute=0, second=0, microsecond=0
        )

    def trial_dues(self, start: datetime) -> list[datetime]:
        """Return when each trial cycle begins. The first begins at the start; later ones at 10:00 UTC."""
        return self._trial_times(start)[:-1]

    def first_due(self, start: datetime) -> datetime:
        """Return the due time of the first regular charge: the end of the trial cycles, or the start."""
        return self._trial_times(start)[-1]

    def _trial_times(self, start: datetime) -> list[datetime]:
        """Return the begin of each trial cycle and the end of the last one."""
        times = [start]
        for step in self.trial_steps:
            begin = times[-1]
            times += [_after(begin, step, number) for number in range(1, step.cycles + 1)]
        return times


def add_months(moment: datetime, months: int) -> datetime:
    """Return the same day `months` later, or the last day of a shorter month."""
    year, month = moment.year + (moment.month - 1 + months) // 12, (moment.month - 1 + months) % 12 + 1
    return moment.replace(year=year, month=month, day=min(moment.day, calendar.monthrange(year, month)[1]))


def _after(begin: datetime, step: Trial, number: int) -> datetime:
    """Return the end of cycle `number` of a trial step that begins at `begin`."""
    if step.unit in ("DAY", "WEEK"):
        return begin + timedelta(days=number * step.count * (7 if step.unit == "WEEK" else 1))
    return add_months(begin, number * step.count * (12 if step.unit == "YEAR" else 1))


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
