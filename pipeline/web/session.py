"""Who is signed in: one cookie, which holds the secret of a session and nothing else."""

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

COOKIE = "__Host-session"  # the prefix binds it to this host, to https, and to the whole of it (RFC 6265bis)
TOKEN = "token"  # noqa: S105 - the name of the field that proves that a form is ours

NOT_SIGNED_IN = ("You are signed out", "A session lasts half an hour. Please sign in again; nothing was changed.")
NOT_OURS = ("This form is too old", "Please go back to your account and try again; nothing was changed.")


class Sessions:
    """Knows who is signed in, lets them in and out."""

    def __init__(self, site: Site, records: Transactions) -> None:
        self._site, self._records = site, records

    async def customer_id(self, request: Request) -> str | None:
        """The customer who is signed in."""
        secret = secret_of(request)

        def work(session: Session, _: Keyring, now: datetime) -> str | None:
            return sign_in.session_customer(session, secret, now)

        return await self._records.run(work) if secret else None

    async def form(self, request: Request, *names: str) -> tuple[str, dict[str, str]]:
        """The customer who posted a form of their own, and its fields. Raises Refused for anybody else."""
        said = await form(request, (*names, TOKEN), self._site.origin)
        customer_id = await self.customer_id(request)
        if customer_id is None:
            raise RequestRejectedError(403, *NOT_SIGNED_IN)
        expected = sign_in.csrf_token(secret_of(request), request.url.path)
        if not hmac.compare_digest(said.pop(TOKEN, "").encode(), expected.encode()):
            raise RequestRejectedError(403, *NOT_OURS)
        return customer_id, said

    def log_in(self, secret: str) -> Response:
        """On to the account, with the session in the one cookie we have."""
        answer = self.to_account()
        seconds = sign_in.MINUTES * 60
        answer.set_cookie(COOKIE, secret, max_age=seconds, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    def log_out(self) -> Response:
        """On to the door, without a cookie."""
        answer = self.to_account()
        answer.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="lax")
        return answer

    def to_account(self, note: str = "") -> Response:
        """On to the account, by GET, so that reloading posts nothing twice. `note` names what is to be said there."""
        where = f"/account?note={note}" if note else "/account"
        return RedirectResponse(where, 303, self._site.headers() | {"Cache-Control": "no-store"})


def secret_of(request: Request) -> str:
    """The secret in the cookie, "" without one."""
    return request.cookies.get(COOKIE, "")
