"""Compare requests and answers of the simulated PayPal API with PayPal's OpenAPI files.

Every answer must match the file. A request must match it if the simulator accepted it: the simulator may not be more
lenient than PayPal, and what we send in any test is judged by the way. The files are not public; where they are absent,
nothing is compared.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from jsonschema import Draft4Validator, ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT4
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support.openapi_fields import resolved, unknown_fields
from tests.support.recorded_samples import SHARED

FOLDER = SHARED / "paypal" / "openapi"
PREFIXES = ("/v1/", "/v2/")
NOT_IN_THE_FILES = (
    r"POST /v1/oauth2/token",
    r"GET /v1/billing/subscriptions",  # newer than the file, but in PayPal's SDK 2.4.0
)
# Where PayPal's real answers differ from its files: path, place in the answer, and the rule that does not hold.
DEVIATIONS = (
    (r"/v1/payments/sale/.*", "", "required"),  # a sale of a subscription has no parent payment
    (r"/v1/payments/sale/.*", "payment_hold_status", "enum"),  # RELEASED is sent, but not listed
    (r"/v1/reporting/transactions", "transaction_details", "minItems"),  # nothing found: an empty list
    (r"/v1/reporting/transactions", r".*(_date|_datetime)", "pattern"),  # times end with +0000, without a colon
    (r"/v1/reporting/transactions", r".*paypal_reference_id", "pattern"),  # ids of subscriptions have a dash
    # The file lists only the error of a reason that is too long.
    (r"/v1/billing/subscriptions/[^/]+/(cancel|suspend|activate)", r"details\.\d+", "anyOf"),
    (r"/v1/reporting/transactions", "", "oneOf"),  # the text of the error for more than 31 days
    (r"/v1/customer/disputes", "items", "minItems"),
    (r"/v1/notifications/simulate-event", "event_type", "pattern"),  # RE-ACTIVATED has a dash
)
# Fields that PayPal sends although its files do not name them.
EXTRA_FIELDS = (
    (r"/v1/payments/sale/[^/]+", "custom|invoice_number"),  # as in the webhooks of sales
    # as in the webhooks of refunds
    (r"/v1/payments/refund/.*", r"(refund_(from|to|reason)_\w+|total_refunded_amount)(\..*)?"),
    (r"/v1/billing/subscriptions.*", r"(.*\.)?links\[\]\.encType"),  # of ended subscriptions
    (r"/v1/notifications/webhooks-events.*", r"(events\[\]\.)?(status|transmissions)"),
    # as in PayPal's samples of dispute events
    (r"/v1/customer/disputes.*", r"(.*\.)?disputed_transactions\[\]\.seller_protection_eligible"),
)
# The links of the list of events have parameters that the file does not describe.
UNLISTED_PARAMETERS = {"/v1/notifications/webhooks-events": ("move_to", "index_time", "index_id")}
UNLISTED_STATUS = frozenset({404, 409, 415, 429, 503})  # answered by PayPal's gateway, or described in its guides only


@dataclass(frozen=True)
class Exchange:
    """One request and its answer."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    status: int
    answer: bytes


@dataclass(frozen=True)
class Operation:
    """One operation of an OpenAPI file."""

    file: str
    pattern: re.Pattern[str]
    method: str
    parameters: dict[str, Any]
    body: Any
    answers: dict[str, Any]


