"""The container: builds the objects of the pipeline from the settings, each on first use."""

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property

from pipeline.app import from_settings
from pipeline.billing.reminders import ReminderPolicy
from pipeline.billing.unit_of_work import Handler
from pipeline.broker import Broker
from pipeline.broker.background_publisher import BackgroundPublisher
from pipeline.clock import Clock, SystemClock
from pipeline.crypto.master_key import MasterKey, MasterKeyError, open_master_key
from pipeline.db import migrations
from pipeline.db.engine import Database, exists
from pipeline.dependencies import DependencyRecorder
from pipeline.mailer.mailer import Mailer
from pipeline.mailer.smtp_relay import Relay
from pipeline.operations import test_event
from pipeline.operations.health import HealthCheck
from pipeline.paypal.api import PaypalApi
from pipeline.paypal.certificates import CertificateStore
from pipeline.paypal.rate_limit import TokenBucket
from pipeline.queries import subscriptions
from pipeline.reconciliation.run import Reconciliation
from pipeline.rendering.templates import Templates, default_folder
from pipeline.settings import Settings, SettingsError
from pipeline.web.app import Web
from pipeline.webhooks.group_commit import GroupCommitter
from pipeline.webhooks.receiver import WebhookReceiver
from pipeline.webhooks.replay_alert import ReplayAlert
from pipeline.worker.worker import Worker


class Container:
    """Objects of one process. Each is created on first use, so a command requires only the settings that it needs."""

    def __init__(self, settings: Settings, handlers: Mapping[str, Handler], clock: Clock | None = None) -> None:
        self.settings, self.handlers = settings, handlers
        self.clock: Clock = clock or SystemClock()
        self.dependencies = DependencyRecorder(self.clock)

    @cached_property
    def database(self) -> Database:
        self.settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Database(self.settings.database, self.dependencies.observer("database"))

    @cached_property
    def master_key(self) -> MasterKey:
        """The master key, created if the database has no data keys yet. A new one could not decrypt existing data."""
        path = self.settings.master_key
        if not path.exists() and self.database.holds_keys():
            raise MasterKeyError(
                f"the master key {path} is missing, but the database contains encrypted data: restore it from a copy"
            )
        return open_master_key(path)

    @cached_property
    def broker(self) -> Broker:
        return Broker(self.settings.broker_url, observe=self.dependencies.observer("broker"))

    @cached_property
    def reminder_policy(self) -> ReminderPolicy:
        return ReminderPolicy(self.settings.reminder_days_yearly, self.settings.reminder_days_monthly)

    @cached_property
    def paypal(self) -> PaypalApi:
        self.settings.require("paypal_client_id", "paypal_client_secret")
        secret = self.settings.paypal_client_secret.get_secret_value()
        return PaypalApi(
            self.settings.paypal_base_url,
            self.settings.paypal_client_id,
            secret,
            observe=self.dependencies.observer("paypal"),
        )

    @cached_property
    def paypal_rate(self) -> TokenBucket:
        """The limit of look-ups in this process."""
        return TokenBucket(self.clock)

    @cached_property
    def reconciliation(self) -> Reconciliation:
        return Reconciliation(self.database, self.master_key, self.clock, self.paypal)

    @cached_property
    def certificates(self) -> CertificateStore:
        folder = self.settings.certificates_dir
        return CertificateStore(
            folder=folder, anchors=self.settings.paypal_trust_anchors, clock=self.clock, live=self.settings.is_live
        )

    @cached_property
    def templates(self) -> Templates:
        return Templates(default_folder(), from_settings.branding(self.settings), self.settings.locale)

    @cached_property
    def event_publisher(self) -> BackgroundPublisher:
        return BackgroundPublisher(self.broker, "events")

    @cached_property
    def mail_publisher(self) -> BackgroundPublisher:
        return BackgroundPublisher(self.broker, "mails")

    @cached_property
    def group_committer(self) -> GroupCommitter:
        return GroupCommitter(self.database, self.master_key, self.clock, self.event_publisher.publish_later)

    @cached_property
    def health_check(self) -> HealthCheck:
        return HealthCheck(self.settings, self.database, self.clock, self.dependencies)

    def web(self) -> Web:
        """Return the web application. Raises SettingsError if no webhook id is set: it is needed to verify signatures."""
        if not self.settings.paypal_accept_simulator:
            self.settings.require("paypal_webhook_id")
        receiver = WebhookReceiver(
            self.certificates,
            self.group_committer,
            self.settings.paypal_webhook_id,
            clock=self.clock,
            max_age=timedelta(days=self.settings.paypal_max_age_days),
            accept_simulator=self.settings.paypal_accept_simulator,
            on_replay=ReplayAlert(self.database, self.master_key, self.clock).send,
            on_test_event=lambda: self.dependencies.observe(test_event.NAME, answered=True),
        )
        return Web(receiver, self.health_check, self._subscriptions_by_status)

    def _subscriptions_by_status(self) -> dict[tuple[str, bool], int]:
        with self.database.reading() as session:
            return subscriptions.count_by_status(session, self.clock.now())

    @property
    def _has_mailer(self) -> bool:
        """Whether a mailer may consume mail ids. A single process without a relay has no mailer."""
        return bool(self.settings.smtp_url) or not self.broker.exclusive

    def worker(self) -> Worker:
        return Worker(
            self.database,
            self.master_key,
            self.clock,
            self.handlers,
            reminders=self.reminder_policy,
            may_read=self.settings.has_paypal_credentials,
            max_ahead=timedelta(days=self.settings.paypal_max_ahead_days),
            on_mail=self.mail_publisher.publish_later if self._has_mailer else lambda ids: None,
        )

    def mailer(self) -> Mailer:
        """Return a mailer. Raises SettingsError if no relay is set."""
        self.settings.require("smtp_url")
        relay = self.relay(self.settings.smtp_connections)
        return Mailer(
            self.database, self.master_key, self.clock, self.templates, relay, from_settings.sender(self.settings)
        )

    def relay(self, connections: int = 1, timeout_seconds: float = 30) -> Relay:
        """Return a client of the relay. Raises SmtpConfigError for an invalid URL."""
        return Relay(
            self.settings.smtp_url,
            connections=connections,
            timeout_seconds=timeout_seconds,
            observe=self.dependencies.observer("relay"),
        )

    def require_tables(self) -> None:
        """Raise SettingsError if the tables do not have the revision of this version."""
        if not exists(self.settings.database) or migrations.current(self.database) != migrations.newest():
            raise SettingsError("the database does not have the tables of this version; run: smt-billing db upgrade")

    def require_shared_broker(self, role: str) -> None:
        """Raise SettingsError if the broker serves one process only, so the role cannot run as a separate process."""
        if self.broker.exclusive:
            raise SettingsError(
                f"{role} needs a broker that several processes share, but SMT_BROKER_URL is {self.settings.broker_url}, "
                "which serves one process. Set it to amqp://…, or run all roles in one process: smt-billing run"
            )
