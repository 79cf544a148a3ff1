"""Command groups that import a command only when it is called, so `--help` is fast."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where to import a command from, and the first sentence of its help.

    `target` is `module:name`; the name is a function or a group. A function's docstring continues its help.
    """

    target: str
    help: str

    def load(self, name: str | None) -> TyperCommand | TyperGroup:
        """Import the command."""
        module, _, attribute = self.target.partition(":")
        found = getattr(import_module(module), attribute)
        command = typer.main.get_group(found) if isinstance(found, typer.Typer) else _command(found)
        command.name, command.help = name, "\n\n".join(filter(None, (self.help, command.help)))
        return command


def group(**options: Any) -> typer.Typer:
    """Return a command group. Called without a command, it shows its help, wrapped to the terminal's width."""
    defaults: dict[str, Any] = {"no_args_is_help": True, "add_completion": False, "rich_markup_mode": "markdown"}
    return typer.Typer(**(defaults | options))


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """Return a group class with these commands, by name, in addition to commands that are registered with it."""

    class LazyGroup(TyperGroup):
        """Lists each command with its help, and imports it when it is called."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.commands.update({name: TyperCommand(name, help=each.help) for name, each in commands.items()})

        def resolve_command(self, ctx: Any, args: list[str]) -> Any:
            name, command, rest = super().resolve_command(ctx, args)
            lazy = commands.get(name) if name else None
            return name, lazy.load(name) if lazy else command, rest

    return LazyGroup


def _command(function: Callable[..., Any]) -> TyperCommand:
    app = group()
    app.command()(function)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)  # noqa: S101 - an app with one function is one command
    return command
