"""Sign-up: validate the form, create the account, and create the subscription that the customer approves at PayPal.

The form asks for name, e-mail, company, phone, plan, an age statement and the newsletter. If the age statement is
missing, nothing is stored. Submitting the same form twice creates one account and one subscription: a hash of the form
and its token is stored for a day, and is also PayPal's request id.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from datetime import timedelta
from typing import Protocol

import structlog
from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, addresses, links, newsletter, rate_limit
from pipeline.customers.accounts import InvalidFieldError, SignUpData
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Link
from pipeline.outbox import store as outbox
from pipeline.outbox.store import NewMail
from pipeline.paypal.errors import PaypalNotFoundError, PaypalRejectedError

log = structlog.get_logger(__name__)

FIELDS = ("name", "email", "company", "phone", "plan", "adult", "news")
TEXTS = "2026-11"  # version of the texts that customers agree to: the age statement and the newsletter
ADULT = "I am 18 years or older."
TOO_YOUNG = (
    "You need to be 18 or older to sign up. If you are younger, please ask an adult to sign up. We have not stored "
    "anything you entered."
)
CHECKBOXES = ("adult", "news")
NO_TEXT = ("This has to be text.", "This has to be true or false.")
REMEMBERED = timedelta(days=1)  # for how long a repeated form is recognized


class SubscriptionCreator(Protocol):
    """Creates a subscription at PayPal and returns its id and the URL of PayPal's approval page."""

    def create_subscription(
        self, plan: str, custom_id: str, request_id: str, *, return_url: str, cancel_url: str
    ) -> tuple[str, str]: ...


class InvalidFormError(Exception):
    """The form is invalid. `problems` maps each invalid field to a sentence."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


class RateLimitError(Exception):
    """The hourly limit of sign-ups from one network is reached."""


class PlanRefusedError(Exception):
    """PayPal refuses a subscription to this plan, and would refuse it again. The message is for the log."""


@dataclass(frozen=True, slots=True)
class SignUpForm:
    """A validated sign-up form. `plan` is PayPal's plan id."""

    person: SignUpData = field(repr=False)
    plan: str
    news: bool


@dataclass(frozen=True, slots=True)
class SignUp:
    """The sign-up service. `plans` maps plan names to PayPal's plan ids; `pages` is the base URL of the customer pages."""

    database: Database
    master: MasterKey
    clock: Clock
    paypal: SubscriptionCreator
    plans: Mapping[str, str]
    pages: str

    def sign_up(self, form: SignUpForm, token: str, address: str) -> str:
        """Create account and subscription, and return the URL of PayPal's approval page.

        `token` is the form's token, `address` the client's network address. Raises RateLimitError, PlanRefusedError,
        DatabaseUnavailableError, PaypalRejectedError (only about the credentials) and PaypalUnavailableError. After a
        PayPal error, submitting the same form again continues with the same account.
        """
        with self.database.transaction() as session:
            keyring = Keyring(self.master, session, self.clock.now())
            custom = _custom_id(session, keyring, form, token)
            approve = self._find_earlier(session, keyring, custom)
            if approve is None:
                self._create_account(session, keyring, form, custom, address)
        return approve or self._subscribe(form, custom)

    def _find_earlier(self, session: Session, keyring: Keyring, custom: str) -> str | None:
        """Return the approval URL of an earlier submission, "" if that one did not finish, None if the form is new.

        A new form is reserved for this call: its row is inserted here.
        """
        now = self.clock.now()
        row = {
            "sha256": links.digest(custom),
            "customer_id": accounts.customer_id(keyring, custom),
            "purpose": "sign_up",
            "created_at": now,
            "expires_at": now + REMEMBERED,
        }
        if insert_new(session, Link, [row], returning=Link.sha256):
            return None
        return str(links.details(session.get_one(Link, row["sha256"]), keyring).get("approve", ""))

    def _create_account(self, session: Session, keyring: Keyring, form: SignUpForm, custom: str, address: str) -> None:
        now = self.clock.now()
        if not rate_limit.allow_client(session, keyring, "sign_up", address, now=now):
            raise RateLimitError("Too many sign-ups from your network. Please try again in an hour.")
        id = accounts.create_account(
            session, keyring, form.person,
            adult_text=TEXTS, news=form.news, now=now, source="sign-up", custom=custom,
        )  # fmt: skip
        minutes = addresses.SIGN_UP_DAYS * 24 * 60
        addresses.request_confirmation(
            session, keyring, id, form.person.email, now, self.pages, minutes=minutes, waits=True
        )
        if form.news:
            newsletter.request_confirmation(session, keyring, id, form.person.email, now, self.pages)

    def _subscribe(self, form: SignUpForm, custom: str) -> str:
        try:
            _id, approve = self.paypal.create_subscription(
                form.plan, custom, custom,
                return_url=f"{self.pages}/signup/done", cancel_url=f"{self.pages}/signup/cancelled",
            )  # fmt: skip
        except (PaypalNotFoundError, PaypalRejectedError) as error:
            if isinstance(error, PaypalRejectedError) and error.concerns_credentials:
                raise
            self._report_refusal(form.plan, str(error))
            raise PlanRefusedError(str(error)) from error
        with self.database.transaction() as session:
            link = session.get_one(Link, links.digest(custom))
            data_key = Keyring(self.master, session, self.clock.now()).get(link.customer_id)
            link.details = data_key.encrypt_json("link.details", {"approve": approve}) if data_key else None
        return approve

    def _report_refusal(self, plan: str, reason: str) -> None:
        """Log the refusal, and queue a mail to the operator: one a day for each plan."""
        log.error("sign_up_refused", plan=plan, reason=reason)
        now = self.clock.now()
        name = next(name for name, id in self.plans.items() if id == plan)
        mail = NewMail(
            "sign_up_refused", f"sign_up_refused:{plan}:{now:%Y-%m-%d}", None,
            {"plan": name, "plan_id": plan, "reason": reason},
        )  # fmt: skip
        with self.database.transaction() as session:
            outbox.enqueue(session, Keyring(self.master, session, now), [mail], now)


