"""`smt-billing inbound`: file mail from a Maildir or from Postfix on standard input, and list, show and answer it."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from pipeline.app.from_settings import account_page_url
from pipeline.cli import output, read_audit
from pipeline.cli.context import CommandContext, Json, Limit, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.read_audit import Purpose
from pipeline.cli.time_options import Until, parse_period
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKeyError
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.error_texts import describe
from pipeline.errors import UsageError
from pipeline.inbound_mail import intake, mailbox, parser
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.mailbox import MessageQuery
from pipeline.inbound_mail.maildir import UnfiledMail, read_maildir
from pipeline.settings import SettingsError

Kind = Literal["support", "privacy", "automatic"]
Id = Annotated[str, typer.Argument(help="The message's id, or its first characters; see: smt-billing inbound list.")]
HEADINGS = ("id", "received (UTC)", "kind", "from", "subject", "state", "customer")
# Exit codes of sysexits.h. EX_TEMPFAIL: Postfix keeps the message and tries again. EX_DATAERR: it returns the message.
TRY_AGAIN, CANNOT_BE_FILED = 75, 65


class InboundGroup(TyperGroup):
    """Calls the command `file` if no command is named: `inbound -` and `inbound /var/mail/billing` file mail."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = next((word for word in args if word == "-" or not word.startswith("-")), "")
        if named not in self.commands and "--help" not in args:
            args = ["file", *args]
        return super().parse_args(ctx, args)


app = group(cls=InboundGroup)


@app.command("file")
def file_(
    ctx: typer.Context,
    maildir: Annotated[
        str, typer.Argument(help="A Maildir, or - for one message on standard input; default: SMT_INBOUND_MAILDIR.")
    ] = "",
    json: Json = False,
) -> None:
    """File new mail; the word file may be omitted.

    Each message opens a request: for the right that it clearly asks for, otherwise of the kind other. SMT_OPERATOR_EMAIL gets
    a mail about it. A message alone changes no data. Automatic messages are filed but not answered.

    From a Maildir, filed messages move from new to cur. A message that cannot be filed delays no other message and makes
    the exit code 1; it stays in new for a day, then moves to failed. With -, the exit code is 75 if a later attempt can
    succeed, so that Postfix tries again, otherwise 65. JSON: an array of objects with letter, kind, asks and customer, or
    with file and failed for a message that cannot be filed.
    """
    context = context_of(ctx)
    filed, unfiled = ([_from_stdin(context)], []) if maildir == "-" else _from_maildir(context, maildir)
    _show(filed, unfiled, json=json)
    if unfiled:
        raise typer.Exit(1)


