"""The environment of the demo: simulated PayPal, the real pipeline on SQLite and memory://, mail catcher, web server."""

import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import select

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.app.web_server import checked
from pipeline.broker import Consumer
from pipeline.clock import Clock, SystemClock
from pipeline.db import migrations
from pipeline.db.engine import Database
from pipeline.db.models import Mail
from pipeline.demo.data_folder import CAUGHT
from pipeline.demo.mail_catcher import catch_mail
from pipeline.demo.mailbox_pages import MailboxPages
from pipeline.demo.paypal_state import PageWebhooks, restore_state
from pipeline.demo.start_page import StartPage
from pipeline.demo.vendor import CREDENTIALS, announced_paypal, with_demo_vendor
from pipeline.errors import UsageError
from pipeline.operations.webhook_check import needed_types
from pipeline.queries.listing import Decryptor
from pipeline.settings import Settings, load
from pipeline.simulator.plans import CLOUD, LICENCE
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.world import PaypalState

WEBHOOK_ID = "DEMO-WEBHOOK"
OPERATOR = "operator@example.com"  # receives the mails to the operator, which the demo shows, too
NOTE = "Mails of the demo. None of them has left this machine."


class DemoClock:
    """A clock that the playback sets. After `release` it shows the system time."""

    def __init__(self) -> None:
        self._moment: datetime | None = None

    def now(self) -> datetime:
        return self._moment or SystemClock().now()

    def move_to(self, moment: datetime) -> None:
        self._moment = moment

    def release(self) -> None:
        self._moment = None


@dataclass(frozen=True, slots=True)
class DemoEnvironment:
    """The running parts of a demo. `url` is the web server's URL, `caught` the folder of caught mails."""

    parts: Container
    clock: DemoClock
    world: PaypalState
    inlet: Consumer
    url: str
    caught: Path
    webhook_id: str = WEBHOOK_ID


@contextmanager
def open_environment(
    data_dir: Path,
    make_parts: Callable[[Settings, Clock], Container],
    show_date: Callable[[datetime], str],
    *,
    port: int | None,
    usual_port: int,
) -> Iterator[DemoEnvironment]:
    """Start all parts, and stop them at the end of the block. Raises UsageError if the requested port is in use.

    `make_parts` creates the container. `show_date` formats a time for people.
    """
    clock, folder = DemoClock(), data_dir / CAUGHT
    with ExitStack() as stack:
        # A random seed, because the subscriptions of an earlier start are in the database.
        paypal = FakePaypalApi(PaypalState(), clock=clock, seed=secrets.randbits(32))
        listen_port = _find_port(port, usual_port)
        relay_url = stack.enter_context(catch_mail(folder, lambda mail_id: _kind_of(container.database, mail_id)))
        paypal_url = stack.enter_context(paypal.serve())
        settings = _settings(paypal_url, relay_url, f"http://127.0.0.1:{listen_port}")
        container = make_parts(settings, clock)
        migrations.upgrade(container.database)
        stack.callback(container.database.close)
        _restore(paypal.world, container)
        inlet = stack.enter_context(container.broker.consumer("events"))
        for thread in (container.event_publisher, container.group_committer):
            stack.enter_context(thread)
        demo_pages = [*StartPage(container, NOTE).routes(), *MailboxPages(folder, show_date, NOTE).routes()]
        routes, lost = stack.enter_context(site.serve_pages(container))
        url = stack.enter_context(
            serve(checked(container.settings, container.web().app([*routes, *demo_pages], lost)), listen_port)
        )
        webhooks = PageWebhooks(container.settings, clock, f"{url}/webhooks/paypal", WEBHOOK_ID)
        stack.callback(webhooks.close)
        paypal.set_on_event(webhooks.post)
        paypal.webhooks.register(WEBHOOK_ID, f"{url}/webhooks/paypal", needed_types(container.handlers))
        stack.enter_context(announced_paypal(data_dir, paypal_url, WEBHOOK_ID, url))
        yield DemoEnvironment(container, clock, paypal.world, inlet, url, folder)


def _kind_of(database: Database, mail_id: str) -> str | None:
    """Return the kind of a mail of the outbox; None if there is no such mail."""
    with database.reading() as session:
        return session.execute(select(Mail.kind).where(Mail.id == mail_id)).scalar_one_or_none()


def _restore(world: PaypalState, container: Container) -> None:
    """Let the simulated PayPal know the subscriptions that the database contains."""
    with container.database.reading() as session:
        restore_state(world, Decryptor(session, lambda: container.master_key, container.clock.now()))


def _settings(paypal_url: str, relay_url: str, public_url: str) -> Settings:
    """Return the operator's settings, with database, broker, relay and PayPal replaced by those of the demo.

    The demo's vendor is used where the operator has set none.
    """
    settings = load(
        database_url="",
        broker_url="memory://",
        smtp_url=relay_url,
        operator_email=OPERATOR,
        public_url=public_url,
        plans={plan.name: plan.id for plan in (LICENCE, CLOUD)},
        paypal_base_url=paypal_url,
        paypal_client_id=CREDENTIALS["paypal_client_id"],
        paypal_client_secret=CREDENTIALS["paypal_client_secret"],
        paypal_webhook_id=(WEBHOOK_ID,),
        paypal_accept_simulator=False,
        paypal_trust_anchors=None,
    )
    return with_demo_vendor(settings)


def _find_port(port: int | None, usual: int) -> int:
    """Return the port to listen on: the requested one, otherwise `usual`, otherwise any free port."""
    requested = usual if port is None else port
    try:
        with socket.create_server(("127.0.0.1", requested)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        if port is None:
            return _find_port(0, usual)
        raise UsageError(f"cannot listen on port {port}: {error.strerror}; use --port 0 for any free port") from error
