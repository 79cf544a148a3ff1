"""The operator's mail about everything that is over its limit, at most one an hour. It contains no personal data."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.clock import Clock
from pipeline.crypto.keyring import Keyring
from pipeline.crypto.master_key import MasterKey
from pipeline.db.engine import Database
from pipeline.db.models import Mail
from pipeline.operations.problem_file import Problem
from pipeline.outbox import store as outbox

KIND = "system_problem"
INTERVAL = timedelta(hours=1)  # at least this long between two mails
DOCTOR = "smt-billing doctor"  # the mail names it once, below the problems
REPEAT = timedelta(days=1)  # a problem that stalls the pipeline and is not solved is reported again after this


def queue_problem_mail(database: Database, master_key: MasterKey, clock: Clock, problems: Sequence[Problem]) -> int:
    """Queue one mail if there is a problem that the last mail did not report. Return the number of mails.

    While the last mail is not sent, no further one is queued: after an outage of the relay one mail is enough.
    """
    if not problems:
        return 0
    with database.transaction() as session:
        now = clock.now()
        keyring = Keyring(master_key, session, now)
        if not _is_due(session, keyring, problems, now):
            return 0
        facts = {"problems": [_facts(problem) for problem in problems]}
        # The key names the hour, so two schedulers queue one mail.
        key = f"{KIND}:{now:%Y-%m-%dT%H}"
        return len(outbox.enqueue(session, keyring, [outbox.NewMail(KIND, key, None, facts)], now))


def _is_due(session: Session, keyring: Keyring, problems: Sequence[Problem], now: datetime) -> bool:
    newest = (
        select(Mail.created_at, Mail.state, Mail.facts)
        .where(Mail.key_id == outbox.OPERATOR, Mail.kind == KIND)
        .order_by(Mail.created_at.desc())
        .limit(1)
    )
    last = session.execute(newest).one_or_none()
    if last is None:
        return True
    if now - last.created_at < INTERVAL or last.state in ("queued", "sending"):
        return False
    if last.state == "failed":  # the operator never read it
        return True
    facts = keyring.system_key(outbox.OPERATOR).decrypt_json("mail.facts", last.facts) or {}
    reported = {each["name"]: each["count"] for each in facts.get("problems", [])}
    is_old = now - last.created_at >= REPEAT
    return any(problem.count > reported.get(problem.name, 0) or (problem.stalled and is_old) for problem in problems)


def _facts(problem: Problem) -> dict[str, Any]:
    command = "" if problem.command == DOCTOR else problem.command
    return {"name": problem.name, "text": problem.text, "count": problem.count, "command": command}
