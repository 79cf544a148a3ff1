"""The result of one check."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found about one thing. `advice` says what to do; it is empty if nothing is to be done."""

    name: str
    state: Literal["ok", "warn", "fail"]
    text: str
    advice: str = ""
