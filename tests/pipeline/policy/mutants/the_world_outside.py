"""Mutants outside the program: relay, product, proxy, operator, settings."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import orjson
from sqlalchemy import update

from pipeline.db.models import Customer, Mail, Policy
from pipeline.network import egress
from pipeline.policy.evidence.connections import Connection
from tests.pipeline.policy.healthy_system import HealthySystem, mail, page
from tests.pipeline.policy.mutants.registry import Patch, of

DIRECT = "Mar  1 10:00:00 mx postfix/smtp[1]: AB: to=<{to}>, relay={host}[198.51.100.7]:{port}, delay=1, status=sent (250 ok)\n"


def product_says(clause: str, name: str, words: str, **answer: Any) -> None:
    """Register a mutant: the product answers otherwise."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        system.product = {**(system.product or {}), **answer}

    mutant.__name__, mutant.__doc__ = name, f"The product {words}."
    of(clause)(mutant)


product_says(
    "1.cloud_place", "product_is_elsewhere", "stores the data at another firm", servers=["db.provider.example.net"]
)
product_says("1.cloud_place", "product_has_a_public_address", "names a public address", servers=["8.8.8.8"])
product_says(
    "1.cloud_place", "one_server_is_elsewhere", "has one of two servers at another firm",
    servers=["cloud.smtconstructions.example.com", "s3.provider.example.net"],
)  # fmt: skip
product_says(
    "1.cloud_at_rest", "product_stores_plain_text", "does not encrypt the data at rest", encrypted_at_rest=False
)
product_says(
    "1.cloud_in_transit", "product_sends_plain_text", "does not encrypt in transit", encrypted_in_transit=False
)
product_says("1.cloud_access", "product_was_read_for_sales", "was read for sales", reads=[{"purpose": "sales"}])
product_says("1.cloud_access", "product_was_read_without_purpose", "was read without a purpose", reads=[{}])
product_says("1.cloud_sharing", "product_shares_data", "shares the data with a firm", shared_with=["Analytics Inc"])


def setting_is(clause: str, name: str, words: str, *, address: str = "8.8.8.8", **overrides: Any) -> None:
    """Register a mutant: a setting names another host."""

    def mutant(system: HealthySystem, patch: Patch) -> None:
        system.overrides.update(overrides)
        patch.setattr(egress, "resolve", lambda _: frozenset({ip_address(address)}))

    mutant.__name__, mutant.__doc__ = name, f"The settings name {words}."
    of(clause)(mutant)


setting_is(
    "5.only",
    "product_hook_is_a_third_party",
    "a hook of another firm",
    product_url="https://hooks.provider.example.net/x",
)
setting_is("5.only", "relay_is_rented", "a relay of another firm", smtp_url="smtps://smtp.provider.example.net")
setting_is(
    "5.postfix", "relay_is_at_a_provider", "a relay of a provider", smtp_url="smtps://u:p@smtp.provider.example.net:465"
)


def database_is(clause: str, name: str, words: str, url: str, address: str) -> None:
    """Register a mutant: the database is elsewhere. The tests' own database stays in use."""

    def mutant(system: HealthySystem, patch: Patch) -> None:
        patch.setattr(HealthySystem, "settings", system.settings.model_copy(update={"database_url": url}))
        patch.setattr(egress, "resolve", lambda _: frozenset({ip_address(address)}))

    mutant.__name__, mutant.__doc__ = name, f"The database is {words}."
    of(clause)(mutant)


database_is(
    "5.only",
    "database_is_rented",
    "at another firm",
    "postgresql://u@db.provider.example.net/x?sslmode=verify-full",
    "8.8.8.8",
)
database_is(
    "7.tls",
    "database_without_tls",
    "on another machine, without TLS",
    "postgresql://u@db.example.com/x?sslmode=disable",
    "10.0.0.7",
)


def paypal_is(name: str, words: str, url: str) -> None:
    def mutant(system: HealthySystem, patch: Patch) -> None:
        unvalidated = system.settings.model_copy(update={"paypal_base_url": url})
        patch.setattr(HealthySystem, "settings", unvalidated)

    mutant.__name__, mutant.__doc__ = name, f"The payment API is {words}."
    of("5.paypal")(mutant)


paypal_is("api_looks_like_paypal", "a host that looks like PayPal's", "https://api-m.paypal.com.example.net")
paypal_is("api_is_a_subdomain", "another host of PayPal's", "https://www.paypal.com")
paypal_is("api_has_a_user_part", "a host behind a user name", "https://api-m.paypal.com@example.net")


@of("7.tls")
def paypal_without_tls(system: HealthySystem, patch: Patch) -> None:
    """PayPal is called without TLS."""
    unvalidated = system.settings.model_copy(update={"paypal_base_url": "http://api-m.paypal.com"})
    patch.setattr(HealthySystem, "settings", unvalidated)


