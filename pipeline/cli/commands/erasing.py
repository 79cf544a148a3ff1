"""`smt-billing customers erase`: a person's data goes, after a wait or now; and the proof of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Call, Json, of
from pipeline.errors import Wrong

if TYPE_CHECKING:
    from pipeline.db.models import Erasure, PrivacyRequest


def register(app: typer.Typer) -> None:
    """Put this command into `smt-billing customers`."""
    app.command()(erase)


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
    call = of(context)
    if now + cancel + receipt > 1:
        raise Wrong("say one of --now, --cancel and --receipt")
    if receipt:
        _show_receipts(call, id, json)
        return
    row = _cancel(call, id) if cancel else _begin(call, id, now=now)
    if json:
        say.json({"request": row.id, "state": row.state, "act_at": _time(row.waiting_ends_at), "reason": row.reason})
    else:
        say.line(_said(row, call.settings.locale, is_told=_is_told(call, row.id)))
    if now and row.reason:
        raise typer.Exit(1)


def _begin(call: Call, id: str, *, now: bool) -> "PrivacyRequest":
    from pipeline.app import maintenance as leaving
    from pipeline.crypto.keyring import Keyring
    from pipeline.privacy.erasure import workflow as erase

    if now:
        row = erase.now(call.database, call.master, call.clock, leaving.outside(call.parts), id, "operator")
        leaving.note_erasures(call.parts)
        return row
    with call.database.transaction() as session:
        keyring, moment = Keyring(call.master, session, call.clock.now()), call.clock.now()
        page, wait = cancel_page(call.settings.pages_url), leaving.wait(call.settings)
        return erase.schedule(session, keyring, id, moment, "operator", page=page, wait=wait)


def cancel_page(site: str) -> str:
    """Where the link of the mail leads that cancels a deletion: the secret is put behind it."""
    from pipeline.customers import links

    return links.address(site, "cancel_erase", "")


def _cancel(call: Call, id: str) -> "PrivacyRequest":
    from pipeline.crypto.keyring import Keyring
    from pipeline.customers import accounts
    from pipeline.privacy import requests
    from pipeline.privacy.erasure import workflow as erase

    with call.database.transaction() as session:
        accounts.need(session, id)
        row = requests.find_open(session, id, "erase")
        if row is None:
            raise Wrong(f"no deletion of {id} is under way", found=True)
        try:
            return erase.cancel(session, Keyring(call.master, session, call.clock.now()), row.id, call.clock.now())
        except erase.TooLate as error:
            raise Wrong(str(error), found=True) from error


def _show_receipts(call: Call, id: str, json: bool) -> None:
    from sqlalchemy import or_, select

    from pipeline.db.models import Erasure

    with call.database.reading() as session:
        found = select(Erasure).where(or_(Erasure.customer_id == id, Erasure.id == id)).order_by(Erasure.at)
        rows = list(session.execute(found).scalars())
    if not rows:
        raise Wrong(f"no erasure of {id} has been carried out", found=True)
    if json:
        say.json([_receipt(row) for row in rows])
        return
    for row in rows:
        say.pairs(_receipt(row) | {"receipt": say.lines(row.receipt)})


def _receipt(row: "Erasure") -> dict[str, Any]:
    at = {"at": _time(row.at), "complete_at": _time(row.completed_at)}
    return {"id": row.id, "customer": row.customer_id, **at, "receipt": row.receipt}


def _is_told(call: Call, request_id: str) -> bool:
    """Whether a confirmation is on its way: there is none where no address was known."""
    from sqlalchemy import select

    from pipeline.db.models import Mail
    from pipeline.privacy.erasure.workflow import confirmation_key

    mail = select(Mail.state).where(Mail.idempotency_key == confirmation_key(request_id))
    with call.database.reading() as session:
        return session.execute(mail).scalar_one_or_none() in ("queued", "sending", "sent")


def _said(row: "PrivacyRequest", locale: str, *, is_told: bool) -> str:
    if row.state == "cancelled":
        return "the deletion is cancelled; the customer stays"
    if row.state == "waiting" and row.waiting_ends_at:
        day = say.day(row.waiting_ends_at, locale)
        return f"will be erased on {day}; until then: smt-billing customers erase {row.customer_id} --cancel"
    if row.reason:
        return f"not erased yet, and tried again every minute: {row.reason}"
    told = "the confirmation is on its way" if is_told else "no confirmation was sent, as no address was known"
    return f"erased; {told}. The proof: smt-billing customers erase {row.customer_id} --receipt"


def _time(moment: Any) -> str | None:
    from pipeline.clock import write_time

    return moment and write_time(moment)
