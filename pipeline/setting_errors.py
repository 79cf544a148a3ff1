"""Plain sentences for the errors of pydantic, whose own texts speak of patterns, validators and inputs."""

from pydantic_core import ErrorDetails

_SENTENCES = {  # by the type of the error: https://docs.pydantic.dev/latest/errors/validation_errors/
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "date_from_datetime_parsing": "must be a date, such as 2025-05-01",
    "date_from_datetime_inexact": "must be a date, such as 2025-05-01",
    "date_parsing": "must be a date, such as 2025-05-01",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_type": "must be text",
}
_PATTERNS = {  # by the setting
    "country": "must be two capital letters, such as DE",
    "vendor_colour": "must be a colour, such as #1d4e89",
}


def plain_sentence(error: ErrorDetails) -> str:
    """Return what the setting must be, without its value: `must be a whole number`."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error":  # raised by our own validators
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return _PATTERNS[str(error["loc"][0])]
    return _SENTENCES.get(kind, "is not valid").format(**context)
