"""`smt-billing customers`: who they are, what they agreed to, and their rights under the privacy policy."""

import sys
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output, read_audit
from pipeline.cli.commands import customer_rights
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import parse_time_option
from pipeline.crypto.keyring import Keyring
from pipeline.customers.accounts import ConsentKind
from pipeline.errors import UsageError
from pipeline.privacy import operator_actions
from pipeline.queries import customers
from pipeline.queries.mails import renderer

app = group()

Id = Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")]
State = Literal["active", "leaving", "erased", "opted-in", "opted-out"]
Field = Literal["name", "email", "company", "phone"]
Optional = Literal["service", "marketing", "both"]
WHY = "Why you look, for the record of who read what."
HEADINGS = ("id", "name", "e-mail", "company", "since (UTC)", "subscriptions", "news", "leaving", "erased")


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only those; leaving: their deletion is under way.")] = None,
    by_email: Annotated[
        bool, typer.Option("--by-email", help="Only those with the address on the first line of standard input.")
    ] = False,
    since: Annotated[str | None, typer.Option(help="Only known since then: 2026-03-01, or a time.")] = None,
    limit: Limit = None,
    purpose: Annotated[str, typer.Option(help=WHY)] = "operation: who the customers are",
    json: Json = False,
) -> None:
    """List the customers, the newest first. An address is read from standard input: arguments can be seen by others.

    JSON: one array of objects with id, name, email, company, subscriptions, marketing, service and more.
    """
    call = context_of(context)
    email = _given("e-mail address") if by_email else None
    asked = customers.CustomerQuery(
        email, state, parse_time_option(since, "--since"), limit if json else limit or output.SHOWN
    )
    read_audit.record_read(call, "customers list", purpose, None)
    with call.decryptor() as lens:
        rows = list(customers.customers(lens, asked))
        total = 0 if json or limit else customers.count(lens, asked)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such customers")
    else:
        output.print_table(HEADINGS, [_row(found) for found in rows], numbers=("subscriptions",))
        output.print_more(total, len(rows))


@app.command()
def show(
    context: typer.Context,
    id: Id,
    purpose: Annotated[str, typer.Option(help=WHY)] = "operation: looking after a customer",
    json: Json = False,
) -> None:
    """Show one customer: who they are and who said so, what they agreed to, and their subscriptions, requests and mails."""
    call = context_of(context)
    parts = container_of(call)
    read_audit.record_read(call, "customers show", purpose, id)
    with call.decryptor() as lens:
        found = customers.customer(lens, id, renderer(lambda: parts.templates))
    if found is None:
        raise UsageError(f"there is no customer {id}; see: smt-billing customers list")
    if json:
        output.print_json(found)
        return
    output.print_pairs(_facts(found))
    output.print_line()
    output.print_table(("when (UTC)", "what", "", ""), sorted(_story(found)))


@app.command()
def correct(
    context: typer.Context,
    id: Id,
    field: Annotated[Field, typer.Argument(help="What is to be corrected.")],
    purpose: Annotated[str, typer.Option(help=WHY)] = "request: the customer asked for a correction",
    json: Json = False,
) -> None:
    """Correct what we hold of a customer. The right value is read from standard input, or asked for.

    It outranks what PayPal tells, now and later, and reaches every mail that has not gone out. A new e-mail address is
    told to the old address and to the new one. An empty company or phone is taken out. JSON: customer, field, changed.
    """
    call = context_of(context)
    value = _given(f"right {field}")
    read_audit.record_read(call, "customers correct", purpose, id)
    with call.database.transaction() as session:
        now = call.clock.now()
        keyring = Keyring(call.master_key, session, now)
        changed = operator_actions.correct(session, keyring, id, field, value, now)
    if json:
        output.print_json({"customer": id, "field": field, "changed": changed})
    else:
        output.print_line(f"the {field} is corrected" if changed else f"that was the {field} already; it is fixed now")


@app.command("opt-out")
def opt_out(
    context: typer.Context,
    id: Id,
    kind: Annotated[Optional, typer.Option(help="Which mail they want no more.")] = "both",
    json: Json = False,
) -> None:
    """Stop optional mail to a customer from now on. Mail that is queued already is withheld too.

    Receipts, reminders and answers to requests still come. Recorded with time and source. JSON: customer, declined.
    """
    call = context_of(context)
    kinds: tuple[ConsentKind, ...] = ("marketing", "service") if kind == "both" else (kind,)
    with call.database.transaction() as session:
        now = call.clock.now()
        operator_actions.opt_out(session, Keyring(call.master_key, session, now), id, kinds, now)
    if json:
        output.print_json({"customer": id, "declined": list(kinds)})
    else:
        output.print_line(f"no more {' or '.join(kinds)} mail for {id}")


def _given(what: str) -> str:
    """A line of standard input; asked for where a person sits there."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, default="", show_default=False))
    return sys.stdin.readline().rstrip("\r\n")


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return (
        *(found[name] for name in ("id", "name", "email", "company")),
        output.format_stamp(found["created_at"]),
        len(found["subscriptions"]) or "",
        "yes" if found["marketing"] else "",
        output.format_stamp(found["erase_at"]),
        output.format_stamp(found["erased_at"]),
    )


def _facts(found: dict[str, Any]) -> dict[str, object]:
    """Who they are; beside each word of PayPal's, that it is PayPal's."""
    by = found["told_by"]
    fields = {"name": "name", "e-mail": "email", "company": "company", "phone": "phone"}
    person = {
        heading: f"{found[field]} (by PayPal)" if by[field] == "paypal" else found[field]
        for heading, field in fields.items()
        if found[field]
    }
    return {
        "customer": found["id"],
        **(person or {"name": "erased" if found["erased_at"] else "not known"}),
        "PayPal's custom_id": found["custom_id"],
        "signed up": output.format_stamp(found["signed_up_at"]) or None,
        "18 or older": found["adult_at"]
        and f"said {output.format_stamp(found['adult_at'])}, text {found['adult_text']}",
        "news": "asked for" if found["marketing"] else "no",
        "service mail": "yes" if found["service"] else "declined",
        "deletion due": output.format_stamp(found["erase_at"]) or None,
        "erased": output.format_stamp(found["erased_at"]) or None,
    }


def _story(found: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What happened with the customer, each with its time."""
    rows = [(row["at"], _choice(row), row["source"], row["text_version"]) for row in found["consents"]]
    rows += [
        (row["received_at"], f"asked: {row['kind'].replace('_', ' ')}", row["state"], row["id"])
        for row in found["requests"]
    ]
    rows += [(row["received_at"], f"wrote: {row['kind']}", "", row["id"][:12]) for row in found["letters"]]
    rows += [
        (row["sent_at"] or row["created_at"], f"mail {row['state']}", row["subject"] or row["kind"], row["id"])
        for row in found["mails"]
    ]
    rows += [
        ("", f"subscription {row['status'] or 'placeholder'}", row["plan"] or "", row["id"])
        for row in found["subscriptions"]
    ]
    return [(output.format_stamp(at), *rest) for at, *rest in rows]


def _choice(row: dict[str, Any]) -> str:
    if row["kind"] == "marketing_asked":
        return "asked for marketing, to be confirmed"
    return f"{'agreed to' if row['given'] else 'declined'} {row['kind']}"


customer_rights.register(app)
