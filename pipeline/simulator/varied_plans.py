"""More plans: paid trials, taxes, set-up fees, tiers, shipping, and currencies with and without decimals."""

from pipeline.money import Money
from pipeline.simulator.plans import Plan, Tier, Trial

TAXED = Plan(
    "P-4TX61820AB3377215MZ7QS2A", "SMT-CRM cloud, plus tax", Money(999, "EUR"), "MONTH", tax_percent="19.0",
    tax_inclusive=False, quantity=3,
)  # fmt: skip
TAX_INCLUDED = Plan(
    "P-5TI72931BC4488326MZ7QS3B", "SMT-CRM cloud, tax included", Money(2900, "EUR"), "MONTH", tax_percent="19.0",
)  # fmt: skip
PAID_TRIALS = Plan(
    "P-7PT83042CD5599437MZ7QS4C", "SMT-CRM cloud, two trials", Money(1200, "USD"), "MONTH", cycles=12,
    trials=(Trial("WEEK", 2), Trial("MONTH", 1, 3, 600)),
)  # fmt: skip
WITH_SETUP = Plan(
    "P-8SF94153DE6600548MZ7QS5D", "SMT-CRM cloud with set-up", Money(2500, "USD"), "MONTH", setup_fee=10_000,
)  # fmt: skip
TRIAL_WITH_SETUP = Plan(
    "P-9TS05264EF7711659MZ7QS6E", "SMT-CRM cloud, trial with set-up", Money(2500, "EUR"), "MONTH",
    trials=(Trial("DAY", 30),), setup_fee=5_000, setup_fee_failure="CONTINUE",
)  # fmt: skip
VOLUME = Plan(
    "P-1VL16375FG8822760MZ7QS7F", "SMT-CRM seats, volume price", Money(1000, "USD"), "MONTH", quantity=12,
    tiers=(Tier(1, 9, 1000), Tier(10, None, 800)),
)  # fmt: skip
TIERED = Plan(
    "P-2TR27486GH9933871MZ7QS8G", "SMT-CRM seats, tiered price", Money(1000, "USD"), "MONTH", quantity=12,
    tiers=(Tier(1, 9, 1000), Tier(10, None, 800)), tier_model="TIERED",
)  # fmt: skip
SHIPPED = Plan(
    "P-3SH38597HJ0044982MZ7QS9H", "SMT-CRM handbook, yearly", Money(4900, "EUR"), "YEAR", shipping=650,
    tax_percent="7.0", tax_inclusive=False,
)  # fmt: skip
FORINT = Plan(
    "P-4HU49608JK1155093MZ7QT1J", "SMT-CRM felhő, havi", Money(9_999, "HUF"), "MONTH", tax_percent="27.0",
    tax_inclusive=False,
)  # fmt: skip
TAIWAN = Plan("P-5TW50719KL2266104MZ7QT2K", "SMT-CRM 雲端 月費", Money(890, "TWD"), "MONTH")
NO_AUTO_BILL = Plan(
    "P-6NB61820LM3377215MZ7QT3L", "SMT-CRM cloud, debts collected by the vendor", Money(1900, "EUR"), "MONTH",
    auto_bill_outstanding=False, failure_threshold=0,
)  # fmt: skip
CLOUD_PRO = Plan("P-7PR72931MN4488326MZ7QT4M", "SMT-CRM managed cloud Pro, monthly", Money(5900, "EUR"), "MONTH")
CLOUD_YEAR = Plan("P-8YR83042NP5599437MZ7QT5N", "SMT-CRM managed cloud, yearly", Money(29_000, "EUR"), "YEAR")

VARIED_PLANS = {
    plan.id: plan
    for plan in (
        TAXED, TAX_INCLUDED, PAID_TRIALS, WITH_SETUP, TRIAL_WITH_SETUP, VOLUME, TIERED, SHIPPED, FORINT, TAIWAN,
        NO_AUTO_BILL, CLOUD_PRO, CLOUD_YEAR,
    )
}  # fmt: skip
