"""The numbers of the policy's text: the very ones that the code keeps to, so that text and behaviour cannot part."""

from pipeline.privacy.requests import ANSWER_WITHIN
from pipeline.privacy.retention.legal_holds import YEAR
from pipeline.privacy.retention.rules import ACCESS_LOG, TWO_YEARS

ADULT_YEARS = 18
CHILD_YEARS = 13
NOTICE_DAYS = 30  # between the relay's acceptance of the last notice of a material change, and its effect
AUDIT_DAYS = 35  # how old the last audit of dependencies may be, to be called regular

# As they stand in the text: the name in braces -> the number.
PARAMETERS = {
    "years": TWO_YEARS // YEAR,
    "access_log_days": ACCESS_LOG.days,
    "answer_days": ANSWER_WITHIN.days,
    "age": ADULT_YEARS,
    "child": CHILD_YEARS,
}