def validate_form(form: Mapping[str, object], plans: Mapping[str, str]) -> SignUpForm:
    """Return the validated form. Raises InvalidFormError.

    All fields are text; `adult` and `news` may also be true or false, and are ticked if `is_ticked` accepts their value.
    """
    entered = {name: _text(form.get(name), name) for name in FIELDS}
    problems = {name: NO_TEXT[name in CHECKBOXES] for name, value in entered.items() if value is None}
    if problems:
        raise InvalidFormError(problems)
    return _validate_texts({name: value or "" for name, value in entered.items()}, plans)


def _text(value: object, name: str) -> str | None:
    """Return the text of a field, "" for a missing one, None if its value has another type."""
    if isinstance(value, bool) and name in CHECKBOXES:
        return str(value)
    return value if isinstance(value, str) else "" if value is None else None


def _validate_texts(entered: Mapping[str, str], plans: Mapping[str, str]) -> SignUpForm:
    problems: dict[str, str] = {}
    for name in accounts.FIELDS:
        try:
            accounts.validate_field(name, entered[name])
        except InvalidFieldError as error:
            problems[name] = str(error)
    if entered["plan"] not in plans:
        problems["plan"] = "Please choose one of the plans."
    if not is_ticked(entered["adult"]):
        problems["adult"] = TOO_YOUNG
    if problems:
        raise InvalidFormError(problems)
    person = SignUpData(entered["name"], entered["email"], entered["company"], entered["phone"])
    return SignUpForm(person, plans[entered["plan"]], is_ticked(entered["news"]))


def is_ticked(value: str) -> bool:
    """Return whether a checkbox was ticked, in the values that browsers and JSON clients send."""
    return value.lower() in ("yes", "true", "on")


def _custom_id(session: Session, keyring: Keyring, form: SignUpForm, token: str) -> str:
    """Return the custom_id for PayPal, derived from the form: equal forms have equal ids.

    A form submitted again after its account was erased gets a new id.
    """
    content = "\0".join((token, *astuple(form.person), form.plan, str(form.news)))
    custom = keyring.digest(INDEX, f"sign up:{content}").hex()[:32]
    row = session.get(Customer, accounts.customer_id(keyring, custom))
    if row is None or row.erased_at is None:
        return custom
    return _custom_id(session, keyring, form, f"{token} after {format_time(row.erased_at)}")
