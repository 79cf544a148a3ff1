"""`smt-billing policy`: whether each clause of the privacy policy is true now, its texts, and how they change."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.app.container import Container
from pipeline.app.from_settings import policy_owner
from pipeline.app.jobs import queue_policy_notices
from pipeline.app.policy_evidence import open_live_system
from pipeline.cli import output
from pipeline.cli.container import container_of
from pipeline.cli.context import Json, context_of
from pipeline.cli.lazy_group import group
from pipeline.cli.time_options import read_day
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.signing import Signer
from pipeline.errors import UsageError
from pipeline.policy import processing_record, proposals, public_pages, runner, text, versions
from pipeline.policy.clauses import document, fill
from pipeline.policy.runner import ClauseResult
from pipeline.privacy import audit_log

app = group()

Day = Annotated[str, typer.Argument(help="The day of a text, as 2026-06-01; see: smt-billing policy texts.")]
MARKS = {"holds": "ok", "broken": "fail", "not_applicable": "n/a"}


@app.command()
def check(
    context: typer.Context,
    json: Json = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write a dated, signed report to this file.")] = None,
    clause: Annotated[list[str] | None, typer.Option("--clause", help="Only this clause, as 3.account.")] = None,
) -> None:
    """Say of each clause of the privacy policy whether it is true now, on the live system. Exit 1 if one is broken.

    JSON: an array of objects with clause, verdict (holds, broken, not_applicable), figure, evidence and control.
    """
    parts = container_of(context_of(context))
    _known(clause or [])
    parts.require_tables()
    with open_live_system(parts) as live:
        results = runner.run_checks(live, clause or ())
        head, now, vendor = audit_log.chain_head(live.session), live.now, live.vendor.name
    notes = processing_record.notes(parts.settings)
    if not clause:
        public_pages.save_verdicts(parts.settings.data_dir, runner.public_verdicts(results, now))
    if report:
        _write_report(parts, report, runner.report(results, notes, vendor, now, head))
    if json:
        output.print_json([each.as_json() for each in results])
    else:
        _show(results, [] if clause else notes)
    if any(each.verdict == "broken" for each in results):
        raise typer.Exit(1)


@app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the clauses: what each promises, what keeps it true, what checks it, on which evidence."""
    vendor = policy_owner(context_of(context).settings)
    rows = [
        {
            "clause": each.id,
            "text": fill(each.text, vendor),
            "control": each.control,
            "check": each.check,
            "evidence": each.evidence,
            "every": each.every,
        }
        for each in document().clauses
    ]
    if json:
        output.print_json(rows)
    else:
        output.print_table(("clause", "text", "control", "check", "evidence"), [list(row.values())[:5] for row in rows])


@app.command()
def texts(
    context: typer.Context,
    day: Annotated[str | None, typer.Argument(help="Show the text of this day, as 2026-06-01.")] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Show the text that this version keeps, to begin a change with.")
    ] = False,
    json: Json = False,
) -> None:
    """List the texts of the policy that were, are, and will be in force; or show one.

    JSON: an array of objects with day, state, material, proposed_at and effective_at.
    """
    call = context_of(context)
    if new:
        output.print_line(text.write(document(), policy_owner(call.settings)).rstrip("\n"))
        return
    with call.database.reading() as session:
        if day:
            output.print_line(proposals.find(session, day).text.rstrip("\n"))
            return
        found = proposals.history(session, call.clock.now())
    if json:
        output.print_json(found)
    elif not found:
        output.print_line("no text is kept yet; the scheduler keeps the first one, or: smt-billing policy propose")
    else:
        output.print_table(
            ("day", "state", "material", "proposed (UTC)", "takes effect (UTC)"), [_line(each) for each in found]
        )