@of("7.tls")
def page_without_hsts(system: HealthySystem, _: Patch) -> None:
    """A page does not ask for HTTPS (Strict-Transport-Security)."""
    system.pages.append(page("/signup", "<p>…</p>"))
    headers = dict(system.pages[-1].headers)
    del headers["strict-transport-security"]
    system.pages[-1] = type(system.pages[-1])("/signup", 200, headers, "<p>…</p>")


def relay_hands_to(name: str, words: str, *hops: tuple[str, str, int]) -> None:
    """Register a mutant: the relay's log names these next hops."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        log = system.pipeline.folder / "relay" / "mail.log"
        log.parent.mkdir(mode=0o700)
        log.write_text("".join(DIRECT.format(to=to, host=host, port=port) for to, host, port in hops))
        log.chmod(0o600)
        system.overrides["relay_log"] = log

    mutant.__name__, mutant.__doc__ = name, f"The relay hands all mail to {words}."
    of("5.postfix")(mutant)


relay_hands_to(
    "relay_submits_to_a_provider", "a provider's submission port", ("a@example.org", "smtp.sendgrid.example.net", 587)
)
relay_hands_to(
    "relay_uses_a_smarthost", "one provider, whatever the domain",
    *((f"a@customer{number}.example", "out.provider.example.net", 25) for number in range(5)),
)  # fmt: skip


@of("5.only")
def worker_is_connected_elsewhere(system: HealthySystem, _: Patch) -> None:
    """The worker is connected to an analytics host."""
    system.connections = {"worker": [Connection(ip_address("203.0.113.9"), 443)]}


def notices_are(name: str, words: str, **values: Any) -> None:
    """Register a mutant: a material text is in force, and its notices have this state."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        day = system.now - timedelta(days=1)
        system.transact(
            lambda session, _: session.execute(update(Customer).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
        )
        system.add(
            Policy(
                id=f"{day:%Y-%m-%d}", text="# Privacy Policy\n\nAnother text.\n", material=True,
                proposed_at=system.now - timedelta(days=40), effective_at=day, withdrawn_at=None,
            )
        )  # fmt: skip
        for id in (system.ada, system.bob):
            mail(system, "policy_changed", f"policy_changed:{day:%Y-%m-%d}:{id}", id, "x@example.com", **values)

    mutant.__name__, mutant.__doc__ = name, f"The notices of a material change are {words}."
    of("9.notice")(mutant)


notices_are("notices_are_refused", "refused by the relay", state="failed", sent_at=None)
notices_are("notices_are_withheld", "withheld", state="withheld", sent_at=None)
notices_are("notices_are_in_doubt", "in doubt", state="doubt", sent_at=None)


@of("9.notice")
def one_customer_is_forgotten(system: HealthySystem, _: Patch) -> None:
    """One of two customers is not told of a material change."""
    day = system.now - timedelta(days=1)
    system.transact(
        lambda session, _: session.execute(update(Customer).values(created_at=datetime(2026, 1, 1, tzinfo=UTC)))
    )
    system.add(
        Policy(
            id=f"{day:%Y-%m-%d}", text="# Privacy Policy\n\nAnother text.\n", material=True,
            proposed_at=system.now - timedelta(days=40), effective_at=day, withdrawn_at=None,
        )
    )  # fmt: skip
    mail(system, "policy_changed", f"policy_changed:{day:%Y-%m-%d}:{system.ada}", system.ada, "ada@example.com")
    old = system.now - timedelta(days=39)
    system.transact(
        lambda session, _: session.execute(update(Mail).where(Mail.kind == "policy_changed").values(sent_at=old))
    )


def audit_is(name: str, words: str, **audit: Any) -> None:
    """Register a mutant: the file of the last dependency audit says this."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        content = {"at": system.now.isoformat(), "ok": True, **audit}
        (system.pipeline.folder / "audit.json").write_bytes(orjson.dumps(content))

    mutant.__name__, mutant.__doc__ = name, f"The last dependency audit {words}."
    of("7.updates")(mutant)


audit_is("audit_found_a_vulnerability", "found a vulnerability", ok=False, reason="CVE-2026-0001")
audit_is("audit_has_no_result", "has no result", ok=None)
audit_is("audit_is_unreadable", "has an unreadable time", at="yesterday")


@of("7.updates")
def never_audited(system: HealthySystem, _: Patch) -> None:
    """The dependencies were never audited, five weeks after the first customer."""
    system.clock.advance(timedelta(days=40))
    (system.pipeline.folder / "audit.json").unlink()


@of("10.contact")
def contact_address_is_none(system: HealthySystem, patch: Patch) -> None:
    """The contact address is no address."""
    unvalidated = system.settings.model_copy(update={"support_email": "help at example.com", "privacy_email": ""})
    patch.setattr(HealthySystem, "settings", unvalidated)


@of("10.contact")
def maildir_is_missing(system: HealthySystem, _: Patch) -> None:
    """The Maildir of the contact address is missing."""
    system.overrides["inbound_maildir"] = system.pipeline.folder / "gone"
