"""`smt-billing customers export|verify|requests|answer|erase`: data-subject requests."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline import files
from pipeline.app import from_settings, maintenance
from pipeline.cli import output, read_audit
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import CommandContext, Json, context_of
from pipeline.clock import write_optional
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.signing import Signer
from pipeline.customers import links
from pipeline.customers.product_hook import ProductUnavailableError
from pipeline.db.models import PrivacyRequest
from pipeline.errors import OperatorError, UsageError
from pipeline.privacy import operator_actions
from pipeline.privacy import requests as customer_requests
from pipeline.privacy.erasure import workflow
from pipeline.privacy.export.bundle import InvalidExportError, build_export, verify_export
from pipeline.privacy.export.spool import Spool
from pipeline.queries import requests as queries

Kind = Literal["access", "correct", "erase", "opt_out", "child", "other"]
HEADINGS = ("id", "kind", "state", "received (UTC)", "answer by", "customer", "from", "reason")

MAILED = "the customer gets a mail with your reason, and the rights to complain and to go to court"
NOT_MAILED = (
    "no customer is known, so nobody is mailed: answer the message with your reason, and name the rights to complain and "
    "to go to court; see: smt-billing inbound reply --help"
)


def register(app: typer.Typer) -> None:
    """Add these commands to `smt-billing customers`."""
    for command in (export, requests, answer, verify, erase):
        app.command()(command)


def export(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")],
    to: Annotated[Path, typer.Option("--to", help="ZIP file to write; it must not exist.")],
    purpose: Annotated[
        str, typer.Option(help="Why you read this data, for the audit log.")
    ] = "request: export of a customer's data",
    json: Json = False,
) -> None:
    """Export everything stored about a customer into one signed ZIP file.

    Includes the product's export if SMT_PRODUCT_COMMAND or SMT_PRODUCT_URL is set. JSON: an object with file, bytes and
    customer.
    """
    context = context_of(ctx)
    read_audit.record_read(context, "customers export", purpose, id)
    try:
        built = build_export(
            context.database,
            context.master_key,
            context.clock.now(),
            id,
            issuer=from_settings.export_issuer(context.settings),
            product=from_settings.product_hook(context.settings),
            folder=context.settings.data_dir,
        )
    except ProductUnavailableError as error:
        raise OperatorError(f"nothing was written because the product's export is missing: {error}") from error
    with built:
        _write(to, built)
    if json:
        output.print_json({"file": str(to), "bytes": built.size, "customer": id})
    else:
        output.print_line(f"wrote {to} ({built.size:,} bytes); start with its index.html. The file is not encrypted.")


def verify(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="ZIP file written by customers export.")]
) -> None:
    """Verify that an export is unchanged. Exit 0 if it is, otherwise 1."""
    context = context_of(ctx)
    with context.database.transaction() as session:
        signer = Signer(Keyring(context.master_key, session, context.clock.now()))
    try:
        with file.open("rb") as data:
            members = verify_export(data, signer)
    except InvalidExportError as error:
        raise OperatorError(f"{file}: {error}") from error
    output.print_line(f"{file} is unchanged: {len(members)} files")


def requests(
    ctx: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Only open requests.")] = False,
    kind: Annotated[Kind | None, typer.Option(case_sensitive=False, help="Only requests of this kind.")] = None,
    json: Json = False,
) -> None:
    """List data-subject requests, the earliest deadline first.

    JSON: an array of objects with id, kind, state, source, customer, received_at, due_at, done_at and reason.
    """
    context = context_of(ctx)
    with context.database.reading() as session:
        rows = queries.requests(session, only_open=open_, kind=kind)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such requests")
    else:
        output.print_table(HEADINGS, [_row(row, context.settings.locale) for row in rows])


def answer(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="The request's id; see: smt-billing customers requests.")],
    done: Annotated[bool, typer.Option("--done", help="You fulfilled the request.")] = False,
    refuse: Annotated[
        str, typer.Option("--refuse", help="You refused the request, for this reason. Do not name a person in it.")
    ] = "",
) -> None:
    """Close a request that you handled yourself. A refusal is mailed to the customer, with your reason and their rights."""
    context = context_of(ctx)
    if done == bool(refuse):
        raise UsageError("give either --done or --refuse REASON")
    with context.database.transaction() as session:
        now = context.clock.now()
        keyring = Keyring(context.master_key, session, now)
        is_mailed = customer_requests.answer_request(
            session, keyring, id, "refused" if refuse else "done", now, refuse or None
        )
    output.print_line("refused" if refuse else "done")
    if refuse:
        output.print_line(MAILED if is_mailed else NOT_MAILED)


def erase(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")],
    now: Annotated[
        bool, typer.Option("--now", help="Erase at once, without the wait and its mail. Cannot be undone.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel an erasure that is still waiting.")] = False,
    receipt: Annotated[bool, typer.Option("--receipt", help="Show the receipt of a completed erasure.")] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Erase a customer after SMT_ERASE_WAIT_HOURS, or at once with --now, which asks for the id again.

    Cancels a running subscription at PayPal, notifies the product, and destroys the customer's encryption keys. Data that
    the law requires stays without a name. The scheduler does this, and retries while PayPal or the product fails.

    With --now, exit 1 if the erasure is not done yet. JSON: an object with request, state, act_at and reason; with
    --receipt an array of objects with id, customer, at, complete_at and receipt.
    """
    context = context_of(ctx)
    if now + cancel + receipt > 1:
        raise UsageError("give only one of --now, --cancel and --receipt")
    if receipt:
        _show_receipts(context, id, json)
        return
    if now:
        confirm(f"This erases customer {id} at once. It cannot be undone.", yes=yes, type_again=id)
    row = _cancel(context, id) if cancel else _begin(context, id, now=now)
    if json:
        output.print_json(
            {"request": row.id, "state": row.state, "act_at": write_optional(row.waiting_ends_at), "reason": row.reason}
        )
    else:
        output.print_line(_summary(row, context.settings.locale, is_confirmed=_is_confirmed(context, row.id)))
    if now and row.reason:
        raise typer.Exit(1)


