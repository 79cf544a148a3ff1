"""Jinja2 loader for mail templates. It inlines the style sheet of HTML templates: many mail programs ignore `<style>`."""

import re
from collections.abc import Callable
from pathlib import Path

from css_inline import CSSInliner, InlineError
from jinja2 import BaseLoader, Environment, TemplateError, TemplateNotFound

_TAG = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}", re.DOTALL)
_PLACEHOLDER = re.compile(r"<!--hidden(\d+)-->|hidden(\d+)hidden")
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


class TemplateLoader(BaseLoader):
    """Loads templates from one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inliner = CSSInliner(keep_at_rules=True, load_remote_stylesheets=False)

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, Callable[[], bool]]:
        """Return source, file name and the "is it up to date" function, as Jinja2 requires. Raises TemplateError."""
        path = self._folder / template
        try:
            source = path.read_text("utf-8")
        except OSError as error:
            raise TemplateNotFound(template) from error
        return self._inlined(source) if path.suffix == ".html" else source, str(path), lambda: True

    def _inlined(self, source: str) -> str:
        tags = _Tags()
        hidden = tags.hide(source)
        try:
            if "<html" in source:
                inlined = self._inliner.inline(hidden)
            else:
                inlined = self._inliner.inline_fragment(hidden, tags.hide(self._base_style()))
        except InlineError as error:
            raise TemplateError(f"the style sheet cannot be inlined: {error}") from error
        if [tag for tag in _TAG.findall(source) if tag[1] == "%"] != tags.statements_in(inlined):
            raise TemplateError("a {% tag %} is where HTML allows no comment, for example in an attribute or a <title>")
        return tags.restore(inlined)

    def _base_style(self) -> str:
        try:
            return "".join(_STYLE.findall((self._folder / "_base" / "body.html").read_text("utf-8")))
        except OSError:
            return ""


class _Tags:
    """Replaces the Jinja2 tags of one template by placeholders before inlining, and restores them afterwards.

    The inliner's HTML parser would move a bare `{% for %}` out of a table. It does not move comments and plain words.
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
        return f"<!--hidden{number}-->" if tag[0].startswith("{%") else f"hidden{number}hidden"
