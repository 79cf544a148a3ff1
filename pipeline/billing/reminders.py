"""How many days before a renewal its reminder is due, depending on the length of the billing cycle."""

from dataclasses import dataclass

from pipeline.billing.entitlement import BillingCycle

DAYS_PER_UNIT = {"DAY": 1, "WEEK": 7, "MONTH": 30, "YEAR": 360}  # rounded down, so that twelve months are a year


@dataclass(frozen=True, slots=True)
class ReminderPolicy:
    """Days between reminder and renewal, for cycles of a year or more, and of a month up to a year."""

    yearly: int = 30
    monthly: int = 3

    def days_before_renewal(self, terms: BillingCycle | None) -> int | None:
        """Return the days, None if the cycle is shorter than a month. An unknown cycle counts as a month."""
        length = terms.count * DAYS_PER_UNIT[terms.unit] if terms else DAYS_PER_UNIT["MONTH"]
        if length >= DAYS_PER_UNIT["YEAR"]:
            return self.yearly
        return self.monthly if length >= DAYS_PER_UNIT["MONTH"] else None
