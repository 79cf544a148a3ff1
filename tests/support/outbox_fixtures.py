"""Helpers for mail tests: create customers, queue mails, and start mailers and scheduler jobs."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from email import message_from_bytes, policy

from pipeline.billing.reminders import ReminderPolicy
from pipeline.db import lww_map
from pipeline.db.engine import Database
from pipeline.db.models import Mail, Subscription
from pipeline.mailer.mailer import Mailer, Sender
from pipeline.mailer.smtp_relay import Relay
from pipeline.outbox.store import NewMail
from pipeline.rendering.branding import Branding
from pipeline.rendering.templates import Templates, default_folder
from pipeline.scheduler.core_jobs import core_jobs
from pipeline.scheduler.scheduler import Job
from tests.support.pipeline_under_test import PipelineUnderTest

ADA = "ada.whitfield@example.com"
OPERATOR = "operator@example.com"
VENDOR = Branding(
    "SMT Constructions", "https://smt.example.com", "1 Mill Lane", "#1d4e89", "SMT-CRM", "help@example.com"
)
SENDER = Sender(
    "SMT Constructions", "billing@example.com", "help@example.com", "bounces.example.com", "en_US", OPERATOR
)
TEMPLATES = Templates(default_folder(), VENDOR, "en_US")

Make = Callable[..., Mailer]


def meet(pipeline: PipelineUnderTest, id: str = "I-ADA", email: str | None = ADA, name: str = "Ada") -> None:
    """Create a customer with this e-mail address, or set the address."""
    known = lww_map.merge({}, pipeline.now, {"email": email, "given_name": name, "surname": "Whitfield"})
    with pipeline.database.transaction() as session:
        person = pipeline.keyring(session).system_key(id).encrypt_json("subscription.personal_data", known)
        row = session.get(Subscription, id) or Subscription(
            id=id, known={}, created_at=pipeline.now, is_established=True
        )
        row.personal_data = person
        session.add(row)


def receipt(number: int = 1, of: str = "I-ADA") -> NewMail:
    facts = {**TEMPLATES.example("receipt"), "subscription": of, "payment": f"SALE{number}"}
    return NewMail("receipt", f"receipt:SALE{number}", of, facts)


def owe(pipeline: PipelineUnderTest, count: int = 1) -> None:
    pipeline.owe(*[receipt(number) for number in range(1, count + 1)])


def only(pipeline: PipelineUnderTest) -> Mail:
    [row] = pipeline.rows(Mail)
    return row


def states(pipeline: PipelineUnderTest) -> list[str]:
    return sorted(row.state for row in pipeline.rows(Mail))


def header(data: bytes, name: str) -> str:
    return str(message_from_bytes(data, policy=policy.default)[name])


class Jobs:
    """The scheduler's core jobs, so that a test can run each one alone."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.free_claims, self.remind, self.tell_operator, *_ = (job.run for job in jobs)


def scheduler(pipeline: PipelineUnderTest, *, may_read: bool = False, operator: str = "") -> Jobs:
    return Jobs(jobs_of(pipeline, may_read=may_read, operator=operator))


def jobs_of(pipeline: PipelineUnderTest, *, may_read: bool = False, operator: str = "") -> list[Job]:
    return core_jobs(
        pipeline.database, pipeline.master, pipeline.clock,
        reminders=ReminderPolicy(), may_read=may_read, operator=operator,
    )  # fmt: skip


@asynccontextmanager
async def mailers(pipeline: PipelineUnderTest) -> AsyncIterator[Make]:
    """Yield a function that creates mailers, by default on the pipeline's database. All close at the end of the block."""
    made: list[Mailer] = []

    def mailer(url: str, database: Database | None = None, *, final: float = 5, connections: int = 2) -> Mailer:
        relay = Relay(url, connections=connections, timeout_seconds=5, final_timeout_seconds=final)
        made.append(Mailer(database or pipeline.database, pipeline.master, pipeline.clock, TEMPLATES, relay, SENDER))
        return made[-1]

    yield mailer
    for each in made:
        await each.close()
