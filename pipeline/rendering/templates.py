"""Mail texts: a folder of Jinja2 templates and a mail's facts become subject, text and HTML. The only user of Jinja2
for mails.

A mail is a folder: `subject.txt`, `body.txt`, `body.html`, and `example.json` with facts that render it. `_base/` holds
what all mails share. To change a text, edit the file; to add a mail, add a folder. Style sheets are written once, in
`_base/body.html`, and inlined when a template is loaded, because many mail programs drop `<style>`.
"""

import json
import operator
import re
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_time
from babel.units import UnknownUnitError, format_unit
from css_inline import CSSInliner, InlineError
from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateError, TemplateNotFound, Undefined, nodes
from jinja2 import UndefinedError as MissingFact
from jinja2.visitor import NodeTransformer

from pipeline.clock import read_time
from pipeline.errors import OperatorError
from pipeline.money import Money, show
from pipeline.rendering.message import Rendered, clean_name, strip_controls

__all__ = ["Language", "RenderError", "Rendered", "Templates", "Vendor", "default_folder"]

LONGEST_SUBJECT = 150  # characters; mail programs show about 60, and every header line must stay below 998 octets
WRITTEN_OUTSIDE = ("customer_name", "plan", "reason")  # free text from PayPal or the customer: may lead nowhere
PARTS = ("subject.txt", "body.txt", "body.html")
READABLE = 4.5  # the least contrast of text, WCAG 2.2 success criterion 1.4.3
PAPER, INK = "#fcfcfd", "#24303c"  # near white and near black: clients that invert colours spoil pure ones

_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_HELD = re.compile(r"<!--held(\d+)-->|held(\d+)held")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class RenderError(OperatorError):
    """A mail cannot be written: its kind is unknown, a fact is missing, or a template is wrong. Names no person."""


class _BadFact(Exception):
    """A filter was given what it cannot write; the message names the filter, never the value."""


@dataclass(frozen=True, slots=True)
class Vendor:
    """Who the mails come from, as templates see it: the global `vendor`. `colour` is `#rrggbb`."""

    name: str
    url: str
    address: str
    colour: str
    product: str
    support_email: str

    @property
    def accent(self) -> str:
        """The vendor's colour if it can be read on our paper, else ink."""
        return self.colour if _contrast(self.colour, PAPER) >= READABLE else INK

    @property
    def on_colour(self) -> str:
        """Paper or ink, whichever can be read better on the vendor's colour."""
        return max((PAPER, INK), key=lambda text: _contrast(text, self.colour))


@dataclass(frozen=True, slots=True)
class Language:
    """How a mail declares its language, the template global `language`: `tag` (BCP 47), `dir`, and the `start` side."""

    tag: str
    dir: str
    start: str


