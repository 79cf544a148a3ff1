"""Render mails: a folder of Jinja2 templates and a mail's facts become subject, text and HTML.

A mail is a folder: `subject.txt`, `body.txt`, `body.html`, and `example.json` with facts that render it. `_base/` holds
what all mails share. To change a text, edit the file; to add a mail, add a folder.
"""

import json
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from jinja2 import Environment, StrictUndefined, Template, TemplateError
from jinja2 import UndefinedError as MissingFact

from pipeline.email_address import clean_name, strip_controls
from pipeline.errors import OperatorError
from pipeline.rendering.branding import Branding
from pipeline.rendering.message import RenderedMail
from pipeline.rendering.template_filters import FilterError, make_filters
from pipeline.rendering.template_loader import TemplateLoader

LONGEST_SUBJECT = 150  # characters; mail programs show about 60, and every header line must stay below 998 octets
UNTRUSTED_FACTS = ("customer_name", "plan", "reason")  # free text from PayPal or the customer: may lead nowhere
PARTS = ("subject.txt", "body.txt", "body.html")


class RenderError(OperatorError):
    """A mail cannot be written: its kind is unknown, a fact is missing, or a template is wrong. Names no person."""


@dataclass(frozen=True, slots=True)
class Language:
    """How a mail declares its language, the template global `language`: `tag` (BCP 47), `dir`, and the `start` side."""

    tag: str
    dir: str
    start: str


class Templates:
    """All mails of one folder, in one locale. Templates are read and compiled at their first use and then kept."""

    def __init__(self, folder: Path, vendor: Branding, locale: str) -> None:
        """`locale` as `en_US`: how dates and money are written, and the language the mail declares."""
        self._folder = folder
        self._parsed = _parse_locale(locale)
        self._loader = TemplateLoader(folder)
        clean = Branding(**{field.name: strip_controls(getattr(vendor, field.name)) for field in fields(Branding)})
        self._plain = self._environment(clean, autoescape=False)
        self._html = self._environment(clean, autoescape=True)
        self._compiled: dict[str, tuple[Template, Template, Template]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The mails there are: every folder that holds a subject, in alphabetical order."""
        return tuple(sorted(path.parent.name for path in self._folder.glob("[!_]*/subject.txt")))

    def render(self, kind: str, facts: Mapping[str, Any]) -> RenderedMail:
        """Write one mail. Every name a template uses must be in `facts` (its value may be None), else RenderError."""
        known = _clean_facts(facts)
        try:
            subject, text, html = self._mail(kind)
            return RenderedMail(_one_line(subject.render(known)), _tidy(text.render(known)), html.render(known))
        except MissingFact as error:
            raise RenderError(f"mail {kind}: a fact is missing: {error.message}") from None
        except FilterError as error:
            raise RenderError(f"mail {kind}: {error}") from None
        except TemplateError as error:
            raise RenderError(f"mail {kind}: its template is wrong: {type(error).__name__}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The library's message may quote a fact, and facts may be personal: only its type is told.
            raise RenderError(f"mail {kind}: a fact is not of the kind its template expects ({_name(error)})") from None

    def example(self, kind: str) -> dict[str, Any]:
        """The facts of `example.json`, for previews and tests."""
        try:
            facts: dict[str, Any] = json.loads((self._folder / kind / "example.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RenderError(f"mail {kind}: its example.json cannot be read: {_name(error)}") from error
        return facts

    def _mail(self, kind: str) -> tuple[Template, Template, Template]:
        if kind not in self._compiled:
            if kind not in self.kinds:
                raise RenderError(f"there is no mail {kind!r}; there are: {', '.join(self.kinds) or 'none'}")
            subject, text, html = (f"{kind}/{part}" for part in PARTS)
            plain = self._plain.get_template
            self._compiled[kind] = plain(subject), plain(text), self._html.get_template(html)
        return self._compiled[kind]

    def _environment(self, vendor: Branding, *, autoescape: bool) -> Environment:
        environment = _Environment(
            loader=self._loader,
            autoescape=autoescape,  # noqa: S701 - off for subjects and texts only, no HTML # nosec B701
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals |= {"vendor": vendor, "language": _language(self._parsed)}
        environment.filters |= make_filters(str(self._parsed))
        return environment


class _Environment(Environment):
    """Jinja2's environment with one dict of globals for each template.

    Jinja2's own is a chain of dicts, which each rendering copies again: that takes an eighth of the time of a receipt.
    """

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        return {**self.globals, **(d or {})}


def default_folder() -> Path:
    """The mails we ship: beside the package in a checkout, inside it or beside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "email_templates", package.parent / "email_templates"
    return inside if inside.is_dir() else beside


def _clean_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: _without_controls(value) for name, value in facts.items()}
    for name in UNTRUSTED_FACTS:
        if isinstance(known.get(name), str):
            known[name] = clean_name(known[name])
    return known


def _without_controls(value: Any) -> Any:
    if isinstance(value, str):
        return strip_controls(value)
    if isinstance(value, dict):
        return {key: _without_controls(item) for key, item in value.items()}
    return [_without_controls(item) for item in value] if isinstance(value, list) else value


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SUBJECT else line[: LONGEST_SUBJECT - 1].rstrip() + "…"


def _tidy(text: str) -> str:
    """No more than one empty line in a row, whatever a template left out."""
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n") + "\n"


def _name(error: Exception) -> str:
    return type(error).__name__


def _parse_locale(locale: str) -> Locale:
    try:
        return Locale.parse(locale.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        raise RenderError(f"there is no locale {locale!r}; write it as en_US (SMT_LOCALE)") from None


def _language(locale: Locale) -> Language:
    rightward = locale.text_direction == "ltr"  # Outlook does not know `text-align: start`
    return Language(str(locale).replace("_", "-"), locale.text_direction, "left" if rightward else "right")
