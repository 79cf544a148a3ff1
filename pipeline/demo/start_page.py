"""The demo's start page: links to the order page, the account page, the policy and the mails, and a customer to sign in as."""

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.app.container import Container
from pipeline.crypto.keyring import Keyring
from pipeline.customers import accounts
from pipeline.db.models import Customer, Mail, Subscription
from pipeline.demo.mailbox_pages import ALWAYS, FOLDER, PAGE_POLICY
from pipeline.policy import public_pages
from pipeline.web import site

CANDIDATES = 10  # customers that are tried, until one has an address of its own


class StartPage:
    """The route `/` of the demo's web server."""

    def __init__(self, container: Container, note: str) -> None:
        """`note` is a line next to the heading."""
        self._container, self._note = container, note
        self._templates = Environment(
            loader=FileSystemLoader([FOLDER, site.FOLDER]), autoescape=True, undefined=StrictUndefined
        )

    def routes(self) -> list[Route]:
        return [Route("/", self.show)]

    async def show(self, _: Request) -> Response:
        """Show the start page."""
        email, settings = await run_in_threadpool(sample_address, self._container), self._container.settings
        html = self._templates.get_template("start.html").render(
            email=email,
            note=self._note,
            product=settings.product_name,
            plans=list(settings.plans),
            was_checked=(settings.data_dir / public_pages.FILE).exists(),
        )
        return HTMLResponse(html, headers=ALWAYS | {"Content-Security-Policy": PAGE_POLICY})


def sample_address(container: Container) -> str | None:
    """Return the address of an active subscriber to sign in as: one with many mails. None if there is none."""
    eventful = (
        select(Customer.id)
        .join(Subscription, Subscription.customer_id == Customer.id)
        .outerjoin(Mail, Mail.subscription_id == Subscription.id)
        .where(Subscription.status == "ACTIVE", Customer.erased_at.is_(None), Customer.erase_at.is_(None))
        .group_by(Customer.id)
        .order_by(func.count(Mail.id).desc(), Customer.id)
        .limit(CANDIDATES)
    )
    with container.database.reading() as session:
        keyring = Keyring(container.master_key, session, container.clock.now())
        for id in session.execute(eventful).scalars().all():
            email = accounts.personal_data(session, keyring, id).get("email")
            if email and accounts.find_by_email(session, keyring, email) == [id]:
                return email
    return None