def _begin(context: CommandContext, id: str, *, now: bool) -> PrivacyRequest:
    if now:
        context.settings.require("country")  # its law says what must be kept
        container = container_of(context)
        row = workflow.erase_now(
            context.database,
            context.master_key,
            context.clock,
            maintenance.erasure_dependencies(container),
            id,
            "operator",
        )
        maintenance.record_erasures(container)
        return row
    page, wait = cancel_page(context.settings.pages_url), from_settings.erasure_wait(context.settings)
    with context.database.transaction() as session:
        moment = context.clock.now()
        keyring = Keyring(context.master_key, session, moment)
        return workflow.schedule_erasure(session, keyring, id, moment, "operator", page=page, wait=wait)


def cancel_page(site: str) -> str:
    """Return the URL of the page that cancels an erasure. The mail appends the link's secret to it."""
    return links.url(site, "cancel_erase", "")


def _cancel(context: CommandContext, id: str) -> PrivacyRequest:
    with context.database.transaction() as session:
        now = context.clock.now()
        return operator_actions.cancel_erasure(session, id, now)


def _show_receipts(context: CommandContext, id: str, json: bool) -> None:
    with context.database.reading() as session:
        receipts = queries.receipts(session, id)
    if not receipts:
        raise OperatorError(f"customer {id} has not been erased; see: smt-billing customers requests --kind erase")
    if json:
        output.print_json(receipts)
        return
    for each in receipts:
        output.print_pairs(each | {"receipt": output.json_lines(each["receipt"])})


def _is_confirmed(context: CommandContext, request_id: str) -> bool:
    with context.database.reading() as session:
        return queries.is_confirmed(session, request_id)


def _summary(row: PrivacyRequest, locale: str, *, is_confirmed: bool) -> str:
    if row.state == "cancelled":
        return "the erasure is cancelled; the customer's data stays"
    if row.state == "waiting" and row.waiting_ends_at:
        day = output.format_day(row.waiting_ends_at, locale)
        return f"will be erased on {day}; to cancel: smt-billing customers erase {row.customer_id} --cancel"
    if row.reason:
        return f"not erased yet, retried every minute: {row.reason}"
    mail = "the customer gets a confirmation" if is_confirmed else "no confirmation is sent, as no address was known"
    return f"erased; {mail}. Receipt: smt-billing customers erase {row.customer_id} --receipt"


def _write(path: Path, built: Spool) -> None:
    try:
        with files.create_private(path) as file:
            file.writelines(built.chunks())
    except FileExistsError:
        raise UsageError(f"{path} exists; name a new file") from None


def _row(row: dict[str, Any], locale: str) -> tuple[object, ...]:
    due = "" if row["done_at"] else output.format_day(output.parse_stamp(row["due_at"]), locale)
    customer = row["customer"] or "unknown"
    kind, received = row["kind"].replace("_", " "), output.format_stamp(row["received_at"])
    return row["id"], kind, row["state"], received, due, customer, row["source"], row["reason"]
