"""The parts of the pipeline, opened from the settings when a command first needs them."""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import structlog

from pipeline.billing.reminders import Reminders
from pipeline.billing.unit_of_work import Handler
from pipeline.broker import Broker
from pipeline.clock import Clock, SystemClock
from pipeline.crypto.master_key import KeyProblem, MasterKey, open_master_key
from pipeline.customers.product_hook import Product, allowed
from pipeline.db import migrations
from pipeline.db.engine import Database, is_made
from pipeline.mailer.mailer import Mailer, Sender
from pipeline.mailer.smtp_relay import Relay
from pipeline.paypal import PayPal
from pipeline.paypal.certificates import Certificates
from pipeline.rendering import message
from pipeline.rendering.templates import Templates, Vendor, default_folder
from pipeline.settings import Settings, SettingsError
from pipeline.web.app import Web
from pipeline.webhooks.receiver import Announcer, Committer, Door
from pipeline.worker.worker import Worker

if TYPE_CHECKING:
    from pipeline.privacy.export import Issuer

log = structlog.get_logger(__name__)


class Parts:
    """One process's parts. Each is made at its first use, so a command asks only for the settings it needs."""

    def __init__(self, settings: Settings, handlers: Mapping[str, Handler], clock: Clock | None = None) -> None:
        self.settings, self.handlers = settings, handlers
        self.clock: Clock = clock or SystemClock()

    @cached_property
    def database(self) -> Database:
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(self.settings.database)

    @cached_property
    def master(self) -> MasterKey:
        """Made at its first use; but where the database holds keys already, a new one would open none of them."""
        path = self.settings.master_key
        if not path.exists() and self.database.holds_keys():
            raise KeyProblem(f"the master key {path} is missing, and this database was written with one: restore it")
        return open_master_key(path)

    @cached_property
    def broker(self) -> Broker:
        return Broker(self.settings.broker_url)

    @cached_property
    def reminders(self) -> Reminders:
        return Reminders(self.settings.reminder_days_yearly, self.settings.reminder_days_monthly)

    @cached_property
    def paypal(self) -> PayPal:
        self.settings.need("paypal_client_id", "paypal_client_secret")
        secret = self.settings.paypal_client_secret.get_secret_value()
        return PayPal(self.settings.paypal_base_url, self.settings.paypal_client_id, secret)

    @cached_property
    def certificates(self) -> Certificates:
        folder = self.settings.data_dir / "certificates"
        return Certificates(folder=folder, anchors=self.settings.paypal_trust_anchors, clock=self.clock)

    @cached_property
    def templates(self) -> Templates:
        return Templates(default_folder(), vendor(self.settings), self.settings.locale)

    @cached_property
    def event_announcer(self) -> Announcer:
        return Announcer(self.broker, "events")

    @cached_property
    def mail_announcer(self) -> Announcer:
        return Announcer(self.broker, "mails")

    @cached_property
    def committer(self) -> Committer:
        return Committer(self.database, self.master, self.clock, self.event_announcer.announce)

    def web(self) -> Web:
        """Raises SettingsError without any webhook id to check signatures by."""
        if not self.settings.paypal_accept_simulator:
            self.settings.need("paypal_webhook_id")
        door = Door(
            self.certificates,
            self.committer,
            self.settings.paypal_webhook_id,
            accept_simulator=self.settings.paypal_accept_simulator,
        )
        return Web(door, self.database, self.clock, self.settings.health_limit_seconds)

    @property
    def _has_listener(self) -> bool:
        """Whether a mailer may hear what is announced: in one process without a relay there is none."""
        return bool(self.settings.smtp_url) or not self.broker.exclusive

    def worker(self) -> Worker:
        return Worker(
            self.database,
            self.master,
            self.clock,
            self.handlers,
            reminders=self.reminders,
            may_read=self.settings.reads_paypal,
            on_mail=self.mail_announcer.announce if self._has_listener else lambda ids: None,
        )

    def mailer(self) -> Mailer:
        """Raises SettingsError without a relay."""
        self.settings.need("smtp_url")
        relay = Relay(self.settings.smtp_url, connections=self.settings.smtp_connections)
        return Mailer(self.database, self.master, self.clock, self.templates, relay, sender(self.settings))

    def need_tables(self) -> None:
        """Raises SettingsError if the tables are not those this program was written for."""
        if not is_made(self.settings.database) or migrations.current(self.database) != migrations.newest():
            raise SettingsError("the database has no tables of this version yet; run: smt-billing db upgrade")

    def need_shared_broker(self, role: str) -> None:
        """Raises SettingsError for a broker that lives in one process, when the role is to be a process of its own."""
        if self.broker.exclusive:
            raise SettingsError(
                f"{role} needs a broker that several processes share: SMT_BROKER_URL is {self.settings.broker_url}, "
                "which lives inside one process. Use amqp://…, or run everything in one process: smt-billing run"
            )


def vendor(settings: Settings) -> Vendor:
    """The vendor as mails show them."""
    return Vendor(
        name=settings.vendor_name,
        url=settings.vendor_url,
        address=settings.vendor_address,
        colour=settings.vendor_colour,
        product=settings.product_name,
        support_email=settings.support_email or settings.mail_from,
    )


def sender(settings: Settings) -> Sender:
    """Who mails are from. Raises SettingsError for an address nobody can write to."""
    if not message.valid_address(settings.mail_from):
        raise SettingsError(f"SMT_MAIL_FROM is not an e-mail address: {settings.mail_from}")
    return Sender(
        name=settings.vendor_name,
        address=settings.mail_from,
        reply_to=settings.support_email or settings.mail_from,
        envelope_domain=settings.envelope_domain,
        locale=settings.locale,
        operator=settings.operator_email,
        pages=settings.public_url,
    )


def contact(settings: Settings) -> str:
    """The address where people ask about their data."""
    return settings.privacy_email or settings.support_email or settings.mail_from


def account_page(settings: Settings) -> str:
    """The page where a person sees and changes what we hold about them."""
    return f"{settings.pages_url}/account"


def issuer(settings: Settings) -> "Issuer":
    """Whose exports are."""
    from pipeline.privacy.export import Issuer

    return Issuer(settings.vendor_name, contact(settings), settings.locale)


def product(settings: Settings) -> Product:
    """The product's own hook. Raises SettingsError where both ways are set, or one that sends data in the clear."""
    if settings.product_command and settings.product_url:
        raise SettingsError("set SMT_PRODUCT_COMMAND or SMT_PRODUCT_URL, not both")
    if settings.product_url and not allowed(settings.product_url):
        raise SettingsError("SMT_PRODUCT_URL must be https://, or http:// on this machine: it is sent personal data")
    return Product(settings.product_command, settings.product_url, settings.product_token.get_secret_value())
