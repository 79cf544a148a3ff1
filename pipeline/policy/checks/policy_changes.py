"""Section 9: the text in force says what is checked here, and nothing else; who it concerns was told."""

from pipeline.db.models import Policy
from pipeline.policy import public_pages, text, versions
from pipeline.policy.clauses import document
from pipeline.policy.evidence.live_system import Finding, LiveSystem, broken, broken_if, count_noun, not_applicable


def sentences(live: LiveSystem) -> Finding:
    """Every sentence of the text in force is one of ours, and every one of ours stands in it."""
    row = versions.in_force(live.session, live.now)
    kept = row.text if row else text.write(document(), live.vendor)
    present, known = text.sentences(kept), text.sentences(text.write(document(), live.vendor))
    more = [line for line in present if line not in known]
    missing = [line for line in known if line not in present]
    if more:
        return broken(f"the text in force says what nothing here checks: “{more[0]}” ({len(more)} in all)")
    return broken_if(
        missing,
        f"{count_noun(len(present), 'line')}, all of them checked",
        f"it does not say: “{(missing or [''])[0]}”",
    )


def notices(live: LiveSystem) -> Finding:
    """Every material text began thirty days or more after the relay had taken the last notice of it."""
    material = [row for row in versions.all_texts(live.session) if row.material and row.withdrawn_at is None]
    if not material:
        return not_applicable("no material change yet")
    published = versions.in_force(live.session, live.now)
    wrong = [row.id for row in material if row is published and _is_early(live, row)]
    late = [
        row.id for row in material if row.effective_at <= live.now and versions.takes_effect(live.session, row) is None
    ]
    if late:
        return broken(f"{late[0]} cannot take effect: notices are not out; see: smt-billing policy notices {late[0]}")
    return broken_if(
        wrong, f"{count_noun(len(material), 'change')}, each announced", f"in force too early: {', '.join(wrong)}"
    )


def date(live: LiveSystem) -> Finding:
    """The date at the top of the page is that of the text in force."""
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
