"""The table as bars: how many times better than the peer, on a logarithmic scale, with the target as a mark."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Row = Mapping[str, Any]  # one of the rows in benchmarks/results.json

WIDTH, LEFT, RIGHT = 980, 470, 90
LINE, TOP, BOTTOM = 26, 64, 40
LEAST, MOST = 0.5, 32.0
FONT = "Segoe UI, Roboto, Helvetica, Arial, sans-serif"
INK, FAINT, MET, MISSED = "#24303c", "#d5dce3", "#1d7a4e", "#b3541e"


def draw(rows: Sequence[Row]) -> str:
    """The SVG. It needs no font and no script, and says in words what it shows."""
    height = TOP + LINE * len(rows) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="{FONT}">',
        "<title>How many times better than the peer</title>",
        f"<desc>{escape(_words(rows))}</desc>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fcfcfd"/>',
        _text(16, 26, "How many times better than the peer, measured in the same run", size=16, weight=600),
        _text(16, 46, "bar: median ratio, logarithmic scale; mark: the target", fill="#55626f"),
        *_grid(height),
        *(part for place, row in enumerate(rows) for part in _bar(row, TOP + LINE * place)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(height: int) -> list[str]:
    parts = []
    for ratio in (0.5, 1, 2, 4, 8, 16, 32):
        x = _x(ratio)
        width = 1.5 if ratio == 1 else 0.75
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - BOTTOM + 4}" stroke="{FAINT}" '
            f'stroke-width="{width}"/>'
        )
        parts.append(_text(x, height - BOTTOM + 20, f"{ratio:g}x", fill="#55626f", anchor="middle"))
    return parts


def _bar(row: Row, y: int) -> list[str]:
    start, end, mark = _x(1), _x(row["ratio"]), _x(row["target"])
    x, width = min(start, end), max(abs(end - start), 1.5)
    colour = MET if row["met"] else MISSED
    return [
        _text(LEFT - 12, y + 15, row["name"].replace("`", ""), anchor="end", size=12),
        f'<rect x="{x:.1f}" y="{y + 4}" width="{width:.1f}" height="15" fill="{colour}"/>',
        f'<line x1="{mark:.1f}" y1="{y + 1}" x2="{mark:.1f}" y2="{y + 22}" stroke="{INK}" stroke-width="2"/>',
        _text(max(start, end, mark) + 8, y + 16, f"{row['ratio']:.3g}x", weight=600),
    ]


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 13, weight: int = 400, fill: str = INK
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
        f'fill="{fill}">{escape(text)}</text>'
    )


def _x(ratio: float) -> float:
    within = min(max(ratio, LEAST), MOST)
    share = math.log(within / LEAST) / math.log(MOST / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _words(rows: Sequence[Row]) -> str:
    return "; ".join(
        f"{row['name']}: {row['ratio']:.2g} times {row['peer_name']}, target {row['target']:.2g}" for row in rows
    )
