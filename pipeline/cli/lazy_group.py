"""Commands that are imported only when they are called, so that `--help` does not wait for SQLAlchemy and the like."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command is, and its help in one sentence.

    `target` is `module:name`, where the name is that of a function or of a group. The help of a function goes on with its
    docstring.
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
    """A group of commands. Without a command it shows its help, whose paragraphs are folded to the terminal's width."""
    return typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown", **options)


def lazy_group(commands: Mapping[str, LazyCommand]) -> type[TyperGroup]:
    """The class of a group with these commands, by name, in addition to those that are registered with it."""

    class LazyGroup(TyperGroup):
        """Lists each command by its help, and imports it when it is called."""

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
    assert isinstance(command, TyperCommand)  # noqa: S101 - one function makes one command
    return command
