"""The result of one check of `smt-billing doctor`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `advice` says what to do; it is "" if no action is needed."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""
