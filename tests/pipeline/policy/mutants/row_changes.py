"""Changes of rows that mutants make: statements, requests, reads."""

from typing import Any

from sqlalchemy import text

from pipeline.db.models import (
    PrivacyRequest,
)
from pipeline.policy import history
from pipeline.privacy import audit_log, requests
from tests.pipeline.policy.healthy_system import HealthySystem


def execute(system: HealthySystem, statement: str, **values: object) -> None:
    names = {name: value for name, value in values.items() if f":{name}" in statement}
    system.transact(lambda session, _: session.execute(text(statement), names))


def change_all(system: HealthySystem, statement: Any) -> None:
    system.transact(lambda session, _: session.execute(statement.execution_options(synchronize_session=False)))


def open_one(system: HealthySystem, kind: requests.Kind, customer_id: str) -> PrivacyRequest:
    made: PrivacyRequest = system.transact(
        lambda session, keyring: requests.open_request(session, keyring, kind, customer_id, "page", system.now)
    )
    return made


def record_read(system: HealthySystem, purpose: str) -> None:
    system.transact(
        lambda session, keyring: audit_log.record_read(
            session, keyring, system.now, actor="x", action="mail show", purpose=purpose, subject=None
        )
    )


def remember_head(system: HealthySystem) -> None:
    head = system.inspect(lambda live: audit_log.chain_head(live.session))
    history.append(system.settings.data_dir, [], system.now, head)
