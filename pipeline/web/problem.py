"""Error responses as problem details (RFC 9457)."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Lost = Callable[[Request, Exception], Awaitable[Response]]  # answers requests that no route matches


def problem(
    status: int, detail: str, *, headers: dict[str, str] | None = None, more: dict[str, object] | None = None
) -> Response:
    """Return a problem response. `detail` is for people; `more` adds extension members (RFC 9457 section 3.2)."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse({**body, **(more or {})}, status, headers, media_type="application/problem+json")


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer requests that the router refuses: unknown paths and unsupported methods."""
    if not isinstance(error, HTTPException):
        return await on_internal_error(request, error)
    details = {
        404: "There is no page at this address.",
        405: f"{request.method} is not allowed here; use {(error.headers or {}).get('Allow', 'other methods')}.",
    }
    return problem(error.status_code, details.get(error.status_code, error.detail), headers=dict(error.headers or {}))


async def on_internal_error(request: Request, error: Exception) -> Response:
    """Answer 503 after an internal error, so that PayPal retries. The response does not describe the error."""
    return problem(503, "Something went wrong on our side. The error has been logged. Please try again later.")
