"""Account page: sign-in by e-mail, a summary of the customer's data, and one form for each data-subject right."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.billing.access import disputed_since
from pipeline.billing.arrears import open_balance, past_due_since
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, addresses, links, sign_in, sign_up
from pipeline.customers.account_summary import AccountSummary, summarize_account
from pipeline.customers.accounts import InvalidFieldError
from pipeline.customers.sign_in import SignInLinkSender
from pipeline.db.models import Subscription
from pipeline.email_address import valid_address
from pipeline.money import Money
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow
from pipeline.privacy.export import offer
from pipeline.web.forms import RequestRejectedError, form
from pipeline.web.session import Sessions, secret_of
from pipeline.web.site import Site, client_address
from pipeline.web.transactions import Transactions

CHOICES: tuple[accounts.ConsentKind, ...] = ("marketing", "service")
FORMS = ("correct", "mails", "export", "delete", "keep", "sign-out", "sign-out-everywhere")
# Notices on the account page after a form was sent, by the parameter `note`.
NOTES = {
    "correct": "Your details have been saved.",
    "same": "You made no changes.",
    "confirm": (
        "We are sending a confirmation link to your new address. When you have used it, we ask your previous address, too."
    ),
    "unconfirmed": (
        "Your address was not changed, because you requested too many confirmation links this hour. Please try again in "
        "an hour."
    ),
    "mails": "Your e-mail settings have been saved.",
    "export": "We are sending you an e-mail with a link to your data.",
    "often": "No e-mail was sent, because you requested several links this hour. Please check your inbox first.",
    "delete": "Your account is scheduled for deletion. We are sending you an e-mail about it.",
    "again": "Your account was already scheduled for deletion, so we sent no second e-mail.",
    "too-often": "Nothing was changed, because you did this several times this hour. Please try again later.",
    "keep": "Your account stays. Nothing will be deleted.",
    "late": "It is too late to keep your account: the deletion has started, or it was never requested.",
}
FAILURES = ("unconfirmed", "often", "too-often", "late")  # the notices that report a failure
SENT = (
    "Check your e-mail",
    "If an account belongs to this address, we are sending a sign-in link to it. We send at most three an hour.",
    "The link can be used once, within 30 minutes.",
    "No e-mail? Check your spam folder, or try the address that you use at PayPal.",
)


class AccountViews:
    """Routes of the account page. All forms except sign-in require a session."""

    def __init__(
        self,
        site: Site,
        transactions: Transactions,
        link_sender: SignInLinkSender,
        *,
        erase_wait: timedelta,
        pauses_access: bool = False,
    ) -> None:
        """`pauses_access`: the setting SMT_DISPUTE_PAUSES_ACCESS."""
        self._site, self._transactions, self._link_sender, self._erase_wait = (
            site,
            transactions,
            link_sender,
            erase_wait,
        )
        self._pauses_access = pauses_access
        self._sessions = Sessions(site, transactions)

    def routes(self) -> list[Route]:
        actions: dict[str, Callable[[Request], object]] = {
            "correct": self.correct,
            "mails": self.mails,
            "export": self.export,
            "delete": self.delete,
            "keep": self.keep,
            "sign-out": self.sign_out,
            "sign-out-everywhere": self.sign_out_everywhere,
        }
        route = self._site.route
        return [
            route("/account", self.show),
            route("/account", self.ask, "POST"),
            *(route(f"/account/{name}", actions[name], "POST") for name in FORMS),  # type: ignore[arg-type]
        ]

    async def show(self, request: Request) -> Response:
        """Show the account of a signed-in customer, otherwise the sign-in form."""
        customer_id = await self._sessions.customer_id(request)
        if customer_id is None:
            return self._site.page("sign_in.html", problem="", email="")

        def work(session: Session, keyring: Keyring, now: datetime) -> AccountSummary:
            def standing(row: Subscription) -> tuple[datetime | None, Money | None, datetime | None]:
                return past_due_since(row, now), open_balance(row), disputed_since(session, [row.id]).get(row.id)

            return summarize_account(session, keyring, customer_id, standing)

        return self._account_page(request, await self._transactions.run(work))

    async def ask(self, request: Request) -> Response:
        """Request a sign-in link. Response and timing do not depend on whether the address is known."""
        email = (await form(request, ("email",), self._site.origin)).get("email", "").strip()
        if not valid_address(email):
            problem = "Please enter your e-mail address, for example ada@example.com."
            return self._site.page("sign_in.html", 422, problem=problem, email=email)
        address = client_address(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return sign_in.may_ask(session, keyring, address, now)

        if not await self._transactions.run(work):
            raise RequestRejectedError(
                429,
                "Please wait a little",
                "Too many sign-in links were requested from your network this hour. Please try again later.",
            )
        if not self._link_sender.send_later(email):
            raise RequestRejectedError(
                503,
                "Please try again in a minute",
                "We are sending many sign-in links right now. No link was sent to you.",
            )
        return self._site.message(200, *SENT)

    async def correct(self, request: Request) -> Response:
        """Save name, company and phone at once. A new e-mail address must be confirmed by a link first."""
        customer_id, entered = await self._sessions.form(request, *accounts.FIELDS)

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            return _correct(session, keyring, customer_id, entered, now, self._site.origin)

        try:
            return self._sessions.to_account(await self._transactions.run(work))
        except InvalidFieldError as error:
            raise RequestRejectedError(422, "We could not save your changes", str(error)) from None

    async def mails(self, request: Request) -> Response:
        """Save which optional mail the customer wants."""
        customer_id, entered = await self._sessions.form(request, *CHOICES)

        def work(session: Session, _: Keyring, now: datetime) -> None:
            for kind in CHOICES:
                is_wanted = sign_up.is_ticked(entered.get(kind, ""))
                accounts.record_consent(
                    session,
                    customer_id,
                    kind,
                    given=is_wanted,
                    source="account page",
                    text_version=sign_up.TEXTS,
                    now=now,
                )

        await self._transactions.run(work)
        return self._sessions.to_account("mails")

    async def export(self, request: Request) -> Response:
        """Send the customer a link to an export of their data."""
        customer_id, _ = await self._sessions.form(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return offer.offer_export(session, keyring, customer_id, now, self._site.origin) is not None

        return self._sessions.to_account("export" if await self._transactions.run(work) else "often")

    async def delete(self, request: Request) -> Response:
        """Schedule the erasure of the account."""
        customer_id, _ = await self._sessions.form(request)
        page = links.url(self._site.origin, "cancel_erase", "")

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            if not workflow.within_limit(session, keyring, "erase", customer_id, now):
                return "too-often"
            is_scheduled = accounts.require_customer(session, customer_id).erase_at is not None
            workflow.schedule_erasure(session, keyring, customer_id, now, "page", page=page, wait=self._erase_wait)
            return "again" if is_scheduled else "delete"

        return self._sessions.to_account(await self._transactions.run(work))

    async def keep(self, request: Request) -> Response:
        """Cancel the scheduled erasure."""
        customer_id, _ = await self._sessions.form(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            if not workflow.within_limit(session, keyring, "keep", customer_id, now):
                return "too-often"
            erasure = requests.find_open(session, customer_id, "erase")
            if erasure is None:
                return "late"
            workflow.cancel_erasure(session, erasure.id, now)
            return "keep"

        try:
            return self._sessions.to_account(await self._transactions.run(work))
        except workflow.ErasureTooLateError:
            return self._sessions.to_account("late")

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await self._sessions.form(request)
        secret = secret_of(request)
        await self._transactions.run(lambda session, _, now: sign_in.end_session(session, secret, now))
        return self._sessions.log_out()

    async def sign_out_everywhere(self, request: Request) -> Response:
        """End all sessions of the customer, and revoke their links."""
        customer_id, _ = await self._sessions.form(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> None:
            addresses.sign_out_everywhere(session, keyring, customer_id, now)

        await self._transactions.run(work)
        return self._sessions.log_out()

    def _account_page(self, request: Request, found: AccountSummary) -> Response:
        secret, note = secret_of(request), request.query_params.get("note", "")
        tokens = {name: sign_in.csrf_token(secret, f"/account/{name}") for name in FORMS}
        return self._site.page(
            "account.html",
            found=found,
            tokens=tokens,
            note=NOTES.get(note, ""),
            is_failure=note in FAILURES,
            pauses_access=self._pauses_access,
        )


def _correct(
    session: Session, keyring: Keyring, customer_id: str, entered: dict[str, str], now: datetime, pages: str
) -> str:
    """Save the changed fields. Return the name of the notice. Raises InvalidFieldError."""
    stored = accounts.personal_data(session, keyring, customer_id)
    checked = {name: accounts.validate_field(cast(accounts.Field, name), value) for name, value in entered.items()}
    changed = {name: value for name, value in checked.items() if value != stored.get(name, "")}
    email = changed.pop("email", None)
    for name, value in changed.items():
        accounts.correct_field(session, keyring, customer_id, cast(accounts.Field, name), value, now)
    if email is not None:
        if not addresses.may_request_change(session, keyring, customer_id, email, now):
            return "unconfirmed"
        addresses.request_confirmation(session, keyring, customer_id, email, now, pages)
        return "confirm"
    return "correct" if changed else "same"
