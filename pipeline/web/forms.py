"""What a request says: its raw body within bounds, the fields of a form, the object of a JSON body."""

import asyncio
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

SLOWEST_SECONDS = 15
LARGEST_FORM = 16 * 1024  # octets; the longest of our forms has some two thousand


class RequestRejectedError(Exception):
    """A request that is not taken. `title` and the message are read by people."""

    def __init__(self, status: int, title: str, message: str) -> None:
        super().__init__(message)
        self.status, self.title = status, title


async def read_body(receive: Receive, declared: str, largest: int) -> bytes | None:
    """The raw body of a request that declares this length, in octets; None if it is too large, without reading to its end.

    Raises ClientDisconnect.
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
    """The fields of a posted form. Raises Refused for one posted by another site, and for fields we did not ask for."""
    if not is_same_origin(request, origin):
        raise RequestRejectedError(
            403, "This came from elsewhere", "The form was sent by another site. Please open our page and use it there."
        )
    return await fields(request, names)


async def fields(request: Request, names: Collection[str]) -> dict[str, str]:
    """The fields of a form, whoever posted it. Raises Refused."""
    if _media_type(request) not in ("application/x-www-form-urlencoded", ""):
        raise RequestRejectedError(
            415, "This is no form of ours", "Forms are taken as application/x-www-form-urlencoded only."
        )
    try:
        pairs = parse_qsl((await _small(request)).decode(), keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError:
        raise RequestRejectedError(
            400, "This form cannot be read", "Please open the page again and fill it in anew."
        ) from None
    return dict(_known(pairs, names))


async def json_object(request: Request, names: Collection[str]) -> dict[str, Any]:
    """The object of a JSON body. Raises Refused for anything else, and for members we did not ask for."""
    if _media_type(request) != "application/json":
        raise RequestRejectedError(
            415, "Unsupported Media Type", "Send a JSON object, with Content-Type: application/json."
        )
    try:
        found = orjson.loads(await _small(request))
    except orjson.JSONDecodeError:
        raise RequestRejectedError(400, "Bad Request", "The body is not JSON.") from None
    if not isinstance(found, dict):
        raise RequestRejectedError(400, "Bad Request", "The body is not a JSON object.")
    return dict(_known(list(found.items()), names))


def is_same_origin(request: Request, origin: str) -> bool:
    """Whether a page of ours posted this, as far as the browser tells (Fetch Metadata; else Origin, RFC 6454).

    Who sends neither is no browser that another site could use. A browser that tells no site where it has been, as we
    ask for, sends `null`; the token of the form decides then.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    return request.headers.get("origin", "null") in ("null", origin)


def _known(pairs: list[tuple[str, Any]], names: Collection[str]) -> list[tuple[str, Any]]:
    given = [name for name, _ in pairs]
    strange = sorted({name for name in given if name not in names})
    if strange:
        told = ", ".join(name[:40] for name in strange[:5])
        raise RequestRejectedError(
            400, "We did not ask for this", f"Unknown: {told}. What we take is: {', '.join(names)}."
        )
    if len(set(given)) != len(given):
        raise RequestRejectedError(400, "This was said twice", "Each field may be given once only.")
    return pairs


async def _small(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    try:
        body = await asyncio.wait_for(read_body(request.receive, declared, LARGEST_FORM), SLOWEST_SECONDS)
    except (TimeoutError, ClientDisconnect):
        raise RequestRejectedError(
            408, "This took too long", f"It did not arrive within {SLOWEST_SECONDS} seconds."
        ) from None
    if body is None:
        raise RequestRejectedError(413, "This is too much", f"No more than {LARGEST_FORM // 1024} KiB are taken.")
    return body


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