class Templates:
    """All mails of one folder, in one locale. Templates are read and compiled at their first use and then kept."""

    def __init__(self, folder: Path, vendor: Vendor, locale: str) -> None:
        """`locale` as `en_US`: how dates and money are written, and the language the mail declares."""
        self._folder = folder
        self._parsed = _parse_locale(locale)
        self._loader = _Loader(folder)
        clean = Vendor(**{field.name: strip_controls(getattr(vendor, field.name)) for field in fields(Vendor)})
        self._plain = self._environment(clean, autoescape=False)
        self._html = self._environment(clean, autoescape=True)
        self._compiled: dict[str, tuple[Template, Template, Template]] = {}

    @property
    def kinds(self) -> tuple[str, ...]:
        """The mails there are: every folder that holds a subject, in alphabetical order."""
        return tuple(sorted(path.parent.name for path in self._folder.glob("[!_]*/subject.txt")))

    def render(self, kind: str, facts: Mapping[str, Any]) -> Rendered:
        """Write one mail. Every name a template uses must be in `facts` (its value may be None), else RenderError."""
        known = _clean_facts(facts)
        try:
            subject, text, html = self._mail(kind)
            return Rendered(_one_line(subject.render(known)), _tidy(text.render(known)), html.render(known))
        except MissingFact as error:
            raise RenderError(f"mail {kind}: a fact is missing: {error.message}") from None
        except _BadFact as error:
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

    def _environment(self, vendor: Vendor, *, autoescape: bool) -> Environment:
        environment = Environment(
            loader=self._loader,
            autoescape=autoescape,  # noqa: S701 - off for subjects and texts only, no HTML # nosec B701
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        environment.globals |= {"vendor": vendor, "language": _language(self._parsed)}
        environment.filters |= _filters(str(self._parsed))
        return environment


def default_folder() -> Path:
    """The mails we ship: beside the package in a checkout, inside it or beside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    inside, beside = package / "email_templates", package.parent / "email_templates"
    return inside if inside.is_dir() else beside


# Filters. None gives "", so that a row of a table may be left out by the template; what is undefined still raises.


def _filters(locale: str) -> dict[str, Callable[[Any], str]]:
    def money(value: Any) -> str:
        if not _given(value):
            return ""
        try:
            return _price(value["amount"], value["currency"], locale)
        except (KeyError, TypeError, ValueError):
            raise _BadFact('`money` needs {"amount": minor units, "currency": ISO 4217}') from None

    def date(value: Any) -> str:
        return _day(value, locale) if _given(value) else ""

    def datetime(value: Any) -> str:
        return _moment(value, locale) if _given(value) else ""

    def words(value: Any) -> str:
        return str(value).replace("_", " ").lower() if _given(value) else ""

    def period(value: Any) -> str:
        if not _given(value):
            return ""
        try:
            return format_unit(value["count"], f"duration-{value['unit'].lower()}", "long", locale=locale)
        except (KeyError, TypeError, AttributeError, UnknownUnitError):
            raise _BadFact('`period` needs {"unit": DAY, WEEK, MONTH or YEAR, "count": how many}') from None

    return {"money": money, "date": date, "datetime": datetime, "words": words, "period": period}


def _given(value: Any) -> bool:
    if isinstance(value, Undefined):
        str(value)  # raises, naming the fact
    return value is not None


@lru_cache(maxsize=1024)
def _price(amount: int, currency: str, locale: str) -> str:
    return show(Money(operator.index(amount), currency), locale)  # a price that is no whole number raises TypeError


def _day(text: str, locale: str) -> str:
    moment = read_time(text)
    if moment is None:
        raise _BadFact("`date` needs a time as 2026-03-01T10:00:00Z")
    return _written_day(moment.date(), locale)


@lru_cache(maxsize=1024)
def _written_day(day: date, locale: str) -> str:
    return format_date(day, "long", locale)


@lru_cache(maxsize=1024)
def _moment(text: str, locale: str) -> str:
    moment = read_time(text)
    if moment is None:
        raise _BadFact("`datetime` needs a time as 2026-03-01T10:00:00Z")
    return f"{_day(text, locale)}, {format_time(moment, 'short', locale=locale)} UTC"


# Facts and finished texts


def _clean_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: _without_controls(value) for name, value in facts.items()}
    for name in WRITTEN_OUTSIDE:
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


def _contrast(one: str, other: str) -> float:
    """WCAG 2.2 contrast ratio of two `#rrggbb` colours, from 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


# Loading


class _Loader(BaseLoader):
    """Reads templates from the folder; HTML comes with its styles inlined, the vendor's name and colours written in."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inliner = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)
        self._held: list[str] = []

    def load(
        self,
        environment: Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002 - Jinja2's name for it
    ) -> Template:
        """What Jinja2 calls once for each template. Raises TemplateError."""
        path = self._folder / name
        try:
            source = path.read_text("utf-8")
        except OSError as error:
            raise TemplateNotFound(name) from error
        source = self._inlined(source) if path.suffix == ".html" else source
        tree = _Constants(environment).visit(environment.parse(source, name, str(path)))
        code = environment.compile(tree, name, str(path))
        # As one dict: Jinja2's own is a chain of them, which every rendering would walk through again.
        return environment.template_class.from_code(environment, code, {**environment.globals, **(globals or {})})

    def _inlined(self, source: str) -> str:
        held = _TAG.sub(self._hold, source)
        try:
            if "<html" in source:
                done = self._inliner.inline(held)
            else:
                done = self._inliner.inline_fragment(held, _TAG.sub(self._hold, self._base_style()))
        except InlineError as error:
            raise TemplateError(f"the style sheet cannot be inlined: {error}") from error
        if [tag for tag in _TAG.findall(source) if tag[1] == "%"] != self._tags_in(done):
            raise TemplateError("a {% tag %} stands where HTML allows no comment, as in an attribute or a <title>")
        return _HELD.sub(self._give_back, done)

    def _base_style(self) -> str:
        try:
            return "".join(_STYLE.findall((self._folder / "_base" / "body.html").read_text("utf-8")))
        except OSError:
            return ""

    def _hold(self, tag: re.Match[str]) -> str:
        """A parser of HTML moves a bare `{% for %}` out of a table, but leaves a comment and a plain word alone."""
        if tag[0].startswith("{#"):
            return ""
        self._held.append(tag[0])
        number = len(self._held) - 1
        return f"<!--held{number}-->" if tag[0].startswith("{%") else f"held{number}held"

    def _give_back(self, found: re.Match[str]) -> str:
        return self._held[int(found[1] or found[2])]

    def _tags_in(self, html: str) -> list[str]:
        return [self._held[int(found[1])] for found in _HELD.finditer(html) if found[1]]


class _Constants(NodeTransformer):
    """Writes `vendor.…` and `language.…` into a template while it is compiled: they are the same in every mail."""

    def __init__(self, environment: Environment) -> None:
        self._globals = environment.globals

    def visit_Getattr(self, node: nodes.Getattr) -> nodes.Node:  # noqa: N802 - Jinja2 calls it by the class's name
        owner = node.node.name if isinstance(node.node, nodes.Name) else ""
        value = getattr(self._globals[owner], node.attr, None) if owner in ("vendor", "language") else None
        return nodes.Const(value, lineno=node.lineno) if isinstance(value, str) else node
