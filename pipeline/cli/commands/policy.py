"""`smt-billing policy`: verify the privacy policy, show its texts, and plan changes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.app.container import Container
from pipeline.app.from_settings import policy_owner
from pipeline.app.jobs import queue_policy_notices
from pipeline.app.policy_evidence import open_live_system
from pipeline.cli import output
from pipeline.cli.confirmation import Yes, confirm
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import parse_day
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.signing import Signer
from pipeline.errors import UsageError
from pipeline.policy import history, processing_record, proposals, public_pages, runner, text, versions
from pipeline.policy.clauses import document, fill
from pipeline.policy.runner import ClauseResult
from pipeline.privacy import audit_log

app = group()

Day = Annotated[str, typer.Argument(help="The day of a text, such as 2026-06-01; see: smt-billing policy texts.")]
MARKS = {"holds": "ok", "broken": "fail", "not_applicable": "n/a", "not_looked_at": "?"}


@app.command()
def check(
    ctx: typer.Context,
    json: Json = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write a dated, signed report to this file.")] = None,
    clause: Annotated[
        list[str] | None, typer.Option("--clause", help="Verify only this clause, such as 3.account.")
    ] = None,
) -> None:
    """Verify every clause of the privacy policy against the running system. Exit 1 if a clause is broken.

    JSON: an array of objects with clause, verdict (holds, broken, not_applicable, not_looked_at), figure, evidence,
    control and unseen (what the check does not look at).
    """
    container = container_of(context_of(ctx))
    _require_known_clauses(clause or [])
    container.require_tables()
    with open_live_system(container) as system:
        results = runner.run_checks(system, clause or ())
        head, now, vendor = audit_log.chain_head(system.session), system.now, system.vendor.name
    notes = processing_record.notes(container.settings)
    if not clause:
        public_pages.save_verdicts(container.settings.data_dir, runner.public_verdicts(results, now))
        history.append(container.settings.data_dir, results, now, head)
    if report:
        _write_report(container, report, runner.report(results, notes, vendor, now, head))
    if json:
        output.print_json([each.as_json() for each in results])
    else:
        _show(results, [] if clause else notes)
    if any(each.verdict == "broken" for each in results):
        raise typer.Exit(1)


@app.command("list")
def list_(ctx: typer.Context, json: Json = False) -> None:
    """List the clauses with the text, control, check and evidence of each. The JSON also has every and unseen."""
    vendor = policy_owner(context_of(ctx).settings)
    rows = [
        {
            "clause": each.id,
            "text": fill(each.text, vendor),
            "control": each.control,
            "check": each.check,
            "evidence": each.evidence,
            "every": each.every,
            "unseen": each.unseen,
        }
        for each in document().clauses
    ]
    if json:
        output.print_json(rows)
    else:
        output.print_table(("clause", "text", "control", "check", "evidence"), [list(row.values())[:5] for row in rows])


@app.command()
def texts(
    ctx: typer.Context,
    day: Annotated[str | None, typer.Argument(help="Show the text of this day, such as 2026-06-01.")] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Show the text of this program version, as a start for a change.")
    ] = False,
    json: Json = False,
) -> None:
    """List the past, current and future texts of the policy, or show one text.

    JSON: an array of objects with day, state, material, proposed_at and effective_at.
    """
    context = context_of(ctx)
    if new:
        output.print_line(text.write(document(), policy_owner(context.settings)).rstrip("\n"))
        return
    with context.database.reading() as session:
        if day:
            output.print_line(proposals.find(session, day).text.rstrip("\n"))
            return
        found = proposals.history(session, context.clock.now())
    if json:
        output.print_json(found)
    elif not found:
        output.print_line("no text is stored yet; the scheduler stores the first one, or: smt-billing policy propose")
    else:
        output.print_table(
            ("day", "state", "material", "proposed (UTC)", "takes effect (UTC)"), [_text_row(each) for each in found]
        )


@app.command()
def propose(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="File with the new text; start from: smt-billing policy texts --new.")],
    effective: Annotated[
        str, typer.Option("--effective", help="The day when the text takes effect, such as 2026-06-01.")
    ],
    material: Annotated[
        bool, typer.Option("--material", help="The change affects what customers agreed to: notify them by mail.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the changes and the number of customers to notify.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Plan a new text of the policy. Shows the changes; for a material change, notifies every customer by mail.

    Before it notifies customers, it asks for confirmation.
    A material change takes effect on its day, but not before 30 days after the relay accepted the last notice. Until then
    the old text stays in force.
    """
    container = container_of(context_of(ctx))
    vendor, now, first_day = (
        policy_owner(container.settings),
        container.clock.now(),
        container.settings.policy_effective,
    )
    new, day = text.read(_read(file)), parse_day(effective)
    if material and not dry_run:
        confirm("This notifies every customer by mail. See the number first with --dry-run.", yes=yes)
    with container.database.transaction() as session:
        planned = proposals.propose(session, vendor, first_day, new, day, now, material=material)
        if dry_run:
            session.rollback()
    _show_changes(planned.old, new, proposals.unchecked(new, vendor))
    if material:
        output.print_line(f"customers to notify by mail: {planned.to_tell:,}")
    if not dry_run:
        count = _queue_notices(container)
        notices = f", notices queued: {count:,}; see: smt-billing policy notices {planned.id}" if count else ""
        output.print_line(f"planned for {planned.id}{notices}")


