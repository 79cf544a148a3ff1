"""The parts of the pipeline, for commands that do its work. A module of its own, as it imports all of the pipeline."""

from pipeline.app.container import Container
from pipeline.cli.context import Call


def container_of(call: Call) -> Container:
    """The parts of the pipeline with the operator's settings. Their database is closed when the command has ended."""
    parts = Container(call.settings, call.handlers(), call.clock)

    def close() -> None:
        if "database" in vars(parts):
            parts.database.close()

    call.on_close(close)
    return parts
