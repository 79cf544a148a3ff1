"""Legal retention periods of accounting records by country (SMT_COUNTRY), where longer than the policy's two years.

Records under a legal hold are restricted: they contain no name, no address and no content of a mail.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

YEAR = timedelta(days=365, hours=6)  # average length, with leap years


@dataclass(frozen=True, slots=True)
class RetentionPeriod:
    """Retention in whole years, and the law that requires it. `from_year_end`: counted from the end of the calendar year."""

    invoice_years: int
    law: str
    from_year_end: bool = True
    consent_years: int = 3


POLICY = RetentionPeriod(
    2, "the privacy policy, section 3: two years for legal and accounting purposes", from_year_end=False
)
HOLDS: dict[str, RetentionPeriod] = {
    "AT": RetentionPeriod(7, "BAO section 132"),
    "CH": RetentionPeriod(10, "OR article 958f"),
    "DE": RetentionPeriod(8, "AO section 147(3) and UStG section 14b"),
    "ES": RetentionPeriod(6, "Código de Comercio article 30"),
    "FR": RetentionPeriod(10, "Code de commerce article L123-22"),
    "GB": RetentionPeriod(6, "VAT Act 1994, schedule 11, and VAT Notice 700/21"),
    "IT": RetentionPeriod(10, "Codice civile article 2220"),
    "NL": RetentionPeriod(7, "AWR article 52"),
    "US": RetentionPeriod(7, "26 CFR 1.6001-1 and IRS Publication 583"),
}
# `consent_years`: proof of consent is kept after an erasure. California requires three years (Bus. & Prof. Code section
# 17602); elsewhere a consent can be disputed for about that time.


def retention_period_for(country: str) -> RetentionPeriod:
    """Return the period of a country by its two-letter code (ISO 3166-1), the policy's period for other countries."""
    return HOLDS.get(country.upper(), POLICY)


def kept_until(moment: datetime, country: str) -> datetime:
    """Return the time until which an accounting record of that moment is kept."""
    hold = retention_period_for(country)
    start = moment.replace(month=12, day=31, hour=23, minute=59, second=59) if hold.from_year_end else moment
    return _years_later(start, hold.invoice_years)


def keeps_since(now: datetime, country: str) -> datetime:
    """Return the time from which on accounting records are still kept at `now`: the inverse of `kept_until`."""
    hold = retention_period_for(country)
    then = _years_later(now, -hold.invoice_years)
    return then.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0) if hold.from_year_end else then


def _years_later(moment: datetime, years: int) -> datetime:
    try:
        return moment.replace(year=moment.year + years)
    except ValueError:  # 29 February in a year that is not a leap year
        return moment.replace(year=moment.year + years, day=28)
