"""`smt-billing customers export|verify|requests|answer|erase`: the rights of customers under the privacy policy."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from pipeline import files
from pipeline.app import from_settings, maintenance
from pipeline.cli import output, read_audit
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
from pipeline.queries import requests as queries

Kind = Literal["access", "correct", "erase", "opt_out", "child", "other"]
HEADINGS = ("id", "kind", "state", "received (UTC)", "answer by", "customer", "from", "reason")


def register(app: typer.Typer) -> None:
    """Put these commands into `smt-billing customers`."""
    for command in (export, requests, answer, verify, erase):
        app.command()(command)


def export(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")],
    to: Annotated[Path, typer.Option("--to", help="The ZIP file to write; it must not exist yet.")],
    purpose: Annotated[str, typer.Option(help="Why, for the log of who read what.")] = "copy of a person's data",
    json: Json = False,
) -> None:
    """Write everything we hold about a customer into one ZIP: readable, complete, and signed.

    The product's own export is asked for and joined where SMT_PRODUCT_COMMAND or SMT_PRODUCT_URL is set. JSON: an object
    with file, bytes and customer.
    """
    call = context_of(context)
    read_audit.record_read(call, "customers export", purpose, id)
    try:
        data = build_export(
            call.database,
            call.master_key,
            call.clock.now(),
            id,
            issuer=from_settings.export_issuer(call.settings),
            product=from_settings.product_hook(call.settings),
        )
    except ProductUnavailableError as error:
        raise OperatorError(f"nothing was written, as the product's own export is missing: {error}") from error
    _write(to, data)
    if json:
        output.print_json({"file": str(to), "bytes": len(data), "customer": id})
    else:
        output.print_line(
            f"wrote {to} ({len(data):,} bytes); begin with index.html in it. Whoever has it can read it all."
        )


def verify(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A ZIP written by customers export.")]
) -> None:
    """Say whether a copy of a person's data is as we handed it out: exit 0 if so, else 1."""
    call = context_of(context)
    with call.database.transaction() as session:
        signer = Signer(Keyring(call.master_key, session, call.clock.now()))
    try:
        members = verify_export(file.read_bytes(), signer)
    except InvalidExportError as error:
        raise OperatorError(f"{file}: {error}") from error
    output.print_line(f"{file} is as we made it: {len(members)} files")


def requests(
    context: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Only those that still wait for an answer.")] = False,
    kind: Annotated[Kind | None, typer.Option(help="Only of this kind.")] = None,
    json: Json = False,
) -> None:
    """List what people have asked for under the privacy policy, what is due first on top.

    JSON: an array of objects with id, kind, state, source, customer, received_at, due_at, done_at and reason.
    """
    call = context_of(context)
    with call.database.reading() as session:
        rows = queries.requests(session, only_open=open_, kind=kind)
    if json:
        output.print_json(rows)
    elif not rows:
        output.print_line("no such requests")
    else:
        output.print_table(HEADINGS, [_row(row, call.settings.locale) for row in rows])


def answer(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The request's id; see: smt-billing customers requests.")],
    done: Annotated[bool, typer.Option("--done", help="It has been done.")] = False,
    refuse: Annotated[str, typer.Option("--refuse", help="It is refused, for this reason; name nobody in it.")] = "",
) -> None:
    """Say what became of a request that you looked after yourself."""
    call = context_of(context)
    if done == bool(refuse):
        raise UsageError("say either --done or --refuse REASON")
    with call.database.transaction() as session:
        customer_requests.answer_request(session, id, "refused" if refuse else "done", call.clock.now(), refuse or None)
    output.print_line("refused" if refuse else "done")


