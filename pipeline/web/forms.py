"""Read request bodies within size and time limits: raw bytes, form fields, or a JSON object."""

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

SLOWEST_SECONDS = 15  # for the whole body
LARGEST_FORM = 16 * 1024  # bytes; our largest form has about 2,000


class RequestRejectedError(Exception):
    """The request is rejected with this status. `title` and message are shown to the user.

    `retry_after`: seconds after which the client may send the request again, None if that would not help.
    """

    def __init__(self, status: int, title: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.title = status, title
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}


async def read_body(receive: Receive, declared: str, largest: int) -> bytes | None:
    """Return the raw body, or None if it exceeds `largest` bytes. `declared` is the Content-Length header.

    A body that is too large is not read to its end. Raises ClientDisconnect.
    """
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > largest):
        return None
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        if len(body) > largest:
            return None
        more = message.get("more_body", False)
    return bytes(body)


async def form(request: Request, names: Collection[str], origin: str) -> dict[str, str]:
    """Return the fields of a posted form. Raises RequestRejectedError for other sites' forms and for unknown fields."""
    if not is_same_origin(request, origin):
        raise RequestRejectedError(
            403, "This form came from another site", "Please open our page and send the form from there."
        )
    return await fields(request, names)


async def fields(request: Request, names: Collection[str]) -> dict[str, str]:
    """Return the fields of a posted form, from any site. Raises RequestRejectedError."""
    if _media_type(request) not in ("application/x-www-form-urlencoded", ""):
        raise RequestRejectedError(415, "Unsupported form", "Please send forms as application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(
            (await _read_small_body(request)).decode(), keep_blank_values=True, max_num_fields=50, errors="strict"
        )
    except ValueError:
        raise RequestRejectedError(
            400, "We could not read this form", "Please reload the page and fill in the form again."
        ) from None
    return dict(_require_known_fields(pairs, names))


async def json_object(request: Request, names: Collection[str]) -> dict[str, Any]:
    """Return the object of a JSON body. Raises RequestRejectedError for other bodies and for unknown members."""
    if _media_type(request) != "application/json":
        raise RequestRejectedError(
            415, "Unsupported Media Type", "Send a JSON object with Content-Type: application/json."
        )
    try:
        found = orjson.loads(await _read_small_body(request))
    except orjson.JSONDecodeError:
        raise RequestRejectedError(400, "Bad Request", "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise RequestRejectedError(400, "Bad Request", "The body is not a JSON object.")
    return dict(_require_known_fields(list(found.items()), names))


def is_same_origin(request: Request, origin: str) -> bool:
    """Return whether one of our pages posted this request (Fetch Metadata, otherwise Origin, RFC 6454).

    A client that sends neither header is not a browser, so another site cannot use it. The origin `null` proves nothing:
    every site can make a browser send it, from a sandboxed frame.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    return request.headers.get("origin", origin) == origin


def _require_known_fields(pairs: list[tuple[str, Any]], names: Collection[str]) -> list[tuple[str, Any]]:
    sent = [name for name, _ in pairs]
    unknown = sorted({name for name in sent if name not in names})
    if unknown:
        listed = ", ".join(name[:40] for name in unknown[:5])
        raise RequestRejectedError(400, "Unknown field", f"Unknown: {listed}. Allowed fields: {', '.join(names)}.")
    if len(set(sent)) != len(sent):
        raise RequestRejectedError(400, "Duplicate field", "Each field may occur only once.")
    return pairs


async def _read_small_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    try:
        body = await asyncio.wait_for(read_body(request.receive, declared, LARGEST_FORM), SLOWEST_SECONDS)
    except (TimeoutError, ClientDisconnect):
        raise RequestRejectedError(
            408, "The request took too long", f"It did not arrive within {SLOWEST_SECONDS} seconds. Please try again."
        ) from None
    if body is None:
        raise RequestRejectedError(413, "The request is too large", f"The limit is {LARGEST_FORM // 1024} KiB.")
    return body


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
