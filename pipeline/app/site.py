"""Builds the customer pages from the container, and runs their background threads."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.routing import BaseRoute

from pipeline.app import from_settings
from pipeline.app.container import Container
from pipeline.customers.sign_in import SignInLinkSender
from pipeline.customers.sign_up import SignUp
from pipeline.policy import public_pages
from pipeline.privacy.access_log import AccessLog
from pipeline.privacy.export.bundle import build_export
from pipeline.privacy.export.spool import Spool
from pipeline.web.problem import Lost
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions
from pipeline.web.views.account import AccountViews
from pipeline.web.views.links import LinkViews
from pipeline.web.views.policy import PolicyTexts, PolicyViews
from pipeline.web.views.sign_up import SignUpViews, approval_origins
from pipeline.web.views.unsubscribe import UnsubscribeViews


@contextmanager
def serve_pages(container: Container) -> Iterator[tuple[list[BaseRoute], Lost]]:
    """Yield the routes of all pages and the handler for unknown paths. The background threads run inside the block."""
    settings, storage = container.settings, (container.database, container.master_key, container.clock)
    with AccessLog(*storage) as access_log, SignInLinkSender(*storage, settings.pages_url) as link_sender:
        site = Site(from_settings.branding(settings), settings.locale, settings.pages_url, access_log)
        yield _routes(container, site, link_sender), site.not_found


def _routes(container: Container, site: Site, link_sender: SignInLinkSender) -> list[BaseRoute]:
    records = Transactions(container.database, container.master_key, container.clock)
    groups = (
        SignUpViews(site, _sign_up(container), approval_origins(container.settings.paypal_base_url)),
        AccountViews(
            site,
            records,
            link_sender,
            erase_wait=from_settings.erasure_wait(container.settings),
            pauses_access=container.settings.dispute_pauses_access,
        ),
        LinkViews(site, records, lambda customer_id: _export(container, customer_id)),
        UnsubscribeViews(site, records),
        PolicyViews(site, records, _texts(container)),
    )
    return [*site.static_routes(), *(route for group in groups for route in group.routes())]


def _sign_up(container: Container) -> SignUp | None:
    """Return the sign-up, or None without PayPal credentials or plans."""
    settings = container.settings
    if not settings.has_paypal_credentials or not settings.plans:
        return None
    return SignUp(
        container.database, container.master_key, container.clock, container.paypal, settings.plans, settings.pages_url
    )


def _export(container: Container, customer_id: str) -> Spool:
    return build_export(
        container.database,
        container.master_key,
        container.clock.now(),
        customer_id,
        issuer=from_settings.export_issuer(container.settings),
        product=from_settings.product_hook(container.settings),
        folder=container.settings.data_dir,
    )


def _texts(container: Container) -> PolicyTexts:
    settings = container.settings
    owner = from_settings.policy_owner(settings)
    return PolicyTexts(
        in_force=lambda session, now: public_pages.page(session, now, owner, settings.policy_effective),
        of_day=public_pages.page_of,
        evidence=lambda: public_pages.evidence(settings.data_dir, owner)[0],
    )
