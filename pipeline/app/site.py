"""The pages for customers: wired from the parts, with the threads that work behind them."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.routing import BaseRoute

from pipeline.app import from_settings
from pipeline.app.container import Container
from pipeline.customers.sign_in import SignInLinkSender
from pipeline.customers.sign_up import SignUp
from pipeline.policy import public_pages
from pipeline.privacy.access_log import AccessLog
from pipeline.privacy.export.bundle import bundle
from pipeline.web.problem import Lost
from pipeline.web.site import Site
from pipeline.web.transactions import Transactions
from pipeline.web.views.account import Account
from pipeline.web.views.links import LinkViews
from pipeline.web.views.policy import PolicyViews, Texts
from pipeline.web.views.sign_up import SignUpViews, approval_origins
from pipeline.web.views.unsubscribe import UnsubscribeViews


@contextmanager
def served(parts: Container) -> Iterator[tuple[list[BaseRoute], Lost]]:
    """The routes of all pages and what answers beside them, with their threads running as long as the block lasts."""
    settings, given = parts.settings, (parts.database, parts.master, parts.clock)
    with AccessLog(*given) as visits, SignInLinkSender(*given, settings.pages_url) as doorman:
        site = Site(from_settings.vendor(settings), settings.locale, settings.pages_url, visits)
        yield _routes(parts, site, doorman), site.lost


def _routes(parts: Container, site: Site, doorman: SignInLinkSender) -> list[BaseRoute]:
    records = Transactions(parts.database, parts.master, parts.clock)
    groups = (
        SignUpViews(site, _desk(parts), approval_origins(parts.settings.paypal_base_url)),
        Account(site, records, doorman, erase_wait=from_settings.wait(parts.settings)),
        LinkViews(site, records, lambda customer_id: _export(parts, customer_id)),
        UnsubscribeViews(site, records),
        PolicyViews(site, records, _texts(parts)),
    )
    return [*site.looks(), *(route for group in groups for route in group.routes())]


def _desk(parts: Container) -> SignUp | None:
    """Where people sign up; None without PayPal's credentials, or without a plan to sign up for."""
    settings = parts.settings
    if not settings.has_paypal_credentials or not settings.plans:
        return None
    return SignUp(parts.database, parts.master, parts.clock, parts.paypal, settings.plans, settings.pages_url)


def _export(parts: Container, customer_id: str) -> bytes:
    return bundle(
        parts.database,
        parts.master,
        parts.clock.now(),
        customer_id,
        issuer=from_settings.issuer(parts.settings),
        product=from_settings.product(parts.settings),
    )


def _texts(parts: Container) -> Texts:
    settings = parts.settings
    whose = from_settings.publisher(settings)
    return Texts(
        in_force=lambda session, now: public_pages.page(session, now, whose, settings.policy_effective),
        of_day=public_pages.page_of,
        evidence=lambda: public_pages.evidence(settings.data_dir, whose)[0],
    )
