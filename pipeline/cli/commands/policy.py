"""`smt-billing policy`: whether each clause of the privacy policy is true now, its texts, and how they change."""

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import output as say
from pipeline.cli.context import Call, Json, of
from pipeline.errors import Wrong

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pipeline.db.models import Policy
    from pipeline.policy.clauses import Vendor
    from pipeline.policy.runner import Result

app = typer.Typer(
    help="The privacy policy: checked clause by clause, its texts, and changes to it.", no_args_is_help=True
)

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
    from pipeline.app.policy_evidence import looking
    from pipeline.policy import processing_record as record
    from pipeline.policy import public_pages as pages
    from pipeline.policy import runner as verdicts
    from pipeline.privacy import audit_log as audit

    call = of(context)
    _known(clause or [])
    with looking(_parts(call)) as live:
        results = verdicts.run(live, clause or ())
        head, now, vendor = audit.head(live.session), live.now, live.vendor.name
    notes = record.notes(call.settings)
    if not clause:
        pages.keep(call.settings.data_dir, verdicts.public(results, now))
    if report:
        _write_report(call, report, verdicts.report(results, notes, vendor, now, head))
    if json:
        say.json([each.as_json() for each in results])
    else:
        _show(results, [] if clause else notes)
    if any(each.verdict == "broken" for each in results):
        raise typer.Exit(1)


@app.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the clauses: what each promises, what keeps it true, what checks it, on which evidence."""
    from pipeline.policy.clauses import document, fill

    vendor = _vendor(of(context))
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
        say.json(rows)
    else:
        say.table(("clause", "text", "control", "check", "evidence"), [list(row.values())[:5] for row in rows])


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
    from pipeline.policy import text, versions
    from pipeline.policy.clauses import document

    call = of(context)
    if new:
        say.line(text.write(document(), _vendor(call)).rstrip("\n"))
        return
    with call.database.reading() as session:
        rows = versions.every(session)
        if day:
            say.line(_row(rows, day).text.rstrip("\n"))
            return
        found = [_told(session, row, call.clock.now()) for row in rows]
    if json:
        say.json(found)
    elif not found:
        say.line("no text is kept yet; the scheduler keeps the first one, or: smt-billing policy propose")
    else:
        say.table(("day", "state", "material", "proposed (UTC)", "takes effect (UTC)"), [_line(each) for each in found])


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
    from pipeline.policy import text

    call = of(context)
    new = text.read(_read(file))
    with call.parts.database.transaction() as session:
        old, id, to_tell = _plan(call, session, new, _day(effective), material=material)
        if dry_run:
            session.rollback()
    _show_changes(call, old, new)
    if material:
        say.line(f"customers to be told by mail: {to_tell:,}")
    if not dry_run:
        told = _notify(call)
        say.line(
            f"planned for {id}" + (f", notices owed: {told:,}; see: smt-billing policy notices {id}" if told else "")
        )


@app.command()
def withdraw(context: typer.Context, day: Day) -> None:
    """Give up a text before it takes effect."""
    from pipeline.policy import versions

    call = of(context)
    with call.database.transaction() as session:
        try:
            versions.withdraw(session, day, call.clock.now())
        except versions.Refused as refused:
            raise Wrong(str(refused)) from refused
    say.line(f"the text of {day} is withdrawn; notices that are still owed go out, so tell people by other means")


@app.command()
def notices(context: typer.Context, day: Day, json: Json = False) -> None:
    """Show who was told of a text: each customer's notice, when the relay took it, and its answer.

    JSON: an array of objects with customer, mail, state, sent_at and reply.
    """
    from pipeline.clock import write_time
    from pipeline.policy import versions

    call = of(context)
    with call.database.reading() as session:
        row = _row(versions.every(session), day)
        found = [
            {
                "customer": each.customer,
                "mail": each.mail,
                "state": each.state,
                "sent_at": write_time(each.sent_at) if each.sent_at else None,
                "reply": each.reply,
            }
            for each in versions.notices(session, row)
        ]
    if json:
        say.json(found)
    elif not found:
        say.line("nobody was told of this text")
    else:
        headings = ("customer", "mail", "state", "sent (UTC)", "reply")
        say.table(headings, [[*list(each.values())[:3], say.stamp(each["sent_at"]), each["reply"]] for each in found])


@app.command("record")
def record_(context: typer.Context, json: Json = False) -> None:
    """Print the record of processing activities (GDPR article 30), from the same data that the software runs by."""
    from pipeline.policy import processing_record as record

    call = of(context)
    found = record.record(call.settings, _vendor(call))
    if json:
        say.json(found)
        return
    for heading, lines in record.spoken(found):
        say.line(f"{heading}\n")
        for line in lines:
            say.line(f"  {line}")
        say.line()


def _parts(call: Call) -> Any:
    call.parts.need_tables()
    return call.parts


def _vendor(call: Call) -> "Vendor":
    from pipeline.app.from_settings import publisher

    return publisher(call.settings)


def _plan(call: Call, session: Any, new: str, effective: date, *, material: bool) -> tuple[str, str, int]:
    """Plan the text; the one in force, the new one's id, and how many customers have to be told."""
    from pipeline.policy import versions

    now = call.clock.now()
    versions.establish(session, _vendor(call), call.settings.policy_effective, now)
    old = versions.in_force(session, now)
    try:
        row = versions.propose(session, new, effective, now, material=material)
    except versions.Refused as refused:
        raise Wrong(str(refused)) from refused
    return old.text if old else "", row.id, versions.outstanding(session, row) if material else 0


