"""Load templates from a folder. HTML templates get their style sheet inlined, because many mail programs drop `<style>`."""

import re
from collections.abc import Callable
from pathlib import Path

from css_inline import CSSInliner, InlineError
from jinja2 import BaseLoader, Environment, TemplateError, TemplateNotFound

_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_PLACEHOLDER = re.compile(r"<!--held(\d+)-->|held(\d+)held")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class TemplateLoader(BaseLoader):
    """Reads templates from one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inliner = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Return source, file name and "is it up to date", as Jinja2 asks for them. Raises TemplateError."""
        path = self._folder / template
        try:
            source = path.read_text("utf-8")
        except OSError as error:
            raise TemplateNotFound(template) from error
        return self._inlined(source) if path.suffix == ".html" else source, str(path), lambda: True

    def _inlined(self, source: str) -> str:
        tags = _Tags()
        held = tags.hide(source)
        try:
            if "<html" in source:
                done = self._inliner.inline(held)
            else:
                done = self._inliner.inline_fragment(held, tags.hide(self._base_style()))
        except InlineError as error:
            raise TemplateError(f"the style sheet cannot be inlined: {error}") from error
        if [tag for tag in _TAG.findall(source) if tag[1] == "%"] != tags.statements_in(done):
            raise TemplateError("a {% tag %} stands where HTML allows no comment, as in an attribute or a <title>")
        return tags.restore(done)

    def _base_style(self) -> str:
        try:
            return "".join(_STYLE.findall((self._folder / "_base" / "body.html").read_text("utf-8")))
        except OSError:
            return ""


class _Tags:
    """Hides the tags of one template from the HTML parser of the inliner, and puts them back.

    The parser moves a bare `{% for %}` out of a table, but leaves a comment and a plain word where they are.
    """

    def __init__(self) -> None:
        self._tags: list[str] = []

    def hide(self, source: str) -> str:
        return _TAG.sub(self._placeholder, source)

    def restore(self, html: str) -> str:
        return _PLACEHOLDER.sub(lambda found: self._tags[int(found[1] or found[2])], html)

    def statements_in(self, html: str) -> list[str]:
        """Return the `{% … %}` tags whose placeholders are still comments in this HTML, in order."""
        return [self._tags[int(found[1])] for found in _PLACEHOLDER.finditer(html) if found[1]]

    def _placeholder(self, tag: re.Match[str]) -> str:
        if tag[0].startswith("{#"):
            return ""
        self._tags.append(tag[0])
        number = len(self._tags) - 1
        return f"<!--held{number}-->" if tag[0].startswith("{%") else f"held{number}held"
