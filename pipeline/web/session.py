"""Sessions of signed-in customers: one cookie that contains the session's secret."""

import hmac
from datetime import datetime

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline.crypto.keyring import Keyring
from pipeline.customers import sign_in
from pipeline.web.forms import RequestRejectedError, form
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions

COOKIE = "__Host-session"  # the prefix restricts it to this host, to HTTPS, and to the path `/` (RFC 6265bis)
TOKEN = "token"  # noqa: S105 - name of the form field with the CSRF token

NOT_SIGNED_IN = ("You are signed out", "A session lasts 30 minutes. Please sign in again; nothing was changed.")
FORM_EXPIRED = ("This form has expired", "Please go back to your account and try again; nothing was changed.")


class Sessions:
    """Starts, reads and ends the sessions of customers."""

    def __init__(self, site: Site, transactions: Transactions) -> None:
        self._site, self._transactions = site, transactions

    async def customer_id(self, request: Request) -> str | None:
        """Return the id of the signed-in customer, or None."""
        secret = secret_of(request)

        def work(session: Session, _: Keyring, now: datetime) -> str | None:
            return sign_in.session_customer(session, secret, now)

        return await self._transactions.run(work) if secret else None

    async def form(self, request: Request, *names: str) -> tuple[str, dict[str, str]]:
        """Return the signed-in customer's id and the fields of their form.

        Raises RequestRejectedError if the customer is not signed in, or the form's token is not valid.
        """
        entered = await form(request, (*names, TOKEN), self._site.origin)
        customer_id = await self.customer_id(request)
        if customer_id is None:
            raise RequestRejectedError(403, *NOT_SIGNED_IN)
        expected = sign_in.csrf_token(secret_of(request), request.scope["path"])
        if not hmac.compare_digest(entered.pop(TOKEN, "").encode(), expected.encode()):
            raise RequestRejectedError(403, *FORM_EXPIRED)
        return customer_id, entered

    def log_in(self, secret: str) -> Response:
        """Redirect to the account page and set the session cookie."""
        response = self.to_account()
        seconds = sign_in.MINUTES * 60
        response.set_cookie(COOKIE, secret, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
        return response

    def log_out(self) -> Response:
        """Redirect to the sign-in page and delete the cookie."""
        response = self.to_account()
        response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return response

    def to_account(self, note: str = "") -> Response:
        """Redirect to the account page with GET, so that a reload does not post again. `note` selects its notice."""
        location = f"/account?note={note}" if note else "/account"
        return RedirectResponse(location, 303, self._site.headers() | {"Cache-Control": "no-store"})


def secret_of(request: Request) -> str:
    """Return the secret in the session cookie, or ""."""
    return request.cookies.get(COOKIE, "")