def _known(ids: "Sequence[str]") -> None:
    from pipeline.policy.clauses import document

    known = [clause.id for clause in document().clauses]
    unknown = [id for id in ids if id not in known]
    if unknown:
        raise Wrong(f"there is no clause {unknown[0]}; there are: {', '.join(known)}")


def _show(results: "Sequence[Result]", notes: "Sequence[str]") -> None:
    say.table(("", "clause", "what we promise", "found"), [_checked(each) for each in results])
    count = {verdict: sum(each.verdict == verdict for each in results) for verdict in MARKS}
    say.line(f"\n{count['holds']} hold, {count['broken']} broken, {count['not_applicable']} do not apply")
    if notes:
        say.line("\nWhere policy and law pull apart")
    for note in notes:
        say.line(f"  {note}")


def _checked(each: "Result") -> tuple[str, ...]:
    return MARKS[each.verdict], each.clause.id, each.text, each.figure


def _write_report(call: Call, file: Path, text: str) -> None:
    """The report, its signature beside it, and the key to check it by."""
    from pipeline.crypto.keyring import Keyring
    from pipeline.crypto.signing import Signer

    with call.parts.database.transaction() as session:
        signer = Signer(Keyring(call.parts.master, session, call.clock.now()))
    data = text.encode()
    for ending, content in (("", data), (".sig", signer.sign(data)), (".pem", signer.public_pem)):
        Path(f"{file}{ending}").write_bytes(content)
    say.note(
        f"wrote {file}; to verify: openssl pkeyutl -verify -pubin -inkey {file}.pem -rawin -in {file} -sigfile {file}.sig"
    )


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except UnicodeDecodeError:
        raise Wrong(f"{file} is not UTF-8 text") from None


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise Wrong(f"{text} is no day; write it as 2026-06-01") from None


def _row(rows: "Sequence[Policy]", day: str) -> "Policy":
    found = next((row for row in rows if row.id == day), None)
    if found is None:
        raise Wrong(f"there is no text of {day}; see: smt-billing policy texts")
    return found


def _told(session: Any, row: "Policy", now: "datetime") -> dict[str, Any]:
    from pipeline.clock import write_time
    from pipeline.policy import versions

    present, effect = versions.in_force(session, now), versions.takes_effect(session, row)
    waits = effect is None or effect > now
    state = "withdrawn" if row.withdrawn_at else "in force" if row is present else "to come" if waits else "past"
    return {
        "day": row.id,
        "state": state,
        "material": row.material,
        "proposed_at": write_time(row.proposed_at),
        "effective_at": write_time(effect) if effect else None,
    }


def _line(told: dict[str, Any]) -> list[object]:
    effect = say.stamp(told["effective_at"]) or "when the notices are out"
    return [told["day"], told["state"], "yes" if told["material"] else "no", say.stamp(told["proposed_at"]), effect]


def _show_changes(call: Call, old: str, new: str) -> None:
    from pipeline.policy import text, versions
    from pipeline.policy.clauses import document

    gone, come = versions.changes(old, new)
    for mark, lines in (("-", gone), ("+", come)):
        for line in lines:
            say.line(f"{mark} {line}")
    known = text.sentences(text.write(document(), _vendor(call)))
    for line in (line for line in text.sentences(new) if line not in known):
        say.note(f"nothing in this version checks: {line}")


def _notify(call: Call) -> int:
    from pipeline.app.jobs import announce_policy

    count = 0
    while told := announce_policy(call.parts):
        count += told
    return count
