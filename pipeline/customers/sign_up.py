"""Somebody signs up: an account, then a subscription at PayPal that they approve there.

What is asked for is name, e-mail, company, phone and the plan, and nothing else; who is not 18 is turned away and nothing
is kept. The same form sent twice is one account and one subscription: its token, with what it says, is remembered for
a day, and is PayPal's request id.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from datetime import timedelta
from typing import Protocol

from sqlalchemy.orm import Session

from pipeline.clock import Clock, format_time
from pipeline.crypto.keyring import INDEX, Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.customers import accounts, links, rate_limit
from pipeline.customers import newsletter as news
from pipeline.customers.accounts import InvalidFieldError, SignUpData
from pipeline.db.bulk import insert_new
from pipeline.db.engine import Database
from pipeline.db.models import Customer, Link

FIELDS = ("name", "email", "company", "phone", "plan", "adult", "news")
TEXTS = "2026-11"  # the version of what is agreed to on our pages: the sentence below, and the news
ADULT = "I am 18 years or older."
TOO_YOUNG = (
    "You need to be 18 or older to sign up. If you are not, please let an adult do it. We have kept nothing of what you "
    "filled in."
)
REMEMBERED = timedelta(days=1)


class SubscriptionCreator(Protocol):
    """Begins subscriptions at PayPal: its id, and the address where they are approved."""

    def create_subscription(
        self, plan: str, custom_id: str, request_id: str, *, return_url: str, cancel_url: str
    ) -> tuple[str, str]: ...


class InvalidFormError(Exception):
    """What was filled in cannot be taken. `problems` has a sentence for each field that is meant."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        super().__init__(" ".join(problems.values()))
        self.problems = problems


class RateLimitError(Exception):
    """Too many sign-ups from one line in this hour."""


@dataclass(frozen=True, slots=True)
class SignUpForm:
    """What somebody signs up with. `plan` is PayPal's id."""

    person: SignUpData = field(repr=False)
    plan: str
    news: bool


@dataclass(frozen=True, slots=True)
class SignUp:
    """Where people sign up. `plans` are names and PayPal's ids, `pages` the address of our pages."""

    database: Database
    master: MasterKey
    clock: Clock
    paypal: SubscriptionCreator
    plans: Mapping[str, str]
    pages: str

    def sign_up(self, asked: SignUpForm, token: str, line: str) -> str:
        """The address where PayPal has the subscription approved. `token` is the form's, `line` where it came from.

        Raises TooMany, StoreDown, and Rejected and Unavailable of `paypal.errors`; after these the same form goes on where
        it was.
        """
        with self.database.transaction() as session:
            keyring = Keyring(self.master, session, self.clock.now())
            custom = _custom(session, keyring, asked, token)
            approve = self._remembered(session, keyring, custom)
            if approve is None:
                self._keep(session, keyring, asked, custom, line)
        return approve or self._subscribe(asked, custom)

    def _remembered(self, session: Session, keyring: Keyring, custom: str) -> str | None:
        """Where this form led, "" if it came only half the way. None if it is new: then it is ours alone from now on."""
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

    def _keep(self, session: Session, keyring: Keyring, asked: SignUpForm, custom: str, line: str) -> None:
        now, line = self.clock.now(), rate_limit.client_network(line)
        if not rate_limit.allow(session, keyring, "sign_up", line, now=now):
            raise RateLimitError("Too many sign-ups came from your network in this hour; please try again in an hour.")
        id = accounts.create_account(
            session, keyring, asked.person,
            adult_text=TEXTS, news=asked.news, now=now, source="sign-up", custom=custom,
        )  # fmt: skip
        if asked.news:
            news.request_confirmation(session, keyring, id, asked.person.email, now, self.pages)

    def _subscribe(self, asked: SignUpForm, custom: str) -> str:
        _id, approve = self.paypal.create_subscription(
            asked.plan, custom, custom,
            return_url=f"{self.pages}/signup/done", cancel_url=f"{self.pages}/signup/cancelled",
        )  # fmt: skip
        with self.database.transaction() as session:
            link = session.get_one(Link, links.digest(custom))
            seal = Keyring(self.master, session, self.clock.now()).get(link.customer_id)
            link.details = seal.encrypt_json("link.details", {"approve": approve}) if seal else None
        return approve


def validate_form(form: Mapping[str, object], plans: Mapping[str, str]) -> SignUpForm:
    """What was filled in, if it can be taken. Raises Invalid.

    Fields are text; `adult` and `news` are "yes" or true where ticked.
    """
    said = {name: str(form.get(name) or "") for name in FIELDS}
    problems: dict[str, str] = {}
    for name in accounts.FIELDS:
        try:
            accounts.validate_field(name, said[name])
        except InvalidFieldError as error:
            problems[name] = str(error)
    if said["plan"] not in plans:
        problems["plan"] = "Please choose one of the plans."
    if not is_ticked(said["adult"]):
        problems["adult"] = TOO_YOUNG
    if problems:
        raise InvalidFormError(problems)
    person = SignUpData(said["name"], said["email"], said["company"], said["phone"])
    return SignUpForm(person, plans[said["plan"]], is_ticked(said["news"]))


def is_ticked(value: str) -> bool:
    """Whether a box was ticked, as browsers and JSON say it."""
    return value.lower() in ("yes", "true", "on")


def _custom(session: Session, keyring: Keyring, asked: SignUpForm, token: str) -> str:
    """What PayPal is told as custom_id: the same for the same form, and another if a word of it is another.

    A form that is sent once more after its account was erased is a new one.
    """
    form = "\0".join((token, *astuple(asked.person), asked.plan, str(asked.news)))
    custom = keyring.digest(INDEX, f"sign up:{form}").hex()[:32]
    row = session.get(Customer, accounts.customer_id(keyring, custom))
    if row is None or row.erased_at is None:
        return custom
    return _custom(session, keyring, asked, f"{token} after {format_time(row.erased_at)}")
