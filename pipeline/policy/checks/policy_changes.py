"""Checks of section 9: the text in force matches the clauses, changes are announced, and the page shows the right date."""

from datetime import timedelta

from sqlalchemy import exists, func, or_, select

from pipeline.db.models import Customer, Mail, Policy, Subscription
from pipeline.policy import public_pages, text, versions
from pipeline.policy.clauses import document
from pipeline.policy.evidence.live_system import (
    Finding,
    LiveSystem,
    broken,
    broken_if,
    count_noun,
    holds,
    not_applicable,
)

NOTICE = timedelta(days=30)


def sentences(live: LiveSystem) -> Finding:
    """The text in force consists of exactly the sentences of clauses.toml."""
    row = versions.in_force(live.session, live.now)
    stored = row.text if row else text.write(document(), live.vendor)
    present, known = text.sentences(stored), text.sentences(text.write(document(), live.vendor))
    unknown = [line for line in present if line not in known]
    missing = [line for line in known if line not in present]
    if unknown:
        return broken(f"the text in force has sentences without a check: “{unknown[0]}” ({len(unknown)} in total)")
    return broken_if(
        missing,
        f"{count_noun(len(present), 'line')}, all checked",
        f"the text in force lacks: “{(missing or [''])[0]}”",
    )


def notices(live: LiveSystem) -> Finding:
    """Every material text was mailed to each customer, accepted by the relay, 30 days before its day or its publication."""
    material = [
        row
        for row in live.session.execute(select(Policy).where(Policy.material, Policy.withdrawn_at.is_(None))).scalars()
        if row.effective_at <= live.now
    ]
    if not material:
        return not_applicable("no material change has reached its day yet")
    published = versions.in_force(live.session, live.now)
    for row in material:
        untold = _untold(live, row)
        if untold:
            advice = f"see: smt-billing policy notices {row.id}"
            return broken(
                f"{count_noun(untold, 'customer')} not told of the text of {row.id} by an accepted mail; {advice}"
            )
        if row is published and _is_early(live, row):
            return broken(f"in force too early: {row.id}")
    return holds(f"{count_noun(len(material), 'change')}, each announced")


def date(live: LiveSystem) -> Finding:
    """The date at the top of the page is the effective date of the text in force."""
    row = versions.in_force(live.session, live.now)
    shown, _, effective = public_pages.page(live.session, live.now, live.vendor, live.settings.policy_effective)
    expected = versions.takes_effect(live.session, row) if row else None
    day = expected.date() if expected else live.settings.policy_effective
    served = [page for page in live.pages if page.path == "/privacy"]
    right = day == effective and all(text.dated(day) in body for body in [shown, *(page.body for page in served)])
    return broken_if(not right, text.dated(day), f"the page does not say {text.dated(day)}")


def _untold(live: LiveSystem, row: Policy) -> int:
    """Count the customers of that day, with an address, to whom the relay accepted no notice."""
    of_text = (
        Mail.kind == "policy_changed",
        Mail.idempotency_key.startswith(f"policy_changed:{row.id}:", autoescape=True),
    )
    told = exists().where(Mail.customer_id == Customer.id, *of_text, Mail.state == "sent", Mail.sent_at.is_not(None))
    owns = exists().where(Subscription.customer_id == Customer.id, Subscription.email_hash.is_not(None))
    concerned = (
        Customer.created_at <= row.proposed_at,
        Customer.erased_at.is_(None),
        Customer.merged_into.is_(None),
        or_(Customer.email_hash.is_not(None), owns),
    )
    return live.count(Customer, *concerned, ~told)


def _is_early(live: LiveSystem, row: Policy) -> bool:
    last = select(func.max(Mail.sent_at)).where(
        Mail.kind == "policy_changed", Mail.idempotency_key.startswith(f"policy_changed:{row.id}:", autoescape=True)
    )
    sent_at = live.session.execute(last).scalar_one()
    return sent_at is not None and sent_at + NOTICE > live.now