class OpenApiJudge:
    """The files of a folder."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._files = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))}
        registry: Registry[Any] = Registry()
        for name, document in self._files.items():
            registry = registry.with_resource(f"urn:{name}", DRAFT4.create_resource(document))
        self._registry = registry
        self._validator = cache(self._new_validator)
        self._operations = list(self._read_operations())

    def compare(self, exchange: Exchange) -> list[str]:
        """Return what does not match, one text per problem."""
        name = f"{exchange.method} {exchange.path}"
        if exchange.answer.startswith(b"<html>"):
            return []  # a gateway's page, which a test asked for
        operation = self._find(exchange)
        if operation is None:
            known = any(re.fullmatch(pattern, name) for pattern in NOT_IN_THE_FILES)
            return [] if known or exchange.status == 404 else [f"{name}: PayPal has no such call"]
        problems = self._of_answer(operation, exchange)
        if exchange.status < 300:
            problems += self._of_request(operation, exchange)
        return [f"{name} -> {exchange.status}: {problem}" for problem in problems]

    def _find(self, exchange: Exchange) -> Operation | None:
        for operation in self._operations:
            if operation.method == exchange.method and operation.pattern.fullmatch(exchange.path):
                return operation
        return None

    def _of_answer(self, operation: Operation, exchange: Exchange) -> list[str]:
        if exchange.status in UNLISTED_STATUS and str(exchange.status) not in operation.answers:
            return []
        status = (
            str(exchange.status) if exchange.status < 300 or str(exchange.status) in operation.answers else "default"
        )
        if status not in operation.answers:
            return ["the status is not in the file"]
        pointer = operation.answers[status]
        if pointer is None:
            return [] if exchange.status >= 300 or not exchange.answer else ["the answer has a body"]
        answer = json.loads(exchange.answer)
        if exchange.status == 401 and set(answer) == {"error", "error_description"}:
            return []  # a rejected token: answered by PayPal's gateway in the form of RFC 6749, section 5.2
        problems = self._problems(operation, pointer, answer, exchange.path)
        # Errors have more fields than the files name: those of the token, and the place of a problem.
        return problems + (self._unknown(operation, pointer, answer, exchange.path) if exchange.status < 300 else [])

    def _of_request(self, operation: Operation, exchange: Exchange) -> list[str]:
        problems = []
        for name, text in exchange.query.items():
            schema = operation.parameters.get(name)
            if schema is None:
                if name in UNLISTED_PARAMETERS.get(exchange.path, ()):
                    continue
                problems.append(f"unknown query parameter {name}")
            else:
                value = int(text) if schema.get("type") == "integer" and text.isdigit() else text
                value = text == "true" if schema.get("type") == "boolean" and text in ("true", "false") else value
                problems += [f"{name}: {each.message}" for each in Draft4Validator(schema).iter_errors(value)]
        if operation.body and exchange.body:
            body = json.loads(exchange.body)
            problems += self._problems(operation, operation.body, body, exchange.path)
            problems += self._unknown(operation, operation.body, body, exchange.path)
        return problems

    def _problems(self, operation: Operation, pointer: str, value: object, path: str) -> list[str]:
        errors = self._validator(f"urn:{operation.file}#{pointer}").iter_errors(value)
        return [f"{error.json_path}: {error.message[:300]}" for error in errors if not _is_deviation(path, error)]

    def _unknown(self, operation: Operation, pointer: str, value: object, path: str) -> list[str]:
        unknown = unknown_fields(self._files[operation.file], pointer, value)
        return [f"unknown field {field}" for field in unknown if not _is_extra(path, field)]

    def _new_validator(self, reference: str) -> Draft4Validator:
        return Draft4Validator({"$ref": reference}, registry=self._registry)

    def _read_operations(self) -> Iterator[Operation]:
        for file, document in self._files.items():
            base = "/v1/reporting" if file.startswith("reporting") else ""
            for path, item in document["paths"].items():
                full = path if path.startswith("/v") else base + path
                pattern = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", full))
                for method, found in item.items():
                    if method in ("get", "post", "put", "patch", "delete"):
                        yield self._operation(file, document, pattern, (path, method), found)

    def _operation(
        self, file: str, document: Any, pattern: re.Pattern[str], at: tuple[str, str], found: Any
    ) -> Operation:
        path, method = at
        pointer = (
            f"/paths/{path.replace('~', '~0').replace('/', '~1').replace('{', '%7B').replace('}', '%7D')}/{method}"
        )
        parameters = [resolved(document, each) for each in found.get("parameters", [])]
        query = {each["name"]: resolved(document, each["schema"]) for each in parameters if each["in"] == "query"}
        body = "requestBody" in found and _json_schema(found["requestBody"]) is not None
        answers = {}
        for status, answer in found["responses"].items():
            place = answer.get("$ref", f"#{pointer}/responses/{status}").removeprefix("#")
            described = _json_schema(resolved(document, answer)) is not None
            answers[status] = f"{place}/content/application~1json/schema" if described else None
        request = f"{pointer}/requestBody/content/application~1json/schema" if body else None
        return Operation(file, pattern, method.upper(), query, request, answers)


class Judged:
    """ASGI application that passes each exchange of the API to `judge`."""

    def __init__(self, app: ASGIApp, judge: Callable[[Exchange], object]) -> None:
        self._app, self._judge = app, judge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIXES):
            await self._app(scope, receive, send)
            return
        asked, answered, status = bytearray(), bytearray(), [0]

        async def recorded_receive() -> Message:
            message = await receive()
            asked.extend(message.get("body", b""))
            return message

        async def recorded_send(message: Message) -> None:
            status[0] = message.get("status", status[0])
            answered.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                # Before the answer is complete, so that the caller cannot end its test first.
                query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
                path = str(scope["path"])
                self._judge(Exchange(scope["method"], path, query, bytes(asked), status[0], bytes(answered)))
            await send(message)

        await self._app(scope, recorded_receive, recorded_send)


def _json_schema(found: Any) -> Any:
    return found.get("content", {}).get("application/json", {}).get("schema")


def _is_deviation(path: str, error: ValidationError) -> bool:
    place = ".".join(str(part) for part in error.absolute_path)
    return any(
        re.fullmatch(wanted, path) and re.fullmatch(where, place) and error.validator == rule
        for wanted, where, rule in DEVIATIONS
    )


def _is_extra(path: str, field: str) -> bool:
    return any(re.fullmatch(wanted, path) and re.fullmatch(named, field) for wanted, named in EXTRA_FIELDS)
