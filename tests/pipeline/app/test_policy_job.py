"""The scheduler checks the privacy policy daily, keeps the verdicts, and tells the operator when a clause turns red."""

from datetime import timedelta

import pytest

from pipeline.app import jobs
from pipeline.app.container import Container
from pipeline.db.models import AccessLogEntry, Customer, Link, Mail
from pipeline.policy import history
from tests.support.outbox_fixtures import OPERATOR
from tests.support.pipeline_under_test import PipelineUnderTest, make_parts


@pytest.fixture
def container(sqlite_pipeline: PipelineUnderTest) -> Container:
    return make_parts(
        sqlite_pipeline.url,
        sqlite_pipeline.folder,
        sqlite_pipeline.clock,
        operator_email=OPERATOR,
        public_url="https://billing.example.com",
    )


def test_check_runs_daily(container: Container) -> None:
    [job] = [job for job in jobs.build_jobs(container) if job.name == "check the privacy policy"]
    assert job.every == timedelta(days=1)


def test_broken_clause_reaches_the_operator_within_a_day(
    sqlite_pipeline: PipelineUnderTest, container: Container
) -> None:
    jobs.check_policy(container)
    before = set(history.past_checks(sqlite_pipeline.folder)[-1].broken)
    old = sqlite_pipeline.now - timedelta(days=3 * 366)
    with sqlite_pipeline.database.transaction() as session:
        session.add(Customer(id="c" + "0" * 30, created_at=old, signed_up_at=old))
    sqlite_pipeline.clock.advance(timedelta(days=1))
    jobs.check_policy(container)
    checks = history.past_checks(sqlite_pipeline.folder)
    assert "3.account" in set(checks[-1].broken) - before
    assert (checks[0].verdicts["3.account"], checks[-1].verdicts["3.account"]) == ("holds", "broken")
    assert jobs.check_health(container) == 1
    [mail] = [row for row in sqlite_pipeline.rows(Mail) if row.kind == "system_problem"]
    with sqlite_pipeline.database.transaction() as session:
        key = sqlite_pipeline.keyring(session).system_key(mail.key_id)
        facts = key.decrypt_json("mail.facts", mail.facts)
    assert facts is not None
    [problem] = [each for each in facts["problems"] if each["name"] == "policy 3.account"]
    assert problem["command"] == "smt-billing policy check --clause 3.account"


def test_check_leaves_no_traces_in_what_it_judges(sqlite_pipeline: PipelineUnderTest, container: Container) -> None:
    jobs.check_policy(container)
    assert [sqlite_pipeline.count(table) for table in (AccessLogEntry, Customer, Link)] == [0, 0, 0]
