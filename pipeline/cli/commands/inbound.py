"""`smt-billing inbound`: mail from customers, from a Maildir or from Postfix by stdin."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pipeline.app.from_settings import account_page_url
from pipeline.cli import output
from pipeline.cli.context import CommandContext, Json, context_of
from pipeline.db.engine import DatabaseUnavailableError
from pipeline.errors import UsageError
from pipeline.inbound_mail import intake, parser
from pipeline.inbound_mail.intake import FiledMail
from pipeline.inbound_mail.maildir import UnfiledMail, read_maildir

TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: Postfix keeps the mail and comes again


def inbound(
    context: typer.Context,
    maildir: Annotated[
        str, typer.Argument(help="A Maildir, or - for one mail on stdin. SMT_INBOUND_MAILDIR unless given.")
    ] = "",
    json: Json = False,
) -> None:
    """Each opens a request, of which SMT_OPERATOR_EMAIL is told: for the right that it plainly asks for, else of the kind
    other. A mail alone changes nothing. Mail that no person wrote is filed and never answered.

    From a Maildir each mail is moved from new to cur once it is filed; one that cannot be filed stays, holds up no other,
    and makes the exit code 1. With - the exit code is 75 when it cannot be filed, so that Postfix tries again. JSON: an
    array of objects with letter, kind, asks and customer, and with file and failed for what could not be filed.
    """
    call = context_of(context)
    filed, left = ([_from_stdin(call)], []) if maildir == "-" else _from_maildir(call, maildir)
    _show(filed, left, json=json)
    if left:
        raise typer.Exit(1)


def _show(filed: list[FiledMail], left: list[UnfiledMail], *, json: bool) -> None:
    if json:
        output.print_json([*map(_object, filed), *({"file": each.file, "failed": each.reason} for each in left)])
    elif not filed and not left:
        output.print_line("no new mail")
    elif filed:
        output.print_table(("letter", "kind", "asks for", "from"), [_row(each) for each in filed])
    for each in left:
        output.print_note(f"{each.file} is not filed and stays in new: {each.reason}")


def _from_maildir(context: CommandContext, maildir: str) -> tuple[list[FiledMail], list[UnfiledMail]]:
    folder = Path(maildir) if maildir else context.settings.inbound_maildir
    if folder is None:
        raise UsageError("name a Maildir, or set SMT_INBOUND_MAILDIR; - reads one mail from stdin")
    if not (folder / "new").is_dir():
        raise UsageError(f"{folder} is no Maildir: it has no folder new")
    filed, left = list[FiledMail](), list[UnfiledMail]()
    page = account_page_url(context.settings)
    with output.progress("filing mail", None) as advance:
        for each in read_maildir(folder, context.database, context.master_key, context.clock, page):
            advance(1)
            if isinstance(each, UnfiledMail):
                left.append(each)
            else:
                filed.append(each)
    return filed, left


def _from_stdin(context: CommandContext) -> FiledMail:
    raw = sys.stdin.buffer.read(parser.LARGEST)
    if not raw.strip():
        raise UsageError("there is no mail on stdin")
    try:
        return intake.store_mail(
            raw, context.database, context.master_key, context.clock, account_page_url(context.settings)
        )
    except Exception as error:  # whatever it is: with any other code Postfix would send the mail back
        output.print_note(
            f"not filed, try again: {error if isinstance(error, DatabaseUnavailableError) else type(error).__name__}"
        )
        raise typer.Exit(TRY_AGAIN) from error


def _object(filed: FiledMail) -> dict[str, object]:
    return {"letter": filed.id, "kind": filed.kind, "asks": filed.asked, "customer": filed.customer_id}


def _row(filed: FiledMail) -> tuple[object, ...]:
    asked = (filed.asked or "").replace("_", " ")
    who = "known already" if filed.known else "a customer" if filed.customer_id else "nobody we know"
    return filed.id[:12], filed.kind, asked, who