@app.command()
def withdraw(ctx: typer.Context, day: Day) -> None:
    """Withdraw a text before it takes effect."""
    context = context_of(ctx)
    with context.database.transaction() as session:
        versions.withdraw(session, day, context.clock.now())
    output.print_line(
        f"withdrew the text of {day}. Queued notices are still sent, so inform the customers in another way"
    )


@app.command()
def notices(ctx: typer.Context, day: Day, json: Json = False) -> None:
    """List the notices about a text: each customer's mail, the time when the relay accepted it, and its answer.

    JSON: an array of objects with customer, mail, state, sent_at and reply.
    """
    with context_of(ctx).database.reading() as session:
        found = proposals.notices(session, day)
    if json:
        output.print_json(found)
    elif not found:
        output.print_line("no customer was notified of this text")
    else:
        headings = ("customer", "mail", "state", "sent (UTC)", "reply")
        output.print_table(
            headings,
            [[*list(each.values())[:3], output.format_stamp(each["sent_at"]), each["reply"]] for each in found],
        )


@app.command("record")
def record_(ctx: typer.Context, json: Json = False) -> None:
    """Print the record of processing activities (GDPR article 30), generated from the program's rules and your settings."""
    settings = context_of(ctx).settings
    found = processing_record.build_record(settings, policy_owner(settings))
    if json:
        output.print_json(found)
        return
    for heading, lines in processing_record.format_record(found):
        output.print_line(f"{heading}\n")
        for line in lines:
            output.print_line(f"  {line}")
        output.print_line()


def _require_known_clauses(ids: Sequence[str]) -> None:
    known = [clause.id for clause in document().clauses]
    unknown = [id for id in ids if id not in known]
    if unknown:
        raise UsageError(f"there is no clause {unknown[0]}; the clauses are: {', '.join(known)}")


def _show(results: Sequence[ClauseResult], notes: Sequence[str]) -> None:
    output.print_table(("", "clause", "what we promise", "found"), [_result_row(each) for each in results])
    output.print_line(f"\n{runner.counted(results)}")
    if notes:
        output.print_line("\nConflicts between policy and law")
    for note in notes:
        output.print_line(f"  {note}")


def _result_row(result: ClauseResult) -> tuple[str, ...]:
    return MARKS[result.verdict], result.clause.id, result.text, result.figure


def _write_report(container: Container, file: Path, text: str) -> None:
    """Write the report, its signature (.sig) and the public key that verifies it (.pem)."""
    with container.database.transaction() as session:
        signer = Signer(Keyring(container.master_key, session, container.clock.now()))
    data = text.encode()
    for ending, content in (("", data), (".sig", signer.sign(data)), (".pem", signer.public_pem)):
        Path(f"{file}{ending}").write_bytes(content)
    output.print_note(
        f"wrote {file}; to verify: openssl pkeyutl -verify -pubin -inkey {file}.pem -rawin -in {file} -sigfile {file}.sig"
    )


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text") from None


def _text_row(row: dict[str, Any]) -> list[object]:
    effect = output.format_stamp(row["effective_at"]) or "after the last notice"
    return [
        row["day"],
        row["state"],
        "yes" if row["material"] else "no",
        output.format_stamp(row["proposed_at"]),
        effect,
    ]


def _show_changes(old: str, new: str, unchecked: Sequence[str]) -> None:
    removed, added = versions.changes(old, new)
    for mark, lines in (("-", removed), ("+", added)):
        for line in lines:
            output.print_line(f"{mark} {line}")
    for line in unchecked:
        output.print_note(f"this version has no check for: {line}")


def _queue_notices(container: Container) -> int:
    total = 0
    while queued := queue_policy_notices(container):
        total += queued
    return total
