"""`smt-billing mail`: the outbox, and what mails look like."""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline.app.from_settings import sender
from pipeline.cli import output, read_audit
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import parse_time_option
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
Kind = Annotated[str, typer.Argument(help="A folder of email_templates, as receipt.")]
HEADINGS = ("id", "kind", "to", "subject", "state", "since (UTC)", "reason")


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only mails in this state.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, as receipt.")] = None,
    since: Annotated[str | None, typer.Option(help="Only owed since then: 2026-03-01, or a time.")] = None,
    limit: Limit = None,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """List the mails, the newest first, with the address and subject each has or would have now.

    JSON: one array of objects with id, kind, key, to, subject, state, message_id and more.
    """
    call = context_of(context)
    parts = container_of(call)
    if kind:
        _need_kind(parts.templates, kind)
    where = {"state": state, "kind": kind}
    asked = ListQuery(where, parse_time_option(since, "--since"), limit if json else limit or output.SHOWN)
    with call.decryptor() as lens:
        rows = list(mails.mails(lens, asked, mails.renderer(lambda: parts.templates)))
        total = 0 if json or limit else count(lens.session, Mail, Mail.created_at, asked)
    if rows:
        read_audit.record_read(call, "mail list", purpose, None)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such mails")
    else:
        output.print_table(HEADINGS, [_row(found) for found in rows])
        output.print_more(total, len(rows))


@app.command()
def show(context: typer.Context, id: Id, purpose: Purpose = None, json: Json = False) -> None:
    """Show one mail: its state and why, to whom, what it says, and what the relay answered."""
    call = context_of(context)
    parts = container_of(call)
    with call.decryptor() as lens:
        found = mails.mail(lens, id, mails.renderer(lambda: parts.templates))
    if found is None:
        raise UsageError(f"there is no mail {id}; see: smt-billing mail list")
    read_audit.record_read(call, "mail show", purpose, id)
    frozen = found.pop("frozen")
    if json:
        output.print_json(found)
        return
    output.print_pairs({name: value for name, value in found.items() if name not in ("facts", "text", "erased")})
    if found["erased"]:
        output.print_line("\nthe person has been erased: nobody can read what it says any more")
    elif found["text"]:
        heading = (
            "as it was sent" if found["state"] == "sent" else "as it is frozen" if frozen else "as it would be now"
        )
        output.print_line(f"\n{heading}\n\n{found['text']}")


@app.command()
def preview(
    context: typer.Context,
    kind: Kind,
    html: Annotated[bool, typer.Option("--html/--text", help="The HTML part, or subject and text.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
) -> None:
    """Write a mail of this kind as it would look now, with the facts of its example.json and your settings."""
    rendered = _example(container_of(context_of(context)).templates, kind)
    text = rendered.html if html else f"{rendered.subject}\n\n{rendered.text}"
    if out is None:
        output.print_line(text.rstrip("\n"))
        return
    out.write_text(text, "utf-8")
    output.print_note(f"wrote {out}")


@app.command("send-test")
def send_test(
    context: typer.Context,
    kind: Kind,
    address: Annotated[str, typer.Argument(help="Where to send it: an address of your own.")],
    json: Json = False,
) -> None:
    """Send the example of this kind through the relay, and say what the relay answered. Exit 1 unless it took it."""
    call = context_of(context)
    call.settings.require("smtp_url")
    sent_by, rendered = sender(call.settings), _example(container_of(call).templates, kind)
    reply = asyncio.run(send(call.settings.smtp_url, sent_by, rendered, address, call.clock.now()))
    if json:
        output.print_json({"outcome": reply.outcome, "reply": reply.text})
    else:
        output.print_line(f"{reply.outcome}: {reply.text}")
    if reply.outcome != "sent":
        raise typer.Exit(1)


@app.command()
def settle(
    context: typer.Context,
    id: Id,
    sent: Annotated[bool, typer.Option("--sent", help="The relay's log says that it took the mail.")] = False,
    again: Annotated[bool, typer.Option("--again", help="It did not: send the very same mail again.")] = False,
) -> None:
    """Settle a mail in doubt: the connection broke after its text went out, and only the relay's log knows the rest."""
    call = context_of(context)
    if sent == again:
        raise UsageError("say either --sent or --again")
    with call.database.transaction() as session:
        row = session.get(Mail, id)
        if row is None:
            raise UsageError(f"there is no mail {id}; see: smt-billing mail list --state doubt")
        if not store.resolve_doubt(session, id, call.clock.now(), sent=sent):
            raise OperatorError(f"mail {id} is {row.state}, not in doubt: there is nothing to settle")
    output.print_line("settled as sent" if sent else "owed again: the mailer sends it within a second or two")


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    since = output.format_stamp(found["sent_at"] or found["created_at"])
    return (*(found[name] for name in ("id", "kind", "to", "subject", "state")), since, found["reason"])


def _example(templates: Templates, kind: str) -> RenderedMail:
    _need_kind(templates, kind)
    return templates.render(kind, templates.example(kind))


def _need_kind(templates: Templates, kind: str) -> None:
    if kind not in templates.kinds:
        raise UsageError(f"there is no mail {kind}; there are: {', '.join(templates.kinds)}")
