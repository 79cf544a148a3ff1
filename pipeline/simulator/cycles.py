"""The billing cycles of one subscription: which cycle is next, when it is due, and at which price."""

from datetime import datetime, timedelta

from pipeline.simulator.plans import Plan, Trial
from pipeline.simulator.pricing import Charge, charge

# A new price does not reach charges within ten days
# (https://developer.paypal.com/docs/subscriptions/customize/pricing-plans/).
PRICE_NOTICE = timedelta(days=10)


class CycleSchedule:
    """Trial cycles and then regular cycles. `anchor` is the first regular charge; `next_cycle` counts regular charges."""

    def __init__(self, plan: Plan, begins: datetime, *, overridden: bool = False) -> None:
        self.plan, self.overridden, self.quantity = plan, overridden, plan.quantity
        self.listed_plan = plan
        self.anchor = plan.first_due(begins)
        self.next_cycle = self.next_trial = 0
        self._trials: list[tuple[datetime, Trial]] = list(zip(plan.trial_dues(begins), plan.trial_cycles, strict=True))
        self._prices: list[tuple[datetime, Plan]] = []
        self.free_until = self._end_of_free_cycles()

    @property
    def due(self) -> datetime | None:
        """When the next cycle is charged, whatever the status; None after the last cycle."""
        ended = self.plan.cycles and self.next_cycle >= self.plan.cycles
        return None if ended else self.cycle_end

    @property
    def cycle_end(self) -> datetime:
        """When the cycle ends that was charged last: the begin of the next one."""
        if self.next_trial < len(self._trials):
            return self._trials[self.next_trial][0].replace(hour=10, minute=0, second=0)
        return self.plan.due(self.anchor, self.next_cycle)

    @property
    def final_due(self) -> datetime | None:
        """When the last cycle is charged; None without an end."""
        return self.plan.due(self.anchor, self.plan.cycles - 1) if self.plan.cycles else None

    def trials_begun(self, now: datetime) -> int:
        """Return how many trial cycles were charged, perhaps early, or are free and have begun."""
        return sum(begin <= now or trial.price > 0 for begin, trial in self._trials[: self.next_trial])

    def change_price(self, plan: Plan, at: datetime) -> None:
        """Let a price change of the plan reach this subscription's charges more than ten days after `at`."""
        if plan.id == self.plan.id and not self.overridden:
            self.listed_plan = plan
            self._prices.append((at + PRICE_NOTICE, plan))

    def change_plan(self, plan: Plan, anchor: datetime) -> None:
        """Change to another plan, whose first charge is at `anchor`. A revised subscription has no trial."""
        self.plan = self.listed_plan = plan
        self._trials, self._prices, self.next_trial = [], [], 0
        self.restart_cycles(anchor)

    def restart_cycles(self, anchor: datetime) -> None:
        """Let the regular cycles count from `anchor`."""
        self.anchor, self.next_cycle = anchor, 0

    def coming_charge(self, quantity: int) -> Charge:
        """Return the charge of the next cycle."""
        trial = self._trials[self.next_trial][1] if self.next_trial < len(self._trials) else None
        return charge(self._plan_at(self.cycle_end), quantity, trial)

    def take_cycle(self, quantity: int) -> Charge:
        """Return the charge of the next cycle and go on to the cycle after it."""
        found = self.coming_charge(quantity)
        self.plan = self._plan_at(self.cycle_end)
        if self.next_trial < len(self._trials):
            self.next_trial += 1
        else:
            self.next_cycle += 1
        self.skip_free_cycles()
        return found

    def skip_free_cycles(self) -> bool:
        """Go on past free trial cycles, which have no charge. Return whether there was one."""
        before = self.next_trial
        while self.next_trial < len(self._trials) and not self._trials[self.next_trial][1].price:
            self.next_trial += 1
        return self.next_trial > before

    def skip_until(self, now: datetime) -> None:
        """Go on past the cycles that fell due until `now` without a charge."""
        while self.due is not None and self.due <= now:
            self.take_cycle(1)

    def _end_of_free_cycles(self) -> datetime | None:
        """Return when the free trial cycles at the begin end; None without one."""
        free = next((number for number, (_, step) in enumerate(self._trials) if step.price), len(self._trials))
        ends = [*(begin for begin, _ in self._trials), self.anchor]
        return ends[free].replace(hour=10, minute=0, second=0) if free else None

    def _plan_at(self, due: datetime) -> Plan:
        reached = [plan for since, plan in self._prices if due > since]
        return reached[-1] if reached else self.plan
