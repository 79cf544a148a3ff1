"""One row of the table: ours beside the peer's, both measured in the same run, and what their ratio has to reach."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """What several rounds came to."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figure":
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return figure(self.median, self.low, self.high)


@dataclass(frozen=True, slots=True)
class Limit:
    """Something beside the ratio that must not be passed, such as a p99 in milliseconds."""

    name: str
    ours: Figure
    peer: Figure
    most: float

    @property
    def met(self) -> bool:
        return self.ours.median <= self.most

    def as_json(self) -> dict[str, Any]:
        ours, peer = self.ours, self.peer
        return {
            "name": self.name,
            "ours": ours.median,
            "peer": peer.median,
            "most": self.most,
            "met": self.met,
            "ours_range": [ours.low, ours.high],
            "peer_range": [peer.low, peer.high],
        }


@dataclass(frozen=True, slots=True)
class Row:
    """`target` is what the ratio has to reach, `stretch` what it would like to. Higher is better for every ratio."""

    name: str
    peer_name: str  # what the peer is
    unit: str
    ours: Figure
    peer: Figure
    target: float
    stretch: float | None = None
    smaller_is_better: bool = False
    limit: Limit | None = field(default=None)

    @property
    def ratio(self) -> float:
        one, other = self.ours.median, self.peer.median
        return other / one if self.smaller_is_better else one / other

    @property
    def met(self) -> bool:
        return self.ratio >= self.target and (self.limit is None or self.limit.met)

    def as_json(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "name": self.name,
            "ours": self.ours.median,
            "peer": self.peer.median,
            "ratio": self.ratio,
            "target": self.target,
            "met": self.met,
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio_met": self.ratio >= self.target,
            "ours_range": [self.ours.low, self.ours.high],
            "peer_range": [self.peer.low, self.peer.high],
        }
        if self.limit:
            row["limit"] = self.limit.as_json()
        return {name: _rounded(value) for name, value in row.items()}


def figure(median: float, low: float, high: float) -> str:
    """`1,234 [1,100-1,300]`: the median, and the lowest and highest round."""
    return f"{number(median)} [{number(low)}-{number(high)}]"


def number(value: float) -> str:
    """In three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rounded(value: Any) -> Any:
    """Four digits say more than enough."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {name: _rounded(item) for name, item in value.items()} if isinstance(value, dict) else value
