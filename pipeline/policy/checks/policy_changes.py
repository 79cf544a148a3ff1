"""Checks of section 9: the text in force matches the clauses, changes are announced, and the page shows the right date."""

from pipeline.db.models import Policy
from pipeline.policy import public_pages, text, versions
from pipeline.policy.clauses import document
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, not_applicable


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
    """Every material text took effect at least 30 days after the relay accepted its last notice."""
    material = [row for row in versions.all_texts(live.session) if row.material and row.withdrawn_at is None]
    if not material:
        return not_applicable("no material change yet")
    published = versions.in_force(live.session, live.now)
    wrong = [row.id for row in material if row is published and _is_early(live, row)]
    late = [
        row.id for row in material if row.effective_at <= live.now and versions.takes_effect(live.session, row) is None
    ]
    if late:
        return broken(
            f"{late[0]} cannot take effect, because notices were not sent; see: smt-billing policy notices {late[0]}"
        )
    return broken_if(
        wrong, f"{count_noun(len(material), 'change')}, each announced", f"in force too early: {', '.join(wrong)}"
    )


def date(live: LiveSystem) -> Finding:
    """The date at the top of the page is the effective date of the text in force."""
    row = versions.in_force(live.session, live.now)
    shown, _, effective = public_pages.page(live.session, live.now, live.vendor, live.settings.policy_effective)
    expected = versions.takes_effect(live.session, row) if row else None
    day = expected.date() if expected else live.settings.policy_effective
    served = [page for page in live.pages if page.path == "/privacy"]
    right = day == effective and all(text.dated(day) in body for body in [shown, *(page.body for page in served)])
    return broken_if(not right, text.dated(day), f"the page does not say {text.dated(day)}")


def _is_early(live: LiveSystem, row: Policy) -> bool:
    sent = [notice.sent_at for notice in versions.notices(live.session, row) if notice.sent_at]
    return bool(sent) and max(sent) + versions.NOTICE > live.now
