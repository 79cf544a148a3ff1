"""Calls, answers and errors of the simulated API, and the parameters that several calls share.

An operation takes a `Call` and returns status and JSON (None: no body), or raises ApiError. Names, messages and issues are
those of PayPal's OpenAPI files (https://github.com/paypal/paypal-rest-api-specifications).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TypeVar

from pipeline.clock import parse_time
from pipeline.money import InvalidAmountError, Money, parse_amount
from pipeline.simulator import shapes
from pipeline.simulator.timeline import Json

Answer = tuple[int, Json | None]
Item = TypeVar("Item")

MESSAGES = {
    "INVALID_REQUEST": "Request is not well-formed, syntactically incorrect, or violates schema.",
    "RESOURCE_NOT_FOUND": "The specified resource does not exist.",
    "UNPROCESSABLE_ENTITY": (
        "The requested action could not be performed, semantically incorrect, or failed business validation."
    ),
}
DESCRIPTIONS = {
    "INVALID_PARAMETER_SYNTAX": "The value of a field does not conform to the expected format.",
    "INVALID_PARAMETER_VALUE": "The value of a field is invalid.",
    "MISSING_REQUIRED_PARAMETER": "A required field is missing.",
    "MISSING_REQUEST_BODY": "Request body is missing.",
    "INVALID_STRING_MIN_LENGTH": "The value of a field is too short.",
    "INVALID_STRING_MAX_LENGTH": "The value of a field is too long.",
    "INVALID_INTEGER_MIN_VALUE": "The integer value of a field is too small.",
    "INVALID_INTEGER_MAX_VALUE": "The integer value of a field is too large.",
    "INVALID_PATCH_PATH": "The specified field cannot be patched.",
    "UNSUPPORTED_PATCH_OPERATION": "The specified patch operation not supported for this field.",
    "INVALID_RESOURCE_ID": "Specified resource ID does not exist. Please check the resource ID and try again.",
}


class ApiError(Exception):
    """An error answer of PayPal. `details` are the objects with issue, description and, where known, the field."""

    def __init__(self, status: int, name: str, message: str, details: Sequence[Json] = ()) -> None:
        super().__init__(message)
        self.status, self.name, self.message, self.details = status, name, message, list(details)


def invalid(issue: str, field: str = "", description: str = "") -> ApiError:
    """Return error 400 about one field of the request, given as JSON pointer or parameter name."""
    location = {"field": field, "location": "body" if field.startswith("/") else "query"} if field else {}
    detail = {**location, "issue": issue, "description": description or DESCRIPTIONS[issue]}
    return ApiError(400, "INVALID_REQUEST", MESSAGES["INVALID_REQUEST"], [detail])


def not_found(description: str = DESCRIPTIONS["INVALID_RESOURCE_ID"]) -> ApiError:
    """Return error 404 for an unknown id."""
    detail = {"issue": "INVALID_RESOURCE_ID", "description": description}
    return ApiError(404, "RESOURCE_NOT_FOUND", MESSAGES["RESOURCE_NOT_FOUND"], [detail])


def v1_not_found() -> ApiError:
    """Return error 404 of Payments v1, whose errors have their own names."""
    return ApiError(404, "INVALID_RESOURCE_ID", "The requested resource ID was not found.")


def refused(issue: str, description: str) -> ApiError:
    """Return error 422: the request is well-formed, but the state of the object does not allow it."""
    detail = {"issue": issue, "description": description}
    return ApiError(422, "UNPROCESSABLE_ENTITY", MESSAGES["UNPROCESSABLE_ENTITY"], [detail])


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `ids` are the variable parts of its path; `sent` is the JSON body, None without one.

    `raw` are the bytes of the body, `base` is the base URL of this server.
    """

    path: str
    ids: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    sent: object
    raw: bytes
    base: str

    @property
    def id(self) -> str:
        """The id in the path."""
        return self.ids["id"]

    @property
    def request_id(self) -> str:
        """The idempotency key, header `PayPal-Request-Id`; "" without one."""
        return self.headers.get("paypal-request-id", "")

    @property
    def body(self) -> Json:
        """The JSON object in the body; an empty one for anything else."""
        return self.sent if isinstance(self.sent, dict) else {}

    def text(self, name: str, longest: int, *, shortest: int = 1) -> str:
        """Return a required text of the body. Raises ApiError if it is absent, too short or too long."""
        found = self.body.get(name)
        if not isinstance(found, str):
            raise invalid("MISSING_REQUIRED_PARAMETER", f"/{name}")
        if len(found) > longest:
            raise invalid("INVALID_STRING_MAX_LENGTH", f"/{name}")
        if len(found) < shortest:
            raise invalid("INVALID_STRING_MIN_LENGTH", f"/{name}")
        return found

    def number(self, name: str, default: int, largest: int) -> int:
        """Return an integer parameter of the query, from 1 to `largest`. Raises ApiError."""
        text = self.query.get(name, "")
        if not text:
            return default
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
            raise invalid("INVALID_PARAMETER_VALUE", name)
        return int(text)

    def time(self, name: str, *, required: bool = False) -> datetime | None:
        """Return a time of the query in RFC 3339 format, UTC. Raises ApiError if it is invalid or missing."""
        text = self.query.get(name, "")
        if not text and not required:
            return None
        if not text:
            raise invalid("MISSING_REQUIRED_PARAMETER", name)
        found = parse_time(text) if "T" in text.upper() and len(text) >= len("2026-01-01T00:00:00Z") else None
        if found is None:
            raise invalid("INVALID_PARAMETER_SYNTAX", name)
        return found

    def within(self, after: str, before: str, moment: datetime) -> bool:
        """Return whether `moment` lies between the two times of the query; both are optional and inclusive."""
        return self.period(after, before)(moment)

    def period(self, after: str, before: str) -> Callable[[datetime], bool]:
        """Return the test whether a moment lies between the two times of the query. Raises ApiError."""
        since, until = self.time(after), self.time(before)
        return lambda moment: (since is None or since <= moment) and (until is None or moment <= until)

    def choices(self, name: str) -> frozenset[str]:
        """Return the values of a comma-separated parameter; none if it is absent."""
        return frozenset(filter(None, self.query.get(name, "").split(",")))

    @property
    def wants_representation(self) -> bool:
        """Whether the request prefers the whole object (`Prefer: return=representation`) to id, status and links."""
        return "return=representation" in self.headers.get("prefer", "")


