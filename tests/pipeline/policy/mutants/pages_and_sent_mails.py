"""Mutants of pages, also of a signed-in customer's, and of mails that were sent and not only of their templates."""

from email.message import EmailMessage

from tests.pipeline.policy.healthy_system import HealthySystem, mail, page
from tests.pipeline.policy.mutants.registry import Patch, of


def page_has(
    clause: str, name: str, words: str, body: str = "<p>…</p>", path: str = "/account", **headers: str
) -> None:
    """Register a mutant: a page of a signed-in customer has this body and these headers."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        system.pages.append(page(path, body, **headers))

    mutant.__name__, mutant.__doc__ = name, f"A page {words}."
    of(clause)(mutant)


page_has(
    "1.pages", "page_loads_a_font", "loads a font from another host", '<link href="https://fonts.example.net/f.css">'
)
page_has(
    "1.pages", "page_has_a_frame", "has a frame of another host", '<iframe src="https://video.example.net/"></iframe>'
)
page_has(
    "1.pages",
    "page_styles_import",
    "imports a style from another host",
    "<style>@import 'https://x.example.net/a.css'</style>",
)
page_has("1.pages", "page_allows_everything", "allows scripts of all hosts", content_security_policy="default-src *")
page_has(
    "1.pages", "page_allows_one_more_host", "allows scripts of one more host",
    content_security_policy="default-src 'self'; script-src 'self' https://stats.example.net",
)  # fmt: skip
page_has(
    "4.session",
    "page_sets_analytics_cookie",
    "sets an analytics cookie",
    cookie="_ga=1; Path=/; Secure; HttpOnly; SameSite=Lax",
)
page_has(
    "4.session", "cookie_borrows_the_prefix", "sets another cookie with the prefix of the session's",
    cookie="__Host-analytics=1; Max-Age=1800; Secure; HttpOnly; SameSite=Lax; Path=/",
)  # fmt: skip
page_has(
    "4.session", "session_lives_for_a_year", "sets the session cookie for a year",
    cookie="__Host-session=1; Max-Age=31536000; Secure; HttpOnly; SameSite=Lax; Path=/",
)  # fmt: skip
page_has(
    "4.session", "session_is_readable_by_scripts", "sets a session cookie that scripts can read",
    cookie="__Host-session=1; Secure; SameSite=Lax; Path=/",
)  # fmt: skip
page_has(
    "4.session", "session_expires_in_years", "sets a session cookie with a date in years",
    cookie="__Host-session=1; Expires=Wed, 01 Jan 2031 00:00:00 GMT; Secure; HttpOnly; SameSite=Lax; Path=/",
)  # fmt: skip
page_has(
    "4.none_else", "page_has_a_foreign_pixel", "has a pixel of another host", '<img src="https://p.example.net/1.gif">'
)
page_has(
    "4.none_else",
    "page_has_an_own_pixel",
    "has a pixel of the vendor's own",
    '<img src="/pages/p.gif" width="1" height="1">',
)


def sent(clause: str, name: str, words: str, html: str, text: str = "Hello") -> None:
    """Register a mutant: a receipt was sent with this content; its template is right again."""

    def mutant(system: HealthySystem, _: Patch) -> None:
        message = EmailMessage()
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        mail(system, "receipt", "receipt:SALE-7", system.ada, "ada@example.com")
        row = system.pipeline.mails()["receipt:SALE-7"]
        system.pipeline.set(row, frozen=system.encrypt(row.key_id, "mail.frozen", message.as_bytes()))

    mutant.__name__, mutant.__doc__ = name, f"A mail was sent that {words}."
    of(clause)(mutant)


sent("4.none_else", "sent_pixel", "had a pixel", '<img src="https://p.example.net/1.gif" width="1" height="1">')
sent("4.none_else", "sent_picture", "had a picture", '<img src="https://billing.example.com/logo.png">')
sent(
    "1.self_hosted",
    "sent_background",
    "loaded a background",
    '<table><tr><td background="https://b.example.net/x.png">x</td></tr></table>',
)
sent(
    "1.self_hosted", "sent_foreign_link", "linked to a tracker", '<a href="https://click.example.net/?id=1">Receipt</a>'
)
sent(
    "1.self_hosted",
    "sent_campaign",
    "named its campaign in a link",
    '<a href="https://billing.example.com/account?utm_source=receipt">x</a>',
)
sent(
    "1.self_hosted",
    "sent_customer_id",
    "named the customer in a link",
    '<a href="https://billing.example.com/account?customer_id=7">x</a>',
)
sent(
    "1.self_hosted",
    "sent_marked_text",
    "named its campaign in the text",
    "<p>x</p>",
    "https://billing.example.com/?utm_campaign=1",
)
