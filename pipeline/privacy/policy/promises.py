"""The numbers of the policy. The code that keeps them and the text that promises them read them here."""

KEPT_YEARS = 2  # after the end of the last subscription
ACCESS_LOG_DAYS = 90
ANSWER_DAYS = 30
ADULT_YEARS = 18
CHILD_YEARS = 13
NOTICE_DAYS = 30  # between the relay's acceptance of the last notice of a material change and its effect
AUDIT_DAYS = 35  # how old the last audit of dependencies may be to be called regular

# As they stand in the text: the name in braces -> the number.
PARAMETERS = {
    "years": KEPT_YEARS,
    "access_log_days": ACCESS_LOG_DAYS,
    "answer_days": ANSWER_DAYS,
    "age": ADULT_YEARS,
    "child": CHILD_YEARS,
}
