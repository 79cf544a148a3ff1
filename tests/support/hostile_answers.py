"""Hostile answers of PayPal's API, made from a good one: odd values in each field, and odd HTTP."""

import gzip
import json
from collections.abc import Iterator
from typing import Any

from tests.support.loopback_http import Answer

Json = dict[str, Any]
MEBIBYTE = 1024 * 1024
DEEP = "[" * 400 + "]" * 400
# Raw JSON texts that no field of PayPal's may have. `0` and `true` are of a wrong type for each text and object.
ODD_VALUES = (
    "null", "true", "-1", "NaN", "1e400", "99999999999999999999999999", '""', '"\\u0000"', '"\\ud83d"', "[]", "{}",
    '"' + "x" * 5000 + '"', '"9999-99-99T99:99:99Z"', '"../../etc"', DEEP, "[[null]]", '{"value": {"value": 1}}',
)  # fmt: skip
_HOLE = "\0HOLE\0"


def odd_fields(good: Json, keep: tuple[str, ...] = ()) -> Iterator[tuple[str, bytes]]:
    """Yield a name and a body for each field of the good answer: without it, and with each odd value in its place.

    `keep`: top-level fields that stay.
    """
    for path in _paths(good):
        if path[0] in keep:
            continue
        name = ".".join(map(str, path))
        yield f"without {name}", json.dumps(_changed(good, path, None)).encode()
        text = json.dumps(_changed(good, path, _HOLE))
        for odd in ODD_VALUES:
            yield f"{name} = {odd[:20]}", text.replace(json.dumps(_HOLE), odd).encode()


def odd_http(good: Json, elsewhere: str) -> dict[str, Answer]:
    """Return answers that are no good HTTP or JSON. `elsewhere` is the target of a redirect that nobody may follow."""
    body = json.dumps(good).encode()
    padded = json.dumps(good | {"padding": "x" * 2 * MEBIBYTE}).encode()
    bomb = gzip.compress(json.dumps(good | {"padding": " " * 64 * MEBIBYTE}).encode(), 9)
    return {
        "2 MiB": Answer(200, padded),
        "gzip bomb": Answer(200, bomb, {"Content-Encoding": "gzip"}),
        "broken gzip": Answer(200, gzip.compress(body)[:-9], {"Content-Encoding": "gzip"}),
        "no gzip": Answer(200, body, {"Content-Encoding": "gzip"}),
        "truncated JSON": Answer(200, body[: len(body) // 2]),
        "shorter than announced": Answer(200, body, {"Content-Length": str(len(body) + 9)}),
        "invalid UTF-8": Answer(200, body[:-1] + b',"odd":"\xff\xfe"}'),
        "byte order mark": Answer(200, b"\xef\xbb\xbf" + body),
        "UTF-16": Answer(200, body.decode().encode("utf-16")),
        "slow drip": Answer(200, body + b" " * 4000, drip=True),
        "slow header": Answer(200, body, slow_head=True),
        "redirect": Answer(302, body, {"Location": elsewhere}),
        "permanent redirect": Answer(308, b"", {"Location": elsewhere}),
        "204": Answer(204, b"", {"Content-Length": "0"}),
        "empty": Answer(200, b""),
        "HTML": Answer(200, b"<html><body>Just a moment</body></html>", {"Content-Type": "text/html"}),
        "HTML with 404": Answer(404, b"<html>Not found</html>", {"Content-Type": "text/html"}),
        "a list": Answer(200, b"[" + body + b"]"),
        "null": Answer(200, b"null"),
        "a number": Answer(200, b"1e400"),
        "NaN": Answer(200, b"NaN"),
        "deep nesting": Answer(200, b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "no object": Answer(200, b"{}"),
        "error 500": Answer(500, body),
        "error 429 for ever": Answer(429, body, {"Retry-After": "999999999999"}),
        "odd error": Answer(400, b'{"name": [1], "message": {}, "details": [null, 1, {"issue": 5}], "debug_id": true}'),
        "closed": Answer(broken=True),
    }


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each field and list item. Of a list only the first items differ in kind."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in inner:
        yield from _paths(item, (*path, key))


def _changed(value: Any, path: tuple[str | int, ...], new: str | None) -> Any:
    """Return a copy with `new` at this path, or without it if `new` is None."""
    if not path:
        return new
    copy = value.copy()
    if new is None and len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = _changed(value[path[0]], path[1:], new)
    return copy
