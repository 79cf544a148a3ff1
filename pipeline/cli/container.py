"""The parts of the pipeline, for commands that do its work. A module of its own, as it imports all of the pipeline."""

from pipeline.app.container import Container
from pipeline.cli.context import CommandContext


def container_of(context: CommandContext) -> Container:
    """The parts of the pipeline with the operator's settings. Their database is closed when the command has ended."""
    parts = Container(context.settings, context.handlers(), context.clock)

    def close() -> None:
        if "database" in vars(parts):
            parts.database.close()

    context.on_close(close)
    return parts
