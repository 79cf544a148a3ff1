"""`smt-billing mail`: list, show, preview and test mails, and resolve mails in doubt."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.app.from_settings import sender
from pipeline.cli import output, read_audit
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import CommandContext, Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import Until, parse_period
from pipeline.db.models import Mail
from pipeline.errors import OperatorError, UsageError
from pipeline.mailer.trial_mail import send_test as send
from pipeline.outbox import store
from pipeline.queries import mails
from pipeline.queries.listing import ListQuery, count
from pipeline.rendering.message import RenderedMail
from pipeline.rendering.templates import Templates

app = group()

State = Literal["queued", "sending", "sent", "doubt", "failed", "withheld"]
Id = Annotated[str, typer.Argument(help="The mail's id.")]
Kind = Annotated[str, typer.Argument(help="A folder of email_templates, such as receipt.")]
HEADINGS = ("id", "kind", "to", "subject", "state", "since (UTC)", "reason")


@app.command("list")
def list_(
    ctx: typer.Context,
    state: Annotated[State | None, typer.Option(case_sensitive=False, help="Only mails in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only mails of this kind, such as receipt.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only mails queued since this day or time, such as 30d or 2026-03-01.")
    ] = None,
    until: Until = None,
    limit: Limit = None,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """List mails, the newest first. A mail that is not frozen shows the address and subject that it would have now.

    JSON: one array of objects with id, kind, key, to, subject, state, message_id and more.
    """
    context = context_of(ctx)
    container = container_of(context)
    kind = kind and kind.lower()
    if kind:
        _require_kind(container.templates, kind)
    where = {"state": state, "kind": kind}
    period = parse_period(since, until, context.clock.now())
    shown = limit if json else limit or output.SHOWN
    query = ListQuery(where, period.since, shown, until=period.until)
    with context.decryptor() as decryptor:
        rows = list(mails.mails(decryptor, query, mails.renderer(lambda: container.templates)))
        total = 0 if json or limit else count(decryptor.session, Mail, Mail.created_at, query)
    if rows:
        read_audit.record_read(context, "mail list", purpose, None)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such mails")
    else:
        output.print_table(HEADINGS, [_row(found) for found in rows])
        output.print_more(total, len(rows))


@app.command()
def show(ctx: typer.Context, id: Id, purpose: Purpose = None, json: Json = False) -> None:
    """Show one mail: state, reason, recipient, text, and the relay's answer."""
    context = context_of(ctx)
    container = container_of(context)
    with context.decryptor() as decryptor:
        found = mails.mail(decryptor, id, mails.renderer(lambda: container.templates))
    if found is None:
        raise UsageError(f"there is no mail {id}; see: smt-billing mail list")
    read_audit.record_read(context, "mail show", purpose, id)
    frozen = found.pop("frozen")
    if json:
        output.print_json(found)
        return
    output.print_pairs({name: value for name, value in found.items() if name not in ("facts", "text", "erased")})
    if found["erased"]:
        output.print_line("\nthe customer was erased: the text cannot be decrypted any more")
    elif found["text"]:
        heading = "sent text" if found["state"] == "sent" else "frozen text" if frozen else "text if it were sent now"
        output.print_line(f"\n{heading}\n\n{found['text']}")


@app.command()
def preview(
    ctx: typer.Context,
    kind: Kind,
    html: Annotated[bool, typer.Option("--html/--text", help="Print the HTML part, or subject and text.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of standard output.")] = None,
) -> None:
    """Print a mail of this kind, rendered with its example.json and your settings."""
    rendered = _example(container_of(context_of(ctx)).templates, kind)
    text = rendered.html if html else f"{rendered.subject}\n\n{rendered.text}"
    if out is None:
        output.print_line(text.rstrip("\n"))
        return
    out.write_text(text, "utf-8")
    output.print_note(f"wrote {out}")


@app.command("send-test")
def send_test(
    ctx: typer.Context,
    kind: Kind,
    address: Annotated[str, typer.Argument(help="Recipient: your own address.")],
    json: Json = False,
) -> None:
    """Send the example of this kind through the relay, and print its answer. Exit 1 unless the relay accepts the mail."""
    context = context_of(ctx)
    context.settings.require("smtp_url")
    sent_by, rendered = sender(context.settings), _example(container_of(context).templates, kind)
    reply = asyncio.run(send(context.settings.smtp_url, sent_by, rendered, address, context.clock.now()))
    if json:
        output.print_json({"outcome": reply.outcome, "reply": reply.text})
    else:
        output.print_line(f"{reply.outcome}: {reply.text}")
    if reply.outcome != "sent":
        raise typer.Exit(1)


@app.command()
def settle(
    ctx: typer.Context,
    id: Id,
    sent: Annotated[
        bool, typer.Option("--sent", help="The relay's log says that the relay accepted the mail.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="The relay did not accept the mail: send the same bytes again.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Resolve a mail in doubt. Asks for confirmation.

    The mail's connection was lost after the text was transmitted; the relay's log shows the result.
    """
    context = context_of(ctx)
    if sent == again:
        raise UsageError("give either --sent or --again")
    confirm(
        f"Mail {id} will never be sent again." if sent else f"Mail {id} is sent again; the recipient may get it twice.",
        yes=yes,
    )
    with context.database.transaction() as session:
        row = session.get(Mail, id)
        if row is None:
            raise UsageError(f"there is no mail {id}; see: smt-billing mail list --state doubt")
        if not store.resolve_doubt(session, id, context.clock.now(), sent=sent):
            raise OperatorError(f"mail {id} is {row.state}, not in doubt: there is nothing to resolve")
    output.print_line("marked as sent" if sent else "queued again: a running mailer sends it within two seconds")


@app.command()
def resend(ctx: typer.Context, id: Id) -> None:
    """Send a failed mail again, after its cause is fixed: the address was corrected, or the relay accepts it now."""
    _end_failure(context_of(ctx), id, again=True)
    output.print_line("queued again: a running mailer sends it within two seconds")


@app.command()
def dismiss(ctx: typer.Context, id: Id) -> None:
    """Give a failed mail up. It stays in the list as withheld and is no longer reported as a problem."""
    _end_failure(context_of(ctx), id, again=False)
    output.print_line("dismissed")


def _end_failure(context: CommandContext, id: str, *, again: bool) -> None:
    with context.database.transaction() as session:
        row = session.get(Mail, id)
        if row is None:
            raise UsageError(f"there is no mail {id}; see: smt-billing mail list --state failed")
        if not store.end_failure(session, id, context.clock.now(), again=again):
            raise OperatorError(
                f"mail {id} is {row.state}, not failed; for a mail in doubt: smt-billing mail settle {id}"
            )


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    since = output.format_stamp(found["sent_at"] or found["created_at"])
    return (*(found[name] for name in ("id", "kind", "to", "subject", "state")), since, found["reason"])


def _example(templates: Templates, kind: str) -> RenderedMail:
    _require_kind(templates, kind)
    return templates.render(kind, templates.example(kind))


def _require_kind(templates: Templates, kind: str) -> None:
    if kind not in templates.kinds:
        raise UsageError(f"there is no mail kind {kind}; the kinds are: {', '.join(templates.kinds)}")
