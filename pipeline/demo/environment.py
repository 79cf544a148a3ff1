"""The stage of the demo: a pretend PayPal, the real parts on SQLite and memory://, the catcher, and one web server."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.app import site
from pipeline.app.container import Container
from pipeline.broker import Consumer
from pipeline.clock import Clock, SystemClock
from pipeline.db import migrations
from pipeline.demo.data_folder import CAUGHT
from pipeline.demo.mail_catcher import catch_mail
from pipeline.demo.mailbox_pages import MailboxPages
from pipeline.errors import UsageError as Wrong
from pipeline.settings import Settings, load
from pipeline.simulator.plans import CLOUD, LICENCE
from pipeline.simulator.server.api import FakePaypalApi
from pipeline.simulator.server.loopback import serve
from pipeline.simulator.world import PaypalState

WEBHOOK_ID = "DEMO-WEBHOOK"
NOTE = "The demo's catcher: nothing of this has left this machine."


class DemoClock:
    """Stands where the play puts it; from `release` on it is the machine's clock."""

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
    """Everything that stands while the demo lasts. `url` is the web server's, `caught` the folder of mails."""

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
    """Start everything, and stop it at the end of the block. Raises Wrong when the port that was asked for is taken.

    `make_parts` makes the container, which closes with the block. `show_date` writes a time for people.
    """
    clock, folder = DemoClock(), data_dir / CAUGHT
    with ExitStack() as stack:
        paypal, listens_on = FakePaypalApi(PaypalState(), clock=clock), _free(port, usual_port)
        relay_url = stack.enter_context(catch_mail(folder))
        settings = _settings(stack.enter_context(paypal.serve()), relay_url, f"http://127.0.0.1:{listens_on}")
        parts = make_parts(settings, clock)
        migrations.upgrade(parts.database)
        stack.callback(parts.database.close)
        inlet = stack.enter_context(parts.broker.consumer("events"))
        for thread in (parts.event_publisher, parts.group_committer):
            stack.enter_context(thread)
        caught = MailboxPages(folder, show_date, NOTE)
        routes, lost = stack.enter_context(site.serve_pages(parts))
        app = parts.web().app([*routes, *caught.routes()], lost)
        url = stack.enter_context(serve(app, listens_on))
        yield DemoEnvironment(parts, clock, paypal.world, inlet, url, folder)


def _settings(paypal_url: str, relay_url: str, public_url: str) -> Settings:
    """The operator's settings for looks; ours for everything that must stay inside the demo."""
    return load(
        database_url="",
        broker_url="memory://",
        smtp_url=relay_url,
        public_url=public_url,
        plans={plan.name: plan.id for plan in (LICENCE, CLOUD)},
        paypal_base_url=paypal_url,
        paypal_client_id="simulator",
        paypal_client_secret="simulator-secret",  # noqa: S106 - opens nothing but the pretence
        paypal_webhook_id=(WEBHOOK_ID,),
        paypal_accept_simulator=False,
        paypal_trust_anchors=None,
    )


def _free(port: int | None, usual: int) -> int:
    """The port to listen on: the one asked for, else the usual one, else any."""
    wanted = usual if port is None else port
    try:
        with socket.create_server(("127.0.0.1", wanted)) as listener:
            return int(listener.getsockname()[1])
    except OSError as error:
        if port is None:
            return _free(0, usual)
        raise Wrong(f"port {port} is taken: {error.strerror}; --port 0 takes any") from error
