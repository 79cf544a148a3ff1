"""`smt-billing paypal`: prepare the account at PayPal, and verify PayPal's signatures."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import output
from pipeline.cli.commands import paypal_import, paypal_setup
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import parse_time_option
from pipeline.errors import UsageError
from pipeline.paypal.signature_diagnosis import diagnose_delivery, read_headers

app = group()
app.command("setup")(paypal_setup.setup)
app.add_typer(
    paypal_setup.webhook, name="webhook", help="Compare the webhook at PayPal with the handlers, and repair it."
)
app.command("import")(paypal_import.import_)
app.add_typer(paypal_setup.plans, name="plans", help="List the plans at PayPal, and compare or create those of a file.")


@app.command()
def verify(
    ctx: typer.Context,
    body: Annotated[Path, typer.Argument(help="File with the raw body, unchanged to the byte.")],
    headers: Annotated[Path, typer.Option(help="File with the headers: a JSON object, or one `Name: value` per line.")],
    webhook_id: Annotated[str, typer.Option(help="Id of the webhook that the delivery is signed for.")],
    cert: Annotated[
        Path | None,
        typer.Option(help="PEM file of PayPal's certificate. Then its URL is not checked and nothing is downloaded."),
    ] = None,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="PEM file of roots and intermediates, to check the certificate chain; default: SMT_PAYPAL_TRUST_ANCHORS."
        ),
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="The time at which the certificate must be valid; default: now.")
    ] = None,
    json: Json = False,
) -> None:
    """Verify one webhook step by step, as the receiver does: with PayPal's live API, a certificate of the sandbox is refused.

    Exit 0 if the signature is valid, 1 if a check fails."""
    context = context_of(ctx)
    now = context.clock.now()
    checks = diagnose_delivery(
        _read(body),
        read_headers(_read(headers).decode("utf-8", "replace")),
        webhook_id,
        cert_pem=_read(cert) if cert else None,
        anchors=anchors or context.settings.paypal_trust_anchors,
        at=parse_time_option(at, "--at", now) or now,
        live=context.settings.is_live,
    )
    failed = next((check.name for check in checks if not check.passed), None)
    if json:
        shown = [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in checks]
        output.print_json({"verified": failed is None, "failed": failed, "checks": shown})
    else:
        output.print_table(
            ("", "check", ""), [("ok" if each.passed else "fail", each.name, each.detail) for each in checks]
        )
        output.print_line("the signature is valid" if failed is None else f"refused: {failed}")
    if failed is not None:
        raise typer.Exit(1)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
