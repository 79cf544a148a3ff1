"""Numbers in the policy's text. They come from the constants that the code uses, so text and behaviour agree."""

from pipeline.privacy.requests import ANSWER_WITHIN
from pipeline.privacy.retention.legal_holds import YEAR
from pipeline.privacy.retention.rules import ACCESS_LOG, TWO_YEARS

ADULT_YEARS = 18
CHILD_YEARS = 13
NOTICE_DAYS = 30  # between the relay's acceptance of the last notice of a material change and the date it takes effect
AUDIT_DAYS = 35  # maximum age of the last dependency audit; the policy promises regular security updates

# Name in braces in the text -> number.
PARAMETERS = {
    "years": TWO_YEARS // YEAR,
    "access_log_days": ACCESS_LOG.days,
    "answer_days": ANSWER_WITHIN.days,
    "age": ADULT_YEARS,
    "child": CHILD_YEARS,
}
