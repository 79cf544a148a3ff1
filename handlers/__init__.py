"""Event handlers, one file per PayPal event type. `HANDLERS` maps each event type to its function.

A file defines `EVENT`, the type it handles, and `handle`, the function. No other registration is needed: this package
imports every file in it. The program does not start if a file is not named after its EVENT, or if two files handle the
same type. Handlers use `pipeline.billing` and `pipeline.inbox.event` only.
"""

import importlib
import pkgutil

from pipeline.billing.unit_of_work import Handler


def _find_handlers() -> dict[str, Handler]:
    found: dict[str, Handler] = {}
    for module in pkgutil.iter_modules(__path__):
        file = importlib.import_module(f"{__name__}.{module.name}")
        if file.EVENT.lower().replace(".", "_").replace("-", "_") != module.name:
            raise ImportError(f"handlers/{module.name}.py handles {file.EVENT}. Rename the file after its event.")
        if file.EVENT in found:
            raise ImportError(f"Two files in handlers/ handle {file.EVENT}. Delete one.")
        found[file.EVENT] = file.handle
    return found


HANDLERS = _find_handlers()
