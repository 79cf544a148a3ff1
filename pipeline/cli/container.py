"""Creates the `Container` for a command. It is a separate module because it imports the whole pipeline."""

from pipeline.app.container import Container
from pipeline.cli.context import CommandContext


def container_of(context: CommandContext) -> Container:
    """Return a container with the operator's settings. Its database is closed when the command ends."""
    container = Container(context.settings, context.handlers(), context.clock)

    def close() -> None:
        if "database" in vars(container):
            container.database.close()

    context.on_close(close)
    return container
