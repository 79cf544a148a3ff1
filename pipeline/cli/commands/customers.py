"""`smt-billing customers`: who they are, what they agreed to, and what they are owed under the privacy policy."""

import sys
from typing import Annotated, Any, Literal

import typer

from pipeline.cli import output as say
from pipeline.cli import read_audit as reading
from pipeline.cli.commands import customer_rights as rights
from pipeline.cli.commands import erasing
from pipeline.cli.context import Json, Limit, of
from pipeline.errors import Wrong

app = typer.Typer(help="Customers: who they are, and their rights.", no_args_is_help=True)

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
    from pipeline.cli.time_options import read
    from pipeline.queries import customers as people
    from pipeline.queries import listing as looks

    call = of(context)
    email = _given("e-mail address") if by_email else None
    asked = people.Asked(email, state, read(since, "--since"), limit if json else limit or say.SHOWN)
    reading.note(call, "customers list", purpose, None)
    with call.database.reading() as session:
        lens = looks.Lens(session, lambda: call.master, call.clock.now())
        rows = list(people.customers(lens, asked))
        total = 0 if json or limit else people.count(lens, asked)
    if json:
        say.json(rows)
    elif not rows:
        say.line("no such customers")
    else:
        say.table(HEADINGS, [_row(found) for found in rows], numbers=("subscriptions",))
        say.more(total, len(rows))


@app.command()
def show(
    context: typer.Context,
    id: Id,
    purpose: Annotated[str, typer.Option(help=WHY)] = "operation: looking after a customer",
    json: Json = False,
) -> None:
    """Show one customer: who they are and who said so, what they agreed to, and their subscriptions, requests and mails."""
    from pipeline.cli.commands import mail
    from pipeline.queries import customers as people
    from pipeline.queries import listing as looks

    call = of(context)
    reading.note(call, "customers show", purpose, id)
    with call.database.reading() as session:
        lens = looks.Lens(session, lambda: call.master, call.clock.now())
        found = people.customer(lens, id, mail.subject(call))
    if found is None:
        raise Wrong(f"there is no customer {id}; see: smt-billing customers list")
    if json:
        say.json(found)
        return
    say.pairs(_facts(found))
    say.line()
    say.table(("when (UTC)", "what", "", ""), sorted(_story(found)))


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
    from pipeline.crypto.keyring import Keyring
    from pipeline.customers import accounts, links

    call = of(context)
    value = _given(f"right {field}")
    reading.note(call, "customers correct", purpose, id)
    with call.database.transaction() as session:
        now = call.clock.now()
        keyring = Keyring(call.master, session, now)
        try:
            old = accounts.correct(session, keyring, id, field, value, now)
            if field == "email":
                links.end_sessions(session, id, now)
        except accounts.BadField as error:
            raise Wrong(str(error)) from error
        changed = old != accounts.person(session, keyring, id).get(field)
    if json:
        say.json({"customer": id, "field": field, "changed": changed})
    else:
        say.line(f"the {field} is corrected" if changed else f"that was the {field} already; it is fixed now")


@app.command("opt-out")
def opt_out(
    context: typer.Context,
    id: Id,
    kind: Annotated[Optional, typer.Option(help="Which mail they want no more.")] = "both",
    json: Json = False,
) -> None:
    """Spare a customer the mail they can do without, from now on: mail that is owed already is withheld too.

    Receipts, reminders and answers to requests still come. Recorded with time and source. JSON: customer, declined.
    """
    from pipeline.crypto.keyring import Keyring
    from pipeline.customers import accounts
    from pipeline.privacy import requests

    call = of(context)
    kinds: tuple[accounts.ConsentKind, ...] = ("marketing", "service") if kind == "both" else (kind,)
    with call.database.transaction() as session:
        now = call.clock.now()
        accounts.need(session, id)
        for each in kinds:
            accounts.consent(session, id, each, given=False, source="operator", text_version="operator", now=now)
        row = requests.open_(session, Keyring(call.master, session, now), "opt_out", id, "operator", now)
        requests.settle(session, row.id, "done", now)
    if json:
        say.json({"customer": id, "declined": list(kinds)})
    else:
        say.line(f"no more {' or '.join(kinds)} mail for {id}")


def _given(what: str) -> str:
    """A line of standard input; asked for where a person sits there."""
    if sys.stdin.isatty():
        return str(typer.prompt(what, default="", show_default=False))
    return sys.stdin.readline().rstrip("\r\n")


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    return (
        *(found[name] for name in ("id", "name", "email", "company")),
        say.stamp(found["created_at"]),
        len(found["subscriptions"]) or "",
        "yes" if found["marketing"] else "",
        say.stamp(found["erase_at"]),
        say.stamp(found["erased_at"]),
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
        "signed up": say.stamp(found["signed_up_at"]) or None,
        "18 or older": found["adult_at"] and f"said {say.stamp(found['adult_at'])}, text {found['adult_text']}",
        "news": "asked for" if found["marketing"] else "no",
        "service mail": "yes" if found["service"] else "declined",
        "deletion due": say.stamp(found["erase_at"]) or None,
        "erased": say.stamp(found["erased_at"]) or None,
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
    return [(say.stamp(at), *rest) for at, *rest in rows]


def _choice(row: dict[str, Any]) -> str:
    if row["kind"] == "marketing_asked":
        return "asked for marketing, to be confirmed"
    return f"{'agreed to' if row['given'] else 'declined'} {row['kind']}"


rights.register(app)
erasing.register(app)