@app.command()
def propose(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The new text; begin with: smt-billing policy texts --new.")],
    effective: Annotated[str, typer.Option("--effective", help="The day it is to take effect, as 2026-06-01.")],
    material: Annotated[
        bool, typer.Option("--material", help="It changes what people agreed to: they are told by mail.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, and who would be told.")
    ] = False,
) -> None:
    """Plan a new text of the policy: shows what changes, and for a material change tells every customer by mail.

    A material change takes effect on its day, but never earlier than 30 days after the relay accepted the last notice:
    until then the text in force stays the old one.
    """
    parts = container_of(context_of(context))
    vendor, now, first_day = policy_owner(parts.settings), parts.clock.now(), parts.settings.policy_effective
    new, day = text.read(_read(file)), read_day(effective)
    with parts.database.transaction() as session:
        planned = proposals.propose(session, vendor, first_day, new, day, now, material=material)
        if dry_run:
            session.rollback()
    _show_changes(planned.old, new, proposals.unchecked(new, vendor))
    if material:
        output.print_line(f"customers to be told by mail: {planned.to_tell:,}")
    if not dry_run:
        told = _notify(parts)
        notices = f", notices owed: {told:,}; see: smt-billing policy notices {planned.id}" if told else ""
        output.print_line(f"planned for {planned.id}{notices}")


@app.command()
def withdraw(context: typer.Context, day: Day) -> None:
    """Give up a text before it takes effect."""
    call = context_of(context)
    with call.database.transaction() as session:
        versions.withdraw(session, day, call.clock.now())
    output.print_line(
        f"the text of {day} is withdrawn; notices that are still owed go out, so tell people by other means"
    )


@app.command()
def notices(context: typer.Context, day: Day, json: Json = False) -> None:
    """Show who was told of a text: each customer's notice, when the relay took it, and its answer.

    JSON: an array of objects with customer, mail, state, sent_at and reply.
    """
    with context_of(context).database.reading() as session:
        found = proposals.notices(session, day)
    if json:
        output.print_json(found)
    elif not found:
        output.print_line("nobody was told of this text")
    else:
        headings = ("customer", "mail", "state", "sent (UTC)", "reply")
        output.print_table(
            headings,
            [[*list(each.values())[:3], output.format_stamp(each["sent_at"]), each["reply"]] for each in found],
        )


@app.command("record")
def record_(context: typer.Context, json: Json = False) -> None:
    """Print the record of processing activities (GDPR article 30), from the same data that the software runs by."""
    settings = context_of(context).settings
    found = processing_record.build_record(settings, policy_owner(settings))
    if json:
        output.print_json(found)
        return
    for heading, lines in processing_record.format_record(found):
        output.print_line(f"{heading}\n")
        for line in lines:
            output.print_line(f"  {line}")
        output.print_line()


def _known(ids: Sequence[str]) -> None:
    known = [clause.id for clause in document().clauses]
    unknown = [id for id in ids if id not in known]
    if unknown:
        raise UsageError(f"there is no clause {unknown[0]}; there are: {', '.join(known)}")


def _show(results: Sequence[ClauseResult], notes: Sequence[str]) -> None:
    output.print_table(("", "clause", "what we promise", "found"), [_checked(each) for each in results])
    count = {verdict: sum(each.verdict == verdict for each in results) for verdict in MARKS}
    output.print_line(f"\n{count['holds']} hold, {count['broken']} broken, {count['not_applicable']} do not apply")
    if notes:
        output.print_line("\nWhere policy and law pull apart")
    for note in notes:
        output.print_line(f"  {note}")


def _checked(each: ClauseResult) -> tuple[str, ...]:
    return MARKS[each.verdict], each.clause.id, each.text, each.figure


def _write_report(container: Container, file: Path, text: str) -> None:
    """The report, its signature beside it, and the key to check it by."""
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


def _line(told: dict[str, Any]) -> list[object]:
    effect = output.format_stamp(told["effective_at"]) or "when the notices are out"
    return [
        told["day"],
        told["state"],
        "yes" if told["material"] else "no",
        output.format_stamp(told["proposed_at"]),
        effect,
    ]


def _show_changes(old: str, new: str, unchecked: Sequence[str]) -> None:
    gone, come = versions.changes(old, new)
    for mark, lines in (("-", gone), ("+", come)):
        for line in lines:
            output.print_line(f"{mark} {line}")
    for line in unchecked:
        output.print_note(f"nothing in this version checks: {line}")


def _notify(container: Container) -> int:
    count = 0
    while told := queue_policy_notices(container):
        count += told
    return count
