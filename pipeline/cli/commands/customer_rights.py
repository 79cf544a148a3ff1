"""`smt-billing customers export|requests|answer`: a copy of a person's data, and what people have asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline import files
from pipeline.cli import output as say
from pipeline.cli import read_audit as reading
from pipeline.cli.context import Json, of
from pipeline.errors import Wrong

Kind = Literal["access", "correct", "erase", "opt_out", "child", "other"]

if TYPE_CHECKING:
    from pipeline.db.models import PrivacyRequest

HEADINGS = ("id", "kind", "state", "received (UTC)", "answer by", "customer", "from", "reason")


def register(app: typer.Typer) -> None:
    """Put these commands into `smt-billing customers`."""
    for command in (export, requests, answer, verify):
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
    from pipeline.app.container import issuer, product
    from pipeline.customers.product_hook import ProductDown
    from pipeline.privacy.export import bundle

    call = of(context)
    reading.note(call, "customers export", purpose, id)
    try:
        data = bundle(
            call.database,
            call.master,
            call.clock.now(),
            id,
            issuer=issuer(call.settings),
            product=product(call.settings),
        )
    except ProductDown as error:
        raise Wrong(f"nothing was written, as the product's own export is missing: {error}", found=True) from error
    _write(to, data)
    if json:
        say.json({"file": str(to), "bytes": len(data), "customer": id})
    else:
        say.line(f"wrote {to} ({len(data):,} bytes); begin with index.html in it. Whoever has it can read it all.")


def verify(
    context: typer.Context, file: Annotated[Path, typer.Argument(help="A ZIP written by customers export.")]
) -> None:
    """Say whether a copy of a person's data is as we handed it out: exit 0 if so, else 1."""
    from pipeline.crypto.keyring import Keyring
    from pipeline.crypto.signing import Signer
    from pipeline.privacy.export import NotOurs, check

    call = of(context)
    with call.database.transaction() as session:
        signer = Signer(Keyring(call.master, session, call.clock.now()))
    try:
        files = check(file.read_bytes(), signer)
    except NotOurs as error:
        raise Wrong(f"{file}: {error}", found=True) from error
    say.line(f"{file} is as we made it: {len(files)} files")


def requests(
    context: typer.Context,
    open_: Annotated[bool, typer.Option("--open", help="Only those that still wait for an answer.")] = False,
    kind: Annotated[Kind | None, typer.Option(help="Only of this kind.")] = None,
    json: Json = False,
) -> None:
    """List what people have asked for under the privacy policy, what is due first on top.

    JSON: an array of objects with id, kind, state, source, customer, received_at, due_at, done_at and reason.
    """
    from sqlalchemy import select

    from pipeline.db.models import PrivacyRequest

    call = of(context)
    chosen = select(PrivacyRequest).order_by(PrivacyRequest.done_at.is_not(None), PrivacyRequest.due_at)
    chosen = chosen.where(PrivacyRequest.done_at.is_(None)) if open_ else chosen
    chosen = chosen.where(PrivacyRequest.kind == kind) if kind else chosen
    with call.database.reading() as session:
        rows = list(session.execute(chosen).scalars())
    if json:
        say.json([_json(row) for row in rows])
    elif not rows:
        say.line("no such requests")
    else:
        say.table(HEADINGS, [_row(row, call.settings.locale) for row in rows])


def answer(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The request's id; see: smt-billing customers requests.")],
    done: Annotated[bool, typer.Option("--done", help="It has been done.")] = False,
    refuse: Annotated[str, typer.Option("--refuse", help="It is refused, for this reason; name nobody in it.")] = "",
) -> None:
    """Say what became of a request that you looked after yourself."""
    from pipeline.privacy import requests as asked

    call = of(context)
    if done == bool(refuse):
        raise Wrong("say either --done or --refuse REASON")
    with call.database.transaction() as session:
        try:
            asked.answer(session, id, "refused" if refuse else "done", call.clock.now(), refuse or None)
        except (asked.NoSuchRequest, asked.EndsByItself) as error:
            raise Wrong(str(error)) from error
    say.line("refused" if refuse else "done")


def _write(path: Path, data: bytes) -> None:
    try:
        with files.new(path) as file:
            file.write(data)
    except FileExistsError:
        raise Wrong(f"{path} is there already; name a new file") from None


def _json(row: "PrivacyRequest") -> dict[str, Any]:
    from pipeline.clock import write_time

    return {
        "id": row.id,
        "kind": row.kind,
        "state": row.state,
        "source": row.source,
        "customer": row.customer_id,
        "received_at": write_time(row.received_at),
        "due_at": write_time(row.due_at),
        "done_at": row.done_at and write_time(row.done_at),
        "reason": row.reason,
    }


def _row(row: "PrivacyRequest", locale: str) -> tuple[object, ...]:
    received = f"{row.received_at:%Y-%m-%d %H:%M}"
    due = "" if row.done_at else say.day(row.due_at, locale)
    kind = row.kind.replace("_", " ")
    return row.id, kind, row.state, received, due, row.customer_id or "nobody we know", row.source, row.reason
