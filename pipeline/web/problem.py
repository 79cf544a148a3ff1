"""Errors as problem details (RFC 9457): what was wrong, and what to do about it."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Lost = Callable[[Request, Exception], Awaitable[Response]]  # answers where there is nothing, as `on_http_error`


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, more: dict[str, object] | None = None
) -> Response:
    """A problem body. `detail` is read by people, `more` are members of its own (RFC 9457 section 3.2)."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse({**body, **(more or {})}, status, headers, media_type="application/problem+json")


async def on_http_error(request: Request, error: Exception) -> Response:
    """What the router refuses itself: unknown addresses and wrong methods."""
    if not isinstance(error, HTTPException):
        return await on_internal_error(request, error)
    details = {
        404: "There is nothing at this address.",
        405: f"{request.method} is not possible here; allowed: {(error.headers or {}).get('Allow', 'other methods')}.",
    }
    return problem(error.status_code, details.get(error.status_code, error.detail), headers=dict(error.headers or {}))


async def on_internal_error(request: Request, error: Exception) -> Response:
    """A fault of ours. PayPal tries again on 503; nothing of the error is told."""
    return problem(503, "Something failed on our side. It has been logged; please try again later.")
