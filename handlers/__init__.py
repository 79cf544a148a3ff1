"""One file per PayPal event type, named after it. `HANDLERS` is found by looking: event type -> its function.

A file says which type it handles (`EVENT`) and how (`handle`); nothing else has to be told. A file whose name and
EVENT disagree, or two files for one type, stop the program at its start.
"""

import importlib
import pkgutil

from pipeline.billing.unit_of_work import Handler


def _find() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for module in pkgutil.iter_modules(__path__):
        file = importlib.import_module(f"{__name__}.{module.name}")
        if file.EVENT.lower().replace(".", "_").replace("-", "_") != module.name:
            raise ImportError(f"handlers/{module.name}.py says it handles {file.EVENT}: name it after its event")
        if file.EVENT in found:
            raise ImportError(f"two files handle {file.EVENT}")
        found[file.EVENT] = file.handle
    return found


HANDLERS = _find()
