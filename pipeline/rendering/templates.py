"""Render mails: Jinja2 templates and a mail's facts become subject, text and HTML.

Each kind of mail is a folder with `subject.txt`, `body.txt`, `body.html`, and `example.json` with example facts.
`_base/` contains the layout of all mails. To change a text, edit the file; to add a mail, add a folder.
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
from pipeline.error_texts import describe
from pipeline.errors import OperatorError, place_of
from pipeline.rendering.branding import Branding
from pipeline.rendering.message import RenderedMail
from pipeline.rendering.template_filters import FilterError, make_filters
from pipeline.rendering.template_loader import TemplateLoader

LONGEST_SUBJECT = 150  # characters; mail programs show about 60, and every header line must stay below 998 octets
UNTRUSTED_FACTS = ("customer_name", "plan", "reason")  # free text from PayPal or the customer: links are removed
PARTS = ("subject.txt", "body.txt", "body.html")


class RenderError(OperatorError):
    """A mail cannot be rendered: unknown kind, missing fact or faulty template. Contains no personal data."""


@dataclass(frozen=True, slots=True)
class Language:
    """The language of a mail, the template global `language`: `tag` (BCP 47), text direction, and the `start` side."""

    tag: str
    dir: str
    start: str


class Templates:
    """All mails of one folder, in one locale. A template is compiled at its first use and cached."""

    def __init__(self, folder: Path, vendor: Branding, locale: str) -> None:
        """Prepare the environment. `locale`, for example `en_US`, sets date and money formats and the mail's language."""
        self._folder = folder
        self._parsed = _parse_locale(locale)
        self._loader = TemplateLoader(folder)
        clean = Branding(**{field.name: strip_controls(getattr(vendor, field.name)) for field in fields(Branding)})
        self._plain = self._environment(clean, autoescape=False)
        self._html = self._environment(clean, autoescape=True)
        self._compiled: dict[str, tuple[Template, Template, Template]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """All kinds of mail: the folders that contain a subject, in alphabetical order."""
        return tuple(sorted(path.parent.name for path in self._folder.glob("[!_]*/subject.txt")))

    def render(self, kind: str, facts: Mapping[str, Any]) -> RenderedMail:
        """Render one mail. `facts` must contain every name that the template uses; a value may be None.

        Raises RenderError.
        """
        known = _clean_facts(facts)
        try:
            subject, text, html = self._mail(kind)
            return RenderedMail(_one_line(subject.render(known)), _tidy(text.render(known)), html.render(known))
        except MissingFact as error:
            raise RenderError(f"mail {kind}: a fact is missing: {error.message}") from None
        except FilterError as error:
            raise RenderError(f"mail {kind}: {error}") from None
        except TemplateError as error:
            raise RenderError(f"mail {kind}: the template is faulty: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The library's message may quote a fact, which may be personal data.
            raise RenderError(
                f"mail {kind}: a fact does not have the type that the template expects, at {place_of(error)}"
            ) from None

    def example(self, kind: str) -> dict[str, Any]:
        """Return the facts of `example.json`, for previews and tests. Raises RenderError."""
        try:
            facts: dict[str, Any] = json.loads((self._folder / kind / "example.json").read_text("utf-8"))
        except OSError as error:
            raise RenderError(f"mail {kind}: its example.json cannot be read: {describe(error)}") from error
        except ValueError as error:
            raise RenderError(f"mail {kind}: its example.json is not JSON: {error}") from error
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
            autoescape=autoescape,  # noqa: S701 - off only for subjects and plain text # nosec B701
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals |= {"vendor": vendor, "language": _language(self._parsed)}
        environment.filters |= make_filters(str(self._parsed))
        return environment


class _Environment(Environment):
    """Jinja2 environment with one dict of globals per template.

    Jinja2 uses a chain of dicts and copies it for each rendering, which takes an eighth of the time of a receipt.
    """

    def make_globals(self, d: MutableMapping[str, Any] | None) -> MutableMapping[str, Any]:
        return {**self.globals, **(d or {})}


def default_folder() -> Path:
    """Return the folder of the shipped templates: inside the package, otherwise next to it, as in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside, next_to_it = package / "email_templates", package.parent / "email_templates"
    return inside if inside.is_dir() else next_to_it


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
    """Reduce consecutive empty lines, which omitted template parts leave, to one."""
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip("\n") + "\n"


def _parse_locale(locale: str) -> Locale:
    try:
        return Locale.parse(locale.replace("-", "_"))
    except (ValueError, UnknownLocaleError):
        raise RenderError(f"there is no locale {locale!r}; use the form en_US (SMT_LOCALE)") from None


def _language(locale: Locale) -> Language:
    is_ltr = locale.text_direction == "ltr"  # Outlook does not support `text-align: start`
    return Language(str(locale).replace("_", "-"), locale.text_direction, "left" if is_ltr else "right")
