"""`smt-billing customers`: list, show and correct customers and their consents, and handle data-subject requests."""

import sys
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output, read_audit
from pipeline.cli.commands import customer_rights
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import Until, parse_period
from pipeline.crypto.keyring import Keyring
from pipeline.customers.accounts import ConsentKind
from pipeline.errors import UsageError
from pipeline.privacy import operator_actions
from pipeline.queries import customers
from pipeline.queries.listing import Decryptor
from pipeline.queries.mails import renderer

app = group()

Id = Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")]
State = Literal["active", "leaving", "erased", "opted-in", "opted-out"]
Field = Literal["name", "email", "company", "phone"]
Optional = Literal["service", "marketing", "both"]
WHY = "Why you read this data, for the audit log."
HEADINGS = ("id", "name", "e-mail", "company", "status", "since (UTC)", "subscriptions", "news", "leaving", "erased")


@app.command("list")
def list_(  # noqa: PLR0913, PLR0917 - each option is a parameter
    ctx: typer.Context,
    state: Annotated[
        State | None,
        typer.Option(
            case_sensitive=False, help="Only customers in this state; leaving means that an erasure is in progress."
        ),
    ] = None,
    by_email: Annotated[
        bool, typer.Option("--by-email", help="Only customers with the address on the first line of standard input.")
    ] = False,
    search: Annotated[
        str,
        typer.Option(help="Only customers whose name, company or address contains this text; - reads it from stdin."),
    ] = "",
    since: Annotated[
        str | None,
        typer.Option(help="Only customers that are known since this day or time, such as 30d or 2026-03-01."),
    ] = None,
    until: Until = None,
    limit: Limit = None,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """List customers, the newest first. The address for --by-email comes from standard input, because other users of the
    machine can see arguments.

    A search decrypts all customers, which takes about a second for a thousand. Status: paying, suspended (PayPal collects
    nothing), former, signed up (not approved at PayPal yet), abandoned (not approved within a day), erased.

    JSON: one array of objects with id, name, email, company, status, subscriptions, marketing, service and more.
    """
    context = context_of(ctx)
    email = _read_value("e-mail address") if by_email else None
    wanted = _read_value("text to search for") if search == "-" else search
    period, shown = parse_period(since, until, context.clock.now()), limit if json else limit or output.SHOWN
    found_by = None if wanted else shown
    query = customers.CustomerQuery(email, state, period.since, found_by, wanted.strip(), period.until)
    read_audit.record_read(context, "customers list --search" if wanted else "customers list", purpose, None)
    with context.decryptor() as decryptor:
        rows, total = _find(decryptor, query)
    rows, total = rows[:shown], 0 if json or limit else total
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such customers")
    else:
        output.print_table(HEADINGS, [_row(found) for found in rows], numbers=("subscriptions",))
        output.print_more(total, len(rows))


def _find(decryptor: Decryptor, query: customers.CustomerQuery) -> tuple[list[dict[str, Any]], int]:
    """Return the customers that match, and how many there are without the limit. Shows the progress of a search."""
    total = customers.count(decryptor, query)
    if not query.search:
        return list(customers.customers(decryptor, query)), total
    with output.progress("searching", total) as advance:
        found = list(customers.customers(decryptor, query, advance))
    return found, len(found)


@app.command()
def show(
    ctx: typer.Context,
    id: Id,
    purpose: Annotated[str, typer.Option(help=WHY)] = "operation: inspect a customer",
    json: Json = False,
) -> None:
    """Show one customer: identity and its source, consents, subscriptions, requests and mails."""
    context = context_of(ctx)
    container = container_of(context)
    read_audit.record_read(context, "customers show", purpose, id)
    with context.decryptor() as decryptor:
        found = customers.customer(decryptor, id, renderer(lambda: container.templates))
    if found is None:
        raise UsageError(f"there is no customer {id}; see: smt-billing customers list --search TEXT")
    if json:
        output.print_json(found)
        return
    output.print_pairs(_facts(found))
    output.print_line()
    output.print_table(("when (UTC)", "what", "", ""), sorted(_history(found)))


@app.command()
def correct(
    ctx: typer.Context,
    id: Id,
    field: Annotated[Field, typer.Argument(case_sensitive=False, help="The field to correct.")],
    purpose: Annotated[str, typer.Option(help=WHY)] = "request: the customer asked for a correction",
    json: Json = False,
) -> None:
    """Correct a customer's data. The new value comes from standard input; on a terminal the command asks for it.

    The value takes precedence over PayPal's data, now and later, and applies to every mail that is not sent yet. After a
    change of the e-mail address, the old and the new address get a mail. An empty value deletes company or phone.
    JSON: an object with customer, field and changed.
    """
    context = context_of(ctx)
    value = _read_value(f"new {field}")
    read_audit.record_read(context, "customers correct", purpose, id)
    with context.database.transaction() as session:
        now = context.clock.now()
        keyring = Keyring(context.master_key, session, now)
        changed = operator_actions.correct(session, keyring, id, field, value, now)
    if json:
        output.print_json({"customer": id, "field": field, "changed": changed})
    else:
        output.print_line(
            f"corrected the {field}"
            if changed
            else f"the {field} is already that value; it now takes precedence over PayPal's data"
        )


@app.command("opt-out")
def opt_out(
    ctx: typer.Context,
    id: Id,
    kind: Annotated[Optional, typer.Option(case_sensitive=False, help="The class of mail to stop.")] = "both",
    json: Json = False,
) -> None:
    """Unsubscribe a customer from optional mail. Queued optional mail is withheld.

    Receipts, reminders and answers to requests are still sent. The choice is recorded with its time and source. JSON: an
    object with customer and declined.
    """
    context = context_of(ctx)
    kinds: tuple[ConsentKind, ...] = ("marketing", "service") if kind == "both" else (kind,)
    with context.database.transaction() as session:
        now = context.clock.now()
        operator_actions.opt_out(session, Keyring(context.master_key, session, now), id, kinds, now)
    if json:
        output.print_json({"customer": id, "declined": list(kinds)})
    else:
        output.print_line(f"unsubscribed {id} from {' and '.join(kinds)} mail")


def _read_value(what: str) -> str:
    """Read a line of standard input. On a terminal, ask for it."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, default="", show_default=False))
    return sys.stdin.readline().rstrip("\r\n")


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return (
        *(found[name] for name in ("id", "name", "email", "company", "status")),
        output.format_stamp(found["created_at"]),
        len(found["subscriptions"]) or "",
        "yes" if found["marketing"] else "",
        output.format_stamp(found["erase_at"]),
        output.format_stamp(found["erased_at"]),
    )


def _facts(found: dict[str, Any]) -> dict[str, object]:
    """Return the customer's details. Values from PayPal are marked."""
    by = found["told_by"]
    fields = {"name": "name", "e-mail": "email", "company": "company", "phone": "phone"}
    person = {
        heading: f"{found[field]} (from PayPal)" if by[field] == "paypal" else found[field]
        for heading, field in fields.items()
        if found[field]
    }
    return {
        "customer": found["id"],
        **(person or {"name": "erased" if found["erased_at"] else "not known"}),
        "status": found["status"],
        "PayPal's custom_id": found["custom_id"],
        "signed up": output.format_stamp(found["signed_up_at"]) or None,
        "18 or older": found["adult_at"]
        and f"confirmed {output.format_stamp(found['adult_at'])}, text {found['adult_text']}",
        "newsletter": "subscribed" if found["marketing"] else "no",
        "service mail": "yes" if found["service"] else "declined",
        "erasure due": output.format_stamp(found["erase_at"]) or None,
        "erased": output.format_stamp(found["erased_at"]) or None,
    }


def _history(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the customer's consents, requests, messages, mails and subscriptions, each with its time."""
    rows = [(row["at"], _choice(row), row["source"], row["text_version"]) for row in found["consents"]]
    rows += [
        (row["received_at"], f"request: {row['kind'].replace('_', ' ')}", row["state"], row["id"])
        for row in found["requests"]
    ]
    rows += [(row["received_at"], f"inbound: {row['kind']}", "", row["id"][:12]) for row in found["letters"]]
    rows += [
        (row["sent_at"] or row["created_at"], f"mail {row['state']}", row["subject"] or row["kind"], row["id"])
        for row in found["mails"]
    ]
    rows += [
        ("", f"subscription {row['status'] or 'placeholder'}", row["plan"] or "", row["id"])
        for row in found["subscriptions"]
    ]
    rows += [("", "subscription past due", "", row["id"]) for row in found["subscriptions"] if row["past_due"]]
    return [(output.format_stamp(at), *rest) for at, *rest in rows]


def _choice(row: dict[str, Any]) -> str:
    if row["kind"] == "marketing_asked":
        return "requested marketing, not confirmed yet"
    return f"{'agreed to' if row['given'] else 'declined'} {row['kind']}"


customer_rights.register(app)
