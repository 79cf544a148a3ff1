"""The account: signing in by mail, what we hold in short, and each right a person has, one form each."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts, links, sign_in, sign_up
from pipeline.customers.account_summary import AccountSummary, summarize_account
from pipeline.customers.accounts import InvalidFieldError
from pipeline.customers.sign_in import SignInLinkSender
from pipeline.email_address import valid_address
from pipeline.privacy import requests
from pipeline.privacy.erasure import workflow
from pipeline.privacy.export import offer
from pipeline.web.forms import RequestRejectedError, form
from pipeline.web.session import Sessions, secret_of
from pipeline.web.site import Site, client_address
from pipeline.web.transactions import Transactions

CHOICES: tuple[accounts.ConsentKind, ...] = ("marketing", "service")
FORMS = ("correct", "mails", "export", "delete", "keep", "sign-out")
# What is said on the account page after something was done there.
NOTES = {
    "correct": "Your data are corrected. From now on they are used everywhere.",
    "same": "There was nothing to change.",
    "confirm": "A mail is on its way to the new address. The address counts as soon as you follow the link in it.",
    "unconfirmed": (
        "The address stays as it was, and no mail was sent to the new one: too many were asked for in this hour. Please "
        "try again in an hour."
    ),
    "mails": "Your choice is noted and holds from now on.",
    "export": "A mail with a link to your data is on its way to you.",
    "often": "No mail was sent: you have asked for several links in this hour. Please look into your mailbox first.",
    "delete": "The deletion of your account is scheduled, and a mail about it is on its way to you.",
    "again": "The deletion of your account was scheduled already, so no other mail was sent.",
    "too-often": "Nothing was changed: you have asked for this several times in this hour. Please wait a little.",
    "keep": "Your account stays. Nothing will be deleted.",
    "late": "It is too late to keep your account: its deletion has begun, or was never asked for.",
}
UNDONE = ("unconfirmed", "often", "too-often", "late")  # what these notes tell was not done
SENT = (
    "Look into your mailbox",
    "If an account belongs to this address, a mail with a link is on its way to it: three in an hour at most.",
    "The link serves once, within half an hour.",
    "Nothing came? Look among unwanted mail, or try the address that you use at PayPal.",
)


class AccountViews:
    """The routes."""

    def __init__(
        self,
        site: Site,
        records: Transactions,
        doorman: SignInLinkSender,
        *,
        erase_wait: timedelta,
    ) -> None:
        self._site, self._records, self._doorman, self._erase_wait = site, records, doorman, erase_wait
        self._visitors = Sessions(site, records)

    def routes(self) -> list[Route]:
        acts: dict[str, Callable[[Request], object]] = {
            "correct": self.correct,
            "mails": self.mails,
            "export": self.export,
            "delete": self.delete,
            "keep": self.keep,
            "sign-out": self.sign_out,
        }
        route = self._site.route
        return [
            route("/account", self.show),
            route("/account", self.ask, "POST"),
            *(route(f"/account/{name}", acts[name], "POST") for name in FORMS),  # type: ignore[arg-type]
        ]

    async def show(self, request: Request) -> Response:
        """The account of who is signed in; else the question for their address."""
        customer_id = await self._visitors.customer_id(request)
        if customer_id is None:
            return self._site.page("sign_in.html", problem="", email="")

        def work(session: Session, keyring: Keyring, _: datetime) -> AccountSummary:
            return summarize_account(session, keyring, customer_id)

        return self._account(request, await self._records.run(work))

    async def ask(self, request: Request) -> Response:
        """Have a link sent. What is answered, and when, does not depend on whether the address is known."""
        email = (await form(request, ("email",), self._site.origin)).get("email", "").strip()
        if not valid_address(email):
            wrong = "Please give your e-mail address, as ada@example.com."
            return self._site.page("sign_in.html", 422, problem=wrong, email=email)
        line = client_address(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return sign_in.may_ask(session, keyring, line, now)

        if not await self._records.run(work):
            raise RequestRejectedError(
                429, "Please wait a little", "Too many links were asked for from your network in this hour."
            )
        if not self._doorman.send_later(email):
            raise RequestRejectedError(
                503, "Please try again in a minute", "Very many links are asked for just now; none was sent."
            )
        return self._site.message(200, *SENT)

    async def correct(self, request: Request) -> Response:
        """Correct name, company and phone at once; a new address only after its mailbox has confirmed it."""
        customer_id, said = await self._visitors.form(request, *accounts.FIELDS)

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            return _correct(session, keyring, customer_id, said, now, self._site.origin)

        try:
            return self._visitors.to_account(await self._records.run(work))
        except InvalidFieldError as error:
            raise RequestRejectedError(422, "This cannot be kept", str(error)) from None

    async def mails(self, request: Request) -> Response:
        """Choose which mails to have beside those that are owed."""
        customer_id, said = await self._visitors.form(request, *CHOICES)

        def work(session: Session, _: Keyring, now: datetime) -> None:
            for kind in CHOICES:
                given = sign_up.is_ticked(said.get(kind, ""))
                accounts.record_consent(
                    session, customer_id, kind, given=given, source="account page", text_version=sign_up.TEXTS, now=now
                )

        await self._records.run(work)
        return self._visitors.to_account("mails")

    async def export(self, request: Request) -> Response:
        """Have a link to a copy of everything sent."""
        customer_id, _ = await self._visitors.form(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> bool:
            return offer.offer_export(session, keyring, customer_id, now, self._site.origin) is not None

        return self._visitors.to_account("export" if await self._records.run(work) else "often")

    async def delete(self, request: Request) -> Response:
        """Schedule the deletion of the account."""
        customer_id, _ = await self._visitors.form(request)
        page = links.url(self._site.origin, "cancel_erase", "")

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            if not workflow.within_limit(session, keyring, "erase", customer_id, now):
                return "too-often"
            is_leaving = accounts.require_customer(session, customer_id).erase_at is not None
            workflow.schedule_erasure(session, keyring, customer_id, now, "page", page=page, wait=self._erase_wait)
            return "again" if is_leaving else "delete"

        return self._visitors.to_account(await self._records.run(work))

    async def keep(self, request: Request) -> Response:
        """Keep the account after all."""
        customer_id, _ = await self._visitors.form(request)

        def work(session: Session, keyring: Keyring, now: datetime) -> str:
            if not workflow.within_limit(session, keyring, "keep", customer_id, now):
                return "too-often"
            asked = requests.find_open(session, customer_id, "erase")
            if asked is None:
                return "late"
            workflow.cancel_erasure(session, asked.id, now)
            return "keep"

        try:
            return self._visitors.to_account(await self._records.run(work))
        except workflow.ErasureTooLateError:
            return self._visitors.to_account("late")

    async def sign_out(self, request: Request) -> Response:
        """End the session."""
        await self._visitors.form(request)
        secret = secret_of(request)
        await self._records.run(lambda session, _, now: sign_in.end_session(session, secret, now))
        return self._visitors.log_out()

    def _account(self, request: Request, found: AccountSummary) -> Response:
        secret, note = secret_of(request), request.query_params.get("note", "")
        tokens = {name: sign_in.csrf_token(secret, f"/account/{name}") for name in FORMS}
        return self._site.page(
            "account.html", found=found, tokens=tokens, note=NOTES.get(note, ""), undone=note in UNDONE
        )


def _correct(
    session: Session, keyring: Keyring, customer_id: str, said: dict[str, str], now: datetime, pages: str
) -> str:
    """Which note tells what became of it. Raises BadField."""
    known = accounts.personal_data(session, keyring, customer_id)
    checked = {name: accounts.validate_field(cast(accounts.Field, name), value) for name, value in said.items()}
    changed = {name: value for name, value in checked.items() if value != known.get(name, "")}
    email = changed.pop("email", None)
    for name, value in changed.items():
        accounts.correct_field(session, keyring, customer_id, cast(accounts.Field, name), value, now)
    if email is not None:
        asked = sign_in.send_address_confirmation(session, keyring, customer_id, email, now, pages)
        return "confirm" if asked else "unconfirmed"
    return "correct" if changed else "same"
