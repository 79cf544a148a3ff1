"""`smt-billing mail`: the outbox, and what mails look like."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli import output as say
from pipeline.cli import read_audit as reading
from pipeline.cli.context import Call, Json, Limit, of
from pipeline.cli.read_audit import Purpose
from pipeline.errors import Wrong

if TYPE_CHECKING:
    from pipeline.mailer.smtp_relay import Reply
    from pipeline.queries.listing import Subject
    from pipeline.rendering.message import Rendered

app = typer.Typer(help="The mails that are owed, and what became of them.", no_args_is_help=True)

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
    from pipeline.cli.time_options import read
    from pipeline.db.models import Mail
    from pipeline.queries import listing as looks

    call = of(context)
    if kind:
        _need_kind(call, kind)
    where = {"state": state, "kind": kind}
    asked = looks.Asked(where, read(since, "--since"), limit if json else limit or say.SHOWN)
    with call.database.reading() as session:
        rows = list(looks.mails(looks.Lens(session, lambda: call.master, call.clock.now()), asked, subject(call)))
        total = 0 if json or limit else looks.count(session, Mail, Mail.created_at, asked)
    if rows:
        reading.note(call, "mail list", purpose, None)
    if json:
        say.json(rows)
    elif not rows:
        say.line("no such mails")
    else:
        say.table(HEADINGS, [_row(found) for found in rows])
        say.more(total, len(rows))


@app.command()
def show(context: typer.Context, id: Id, purpose: Purpose = None, json: Json = False) -> None:
    """Show one mail: its state and why, to whom, what it says, and what the relay answered."""
    import orjson

    from pipeline.customers import links
    from pipeline.queries import listing as looks

    call = of(context)
    with call.database.reading() as session:
        found = looks.mail(looks.Lens(session, lambda: call.master, call.clock.now()), id, subject(call))
    if found is None:
        raise Wrong(f"there is no mail {id}; see: smt-billing mail list")
    reading.note(call, "mail show", purpose, id)
    frozen = found.pop("frozen")
    found["text"] = _text_of(frozen) if frozen else _text_now(call, found)
    found = orjson.loads(links.without_secrets(orjson.dumps(found)))  # to read a mail is not to sign in as its reader
    if json:
        say.json(found)
        return
    say.pairs({name: value for name, value in found.items() if name not in ("facts", "text", "erased")})
    if found["erased"]:
        say.line("\nthe person has been erased: nobody can read what it says any more")
    elif found["text"]:
        heading = (
            "as it was sent" if found["state"] == "sent" else "as it is frozen" if frozen else "as it would be now"
        )
        say.line(f"\n{heading}\n\n{found['text']}")


@app.command()
def preview(
    context: typer.Context,
    kind: Kind,
    html: Annotated[bool, typer.Option("--html/--text", help="The HTML part, or subject and text.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")] = None,
) -> None:
    """Write a mail of this kind as it would look now, with the facts of its example.json and your settings."""
    rendered = _example(of(context), kind)
    text = rendered.html if html else f"{rendered.subject}\n\n{rendered.text}"
    if out is None:
        say.line(text.rstrip("\n"))
        return
    out.write_text(text, "utf-8")
    say.note(f"wrote {out}")


@app.command("send-test")
def send_test(
    context: typer.Context,
    kind: Kind,
    address: Annotated[str, typer.Argument(help="Where to send it: an address of your own.")],
    json: Json = False,
) -> None:
    """Send the example of this kind through the relay, and say what the relay answered. Exit 1 unless it took it."""
    import asyncio

    call = of(context)
    call.settings.need("smtp_url")
    reply = asyncio.run(_send(call, kind, address, call.clock.now()))
    if json:
        say.json({"outcome": reply.outcome, "reply": reply.text})
    else:
        say.line(f"{reply.outcome}: {reply.text}")
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
    from pipeline.db.models import Mail
    from pipeline.outbox import store as outbox

    call = of(context)
    if sent == again:
        raise Wrong("say either --sent or --again")
    with call.database.transaction() as session:
        row = session.get(Mail, id)
        if row is None:
            raise Wrong(f"there is no mail {id}; see: smt-billing mail list --state doubt")
        if not outbox.settle_doubt(session, id, call.clock.now(), sent=sent):
            raise Wrong(f"mail {id} is {row.state}, not in doubt: there is nothing to settle", found=True)
    say.line("settled as sent" if sent else "owed again: the mailer sends it within a second or two")


def subject(call: Call) -> "Subject":
    """Writes the subject of mails that are not frozen yet; the templates are opened when there is such a mail."""
    from pipeline.rendering.templates import RenderError

    def write(kind: str, facts: Any) -> str | None:
        try:
            return call.parts.templates.render(kind, facts).subject
        except RenderError:
            return None

    return write


def _row(found: dict[str, Any]) -> tuple[object, ...]:
    since = say.stamp(found["sent_at"] or found["created_at"])
    return (*(found[name] for name in ("id", "kind", "to", "subject", "state")), since, found["reason"])


def _example(call: Call, kind: str) -> "Rendered":
    _need_kind(call, kind)
    templates = call.parts.templates
    return templates.render(kind, templates.example(kind))


def _need_kind(call: Call, kind: str) -> None:
    kinds = call.parts.templates.kinds
    if kind not in kinds:
        raise Wrong(f"there is no mail {kind}; there are: {', '.join(kinds)}")


def _text_of(frozen: bytes) -> str:
    """The text part of finished bytes."""
    import email.policy

    part = email.message_from_bytes(frozen, policy=email.policy.default).get_body(("plain",))
    return str(part.get_content()).replace("\r\n", "\n") if part else ""


def _text_now(call: Call, found: dict[str, Any]) -> str | None:
    """What a mail that is not frozen would say if it went out now; None if it cannot be written."""
    from pipeline.rendering.templates import RenderError

    try:
        return call.parts.templates.render(found["kind"], found["facts"]).text if found["facts"] else None
    except RenderError:
        return None


async def _send(call: Call, kind: str, address: str, now: datetime) -> "Reply":
    import secrets

    from pipeline.app.container import sender
    from pipeline.mailer.smtp_relay import Relay
    from pipeline.rendering import message

    sent_by, rendered = sender(call.settings), _example(call, kind)
    token = "test" + secrets.token_hex(10)
    envelope = message.Envelope(
        token=token,
        sender_name=sent_by.name,
        sender_address=sent_by.address,
        recipient_name="",
        recipient_address=address,
        reply_to=sent_by.reply_to,
        date=now,
        message_id=f"<test.{token}@{sent_by.envelope_domain}>",
        locale=sent_by.locale,
    )
    test = message.Rendered(f"[Test] {rendered.subject}", rendered.text, rendered.html)
    relay = Relay(call.settings.smtp_url, connections=1)
    try:
        data = message.build(test, envelope=envelope)
        return await relay.send(f"b+{token}@{sent_by.envelope_domain}", address, data, envelope_id=token)
    finally:
        await relay.close()