def erase(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The customer's id; see: smt-billing customers list.")],
    now: Annotated[bool, typer.Option("--now", help="Without the waiting period and its mail.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Keep a customer whose waiting period runs.")] = False,
    receipt: Annotated[bool, typer.Option("--receipt", help="Show the receipt of an erasure that was made.")] = False,
    json: Json = False,
) -> None:
    """Erase a customer: after the waiting period of SMT_ERASE_WAIT_HOURS, or now.

    A running subscription is cancelled at PayPal, the product is told, every key of theirs is destroyed, and what the law
    wants kept stays without a name. The scheduler carries it out, and tries again what PayPal or the product refuse.

    With --now it ends with 1 if it could not be done yet. JSON: an object with request, state, act_at and reason; with
    --receipt one with id, customer, at, complete_at and receipt.
    """
    call = context_of(context)
    if now + cancel + receipt > 1:
        raise UsageError("say one of --now, --cancel and --receipt")
    if receipt:
        _show_receipts(call, id, json)
        return
    row = _cancel(call, id) if cancel else _begin(call, id, now=now)
    if json:
        output.print_json(
            {"request": row.id, "state": row.state, "act_at": write_optional(row.waiting_ends_at), "reason": row.reason}
        )
    else:
        output.print_line(_said(row, call.settings.locale, is_told=_is_told(call, row.id)))
    if now and row.reason:
        raise typer.Exit(1)


def _begin(context: CommandContext, id: str, *, now: bool) -> PrivacyRequest:
    if now:
        parts = container_of(context)
        row = workflow.erase_now(
            context.database, context.master_key, context.clock, maintenance.erasure_dependencies(parts), id, "operator"
        )
        maintenance.record_erasures(parts)
        return row
    page, wait = cancel_page(context.settings.pages_url), from_settings.erasure_wait(context.settings)
    with context.database.transaction() as session:
        moment = context.clock.now()
        keyring = Keyring(context.master_key, session, moment)
        return workflow.schedule_erasure(session, keyring, id, moment, "operator", page=page, wait=wait)


def cancel_page(site: str) -> str:
    """The address of the page that cancels a deletion; the secret of the mail's link is appended to it."""
    return links.url(site, "cancel_erase", "")


def _cancel(context: CommandContext, id: str) -> PrivacyRequest:
    with context.database.transaction() as session:
        now = context.clock.now()
        return operator_actions.cancel_erasure(session, id, now)


def _show_receipts(context: CommandContext, id: str, json: bool) -> None:
    with context.database.reading() as session:
        receipts = queries.receipts(session, id)
    if not receipts:
        raise OperatorError(f"no erasure of {id} has been carried out")
    if json:
        output.print_json(receipts)
        return
    for each in receipts:
        output.print_pairs(each | {"receipt": output.json_lines(each["receipt"])})


def _is_told(context: CommandContext, request_id: str) -> bool:
    with context.database.reading() as session:
        return queries.is_confirmed(session, request_id)


def _said(row: PrivacyRequest, locale: str, *, is_told: bool) -> str:
    if row.state == "cancelled":
        return "the deletion is cancelled; the customer stays"
    if row.state == "waiting" and row.waiting_ends_at:
        day = output.format_day(row.waiting_ends_at, locale)
        return f"will be erased on {day}; until then: smt-billing customers erase {row.customer_id} --cancel"
    if row.reason:
        return f"not erased yet, and tried again every minute: {row.reason}"
    told = "the confirmation is on its way" if is_told else "no confirmation was sent, as no address was known"
    return f"erased; {told}. The proof: smt-billing customers erase {row.customer_id} --receipt"


def _write(path: Path, data: bytes) -> None:
    try:
        with files.create_private(path) as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} is there already; name a new file") from None


def _row(row: dict[str, Any], locale: str) -> tuple[object, ...]:
    due = "" if row["done_at"] else output.format_day(output.parse_stamp(row["due_at"]), locale)
    customer = row["customer"] or "nobody we know"
    kind, received = row["kind"].replace("_", " "), output.format_stamp(row["received_at"])
    return row["id"], kind, row["state"], received, due, customer, row["source"], row["reason"]