Operation = Callable[[Call], Answer]


def page_of(call: Call, name: str, items: list[Json], *, largest: int, default: int = 10) -> Json:
    """Return one page of a collection with links; `total_items` and `total_pages` only if `total_required` is true."""
    size, page = call.number("page_size", default, largest), call.number("page", 1, 100_000)
    pages = -(-len(items) // size)
    totals = {"total_items": len(items), "total_pages": pages} if call.query.get("total_required") == "true" else {}
    links = [_page_link(call, page, "self")]
    links += [_page_link(call, page + 1, "next")] if page < pages else []
    links += [_page_link(call, page - 1, "previous")] if page > 1 else []
    links += [_page_link(call, 1, "first"), _page_link(call, max(pages, 1), "last")]
    return {name: items[(page - 1) * size : page * size], **totals, "links": links}


def link_to(call: Call, parameters: Mapping[str, object], rel: str) -> Json:
    """Return a link to this call with other parameters, at PayPal's own host as in real answers."""
    query = "&".join(f"{key}={value}" for key, value in parameters.items())
    return shapes.link(f"{shapes.API}{call.path}?{query}", rel)


def _page_link(call: Call, page: int, rel: str) -> Json:
    return link_to(call, {**call.query, "page": page}, rel)


_parsed = lru_cache(100_000)(parse_time)  # lists compare the times of all objects


def moment(resource: Json, field: str) -> datetime:
    """Return a time of a simulated object, which always has it."""
    found = _parsed(resource.get(field))
    if found is None:
        raise ValueError(f"the simulated object {resource.get('id')} has no valid {field}")
    return found


def money_v2(value: object, field: str) -> Money:
    """Return an amount `{currency_code, value}` of a request. Raises ApiError."""
    found = value if isinstance(value, dict) else {}
    try:
        return parse_amount(found.get("value"), found.get("currency_code"))
    except InvalidAmountError as error:
        raise invalid("INVALID_PARAMETER_VALUE", field) from error


def patches(call: Call) -> list[tuple[str, str, object]]:
    """Return operation, path and value of a JSON Patch body (RFC 6902). Raises ApiError, also for a repeated path."""
    if not isinstance(call.sent, list) or not call.sent:
        raise invalid("MISSING_REQUEST_BODY")
    found: list[tuple[str, str, object]] = []
    for each in call.sent:
        if not isinstance(each, dict) or not isinstance(each.get("path"), str) or "op" not in each:
            raise invalid("INVALID_PARAMETER_SYNTAX", "/")
        found.append((str(each["op"]), each["path"], each.get("value")))
    if len({path for _, path, _ in found}) < len(found):
        raise invalid("INVALID_PATCH_PATH", description="Multiple operations on the same field are not allowed.")
    return found
