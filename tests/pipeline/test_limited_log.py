"""Log lines that strangers can cause are limited and counted."""

from pipeline.limited_log import LimitedLog


def test_one_line_of_each_event_is_written_in_a_period() -> None:
    written, now = list[tuple[str, dict[str, object]]](), [0.0]
    warn = LimitedLog(lambda event, **fields: written.append((event, fields)), 1.0, elapsed=lambda: now[0])
    for _ in range(1000):
        warn("refused", reason="a")
    warn("deferred")
    now[0] = 1.0
    warn("refused", reason="b")
    now[0] = 2.0
    warn("refused", reason="c")
    assert written == [
        ("refused", {"reason": "a"}),
        ("deferred", {}),
        ("refused", {"reason": "b", "lines_left_out": 999}),
        ("refused", {"reason": "c"}),
    ]
