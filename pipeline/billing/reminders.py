"""When a renewal reminder is due: how many days before the renewal, by the length of the billing cycle."""

from dataclasses import dataclass

from pipeline.billing.entitlement import BillingCycle

DAYS_PER_UNIT = {"DAY": 1, "WEEK": 7, "MONTH": 30, "YEAR": 360}  # rounded down, so that twelve months are a year


@dataclass(frozen=True, slots=True)
class ReminderPolicy:
    """How many days before a renewal its reminder is owed: for periods of a year or more, and of a month or more."""

    yearly: int = 30
    monthly: int = 3

    def days_before_renewal(self, terms: BillingCycle | None) -> int | None:
        """None: the period is too short to be reminded of. Until PayPal has told the period, a month is taken."""
        length = terms.count * DAYS_PER_UNIT[terms.unit] if terms else DAYS_PER_UNIT["MONTH"]
        if length >= DAYS_PER_UNIT["YEAR"]:
            return self.yearly
        return self.monthly if length >= DAYS_PER_UNIT["MONTH"] else None
