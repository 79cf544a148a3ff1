"""`smt-billing inbound`: file inbound mail from a Maildir, or one message from Postfix on standard input."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.from_settings import account_page_url
from pipeline.cli import output
from pipeline.cli.context import CommandContext, Json, context_of
from pipeline.crypto.master_key import MasterKeyError
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.errors import UsageError
from pipeline.inbound_mail import intake, parser
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import UnfiledMail, read_maildir
from pipeline.settings import SettingsError

# Exit codes of sysexits.h. EX_TEMPFAIL: Postfix keeps the message and tries again. EX_DATAERR: it returns the message.
TRY_AGAIN, CANNOT_BE_FILED = 75, 65


def inbound(
    ctx: typer.Context,
    maildir: Annotated[
        str, typer.Argument(help="A Maildir, or - for one message on standard input; default: SMT_INBOUND_MAILDIR.")
    ] = "",
    json: Json = False,
) -> None:
    """Each message opens a request: for the right that it clearly asks for, otherwise of the kind other.
    SMT_OPERATOR_EMAIL gets a mail about it. A message alone changes no data. Automatic messages are filed but not answered.

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
        for each in read_maildir(folder, context.database, context.master_key, context.clock, page):
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
        return intake.store_mail(
            raw, context.database, context.master_key, context.clock, account_page_url(context.settings)
        )
    except (DatabaseUnavailableError, MasterKeyError, SettingsError, OSError) as error:
        output.print_note(f"the message was not filed, try again: {error}")
        raise typer.Exit(TRY_AGAIN) from error
    except Exception as error:  # the error text may quote the message
        output.print_note(f"the message cannot be filed: internal error: {type(error).__name__}")
        raise typer.Exit(CANNOT_BE_FILED) from error


def _object(filed: FiledMail) -> dict[str, object]:
    return {"letter": filed.id, "kind": filed.kind, "asks": filed.asked, "customer": filed.customer_id}


def _row(filed: FiledMail) -> tuple[object, ...]:
    asked = (filed.asked or "").replace("_", " ")
    sender = "filed before" if filed.known else "a customer" if filed.customer_id else "unknown"
    return filed.id[:12], filed.kind, asked, sender