@app.command("list")
def list_(
    ctx: typer.Context,
    kind: Annotated[Kind | None, typer.Option(case_sensitive=False, help="Only messages of this kind.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only messages received since this day or time, such as 30d or 2026-03-01.")
    ] = None,
    until: Until = None,
    only_open: Annotated[
        bool, typer.Option("--open", "--unanswered", help="Only messages that a person has not answered yet.")
    ] = False,
    limit: Limit = None,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """List filed messages, the newest first. A message is open until you reply to it or close its request.

    JSON: one array of objects with id, kind, asks, state, from, subject, customer, request, received_at and answered_at.
    """
    context = context_of(ctx)
    period = parse_period(since, until, context.clock.now())
    query = MessageQuery(kind, period.since, only_open, limit if json else limit or output.SHOWN, period.until)
    read_audit.record_read(context, "inbound list", purpose, None)
    with context.decryptor() as decryptor:
        rows = list(mailbox.messages(decryptor.session, decryptor.keyring, query))
        total = 0 if json or limit else mailbox.count(decryptor.session, query)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such messages")
    else:
        output.print_table(HEADINGS, [_message_row(found) for found in rows])
        output.print_more(total, len(rows))


@app.command()
def show(
    ctx: typer.Context,
    id: Id,
    raw: Annotated[bool, typer.Option("--raw", help="Print the message as it was received, with all parts.")] = False,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Show one message: sender, subject, text, names of attachments, and whether it is answered."""
    context = context_of(ctx)
    with context.decryptor() as decryptor:
        found = mailbox.message(decryptor.session, decryptor.keyring, id)
        content = mailbox.raw_message(decryptor.session, decryptor.keyring, id) if raw and found else None
    if found is None:
        raise UsageError(f"there is no message {id}; see: smt-billing inbound list")
    read_audit.record_read(context, "inbound show", purpose, found["id"])
    if raw:
        output.print_raw(content or b"")
    elif json:
        output.print_json(found)
    else:
        _show_message(found)


@app.command()
def reply(
    ctx: typer.Context,
    id: Id,
    file: Annotated[Path | None, typer.Option("--file", help="File with the text; default: standard input.")] = None,
    purpose: Purpose = None,
    json: Json = False,
) -> None:
    """Queue a reply to the address that wrote the message. Write only the text: the mail adds greeting and address.

    The reply joins the conversation in the recipient's mail program. It closes a support request; a request for a privacy
    right stays open until you close it. The same text is sent once. A From line can be forged, so a reply must not contain
    personal data. JSON: an object with message, mail, to and open_request.
    """
    context = context_of(ctx)
    text = _read_text(file)
    with context.decryptor() as decryptor:
        found = mailbox.message(decryptor.session, decryptor.keyring, id)
    read_audit.record_read(context, "inbound reply", purpose, found["id"] if found else id)
    with context.database.transaction() as session:
        now = context.clock.now()
        queued = mailbox.reply(session, Keyring(context.master_key, session, now), id, text, now)
    if json:
        output.print_json(asdict(queued))
        return
    output.print_line(f"queued the reply to {queued.to}" if queued.mail else "this reply was queued before")
    if queued.open_request:
        output.print_note(
            f"its request is still open; to close it: smt-billing customers answer {queued.open_request} --done"
        )


def _read_text(file: Path | None) -> str:
    """Return the text of the file, otherwise of standard input. Raises UsageError if it is not UTF-8."""
    if file is None and sys.stdin.isatty():
        output.print_note("Enter the reply; end it with Ctrl-D on an empty line.")
    try:
        return file.read_text("utf-8") if file else sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"{file or 'standard input'} is not UTF-8 text") from error


def _shows_text(context: CommandContext) -> bool:
    return context.settings.inbound_notice == "text"


def _message_row(found: dict[str, Any]) -> tuple[object, ...]:
    short, received = found["id"][: mailbox.SHORT_ID], output.format_stamp(found["received_at"])
    sender, subject = output.shorten(found["from"], 60), output.shorten(found["subject"], 60)
    return short, received, found["kind"], sender, subject, found["state"], found["customer"]


def _show_message(found: dict[str, Any]) -> None:
    names = ("id", "kind", "state", "customer", "request", "from", "to", "subject", "date")
    times = {
        "received": output.format_stamp(found["received_at"]),
        "answered": output.format_stamp(found["answered_at"]),
    }
    attachments = "; ".join(found["attachments"] or ())
    values = {name: found[name] for name in names} | times | {"attachments": attachments}
    output.print_pairs({name: value or None for name, value in values.items()})
    if found["erased"]:
        output.print_line("\nthe message was erased: it cannot be decrypted any more")
    else:
        output.print_line(f"\n{found['text']}")


def _show(filed: list[FiledMail], unfiled: list[UnfiledMail], *, json: bool) -> None:
    if json:
        output.print_json([*map(_object, filed), *({"file": each.file, "failed": each.reason} for each in unfiled)])
    elif not filed and not unfiled:
        output.print_line("no new mail")
    elif filed:
        output.print_table(("letter", "kind", "asks for", "from"), [_row(each) for each in filed])
    for each in unfiled:
        place = "was moved to failed" if each.is_final else "stays in new"
        output.print_note(f"{each.file} could not be filed and {place}: {each.reason}")


def _from_maildir(context: CommandContext, maildir: str) -> tuple[list[FiledMail], list[UnfiledMail]]:
    folder = Path(maildir) if maildir else context.settings.inbound_maildir
    if folder is None:
        raise UsageError("name a Maildir, or set SMT_INBOUND_MAILDIR; - reads one message from standard input")
    if not (folder / "new").is_dir():
        raise UsageError(f"{folder} is not a Maildir: it has no folder new")
    filed, unfiled = list[FiledMail](), list[UnfiledMail]()
    page = account_page_url(context.settings)
    with output.progress("filing mail", None) as advance:
        show_text = _shows_text(context)
        found = read_maildir(folder, context.database, context.master_key, context.clock, page, show_text=show_text)
        for each in found:
            advance(1)
            if isinstance(each, UnfiledMail):
                unfiled.append(each)
            else:
                filed.append(each)
    return filed, unfiled


def _from_stdin(context: CommandContext) -> FiledMail:
    raw = sys.stdin.buffer.read(parser.LARGEST)
    if not raw.strip():
        raise UsageError("there is no message on standard input")
    try:
        page = account_page_url(context.settings)
        return intake.store_mail(
            raw, context.database, context.master_key, context.clock, page, show_text=_shows_text(context)
        )
    except (DatabaseUnavailableError, MasterKeyError, SettingsError, OSError) as error:
        output.print_note(f"the message was not filed, try again: {error}")
        raise typer.Exit(TRY_AGAIN) from error
    except Exception as error:  # the error text may quote the message
        output.print_note(f"the message cannot be filed: {describe(error)}")
        raise typer.Exit(CANNOT_BE_FILED) from error


def _object(filed: FiledMail) -> dict[str, object]:
    return {"letter": filed.id, "kind": filed.kind, "asks": filed.asked, "customer": filed.customer_id}


def _row(filed: FiledMail) -> tuple[object, ...]:
    asked = (filed.asked or "").replace("_", " ")
    sender = "filed before" if filed.known else "a customer" if filed.customer_id else "unknown"
    return filed.id[:12], filed.kind, asked, sender
