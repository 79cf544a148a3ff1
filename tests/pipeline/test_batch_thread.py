"""What is left to a thread is done in order, many at once, and none of it is forgotten at the end."""

from pipeline.batch_thread import BatchThread


class Counting(BatchThread[int]):
    """Keeps the batches it was given."""

    def __init__(self, *, most: int, room: int | None = None) -> None:
        super().__init__("counting", most=most, room=room)
        self.batches: list[list[int]] = []

    def leave(self, item: int) -> bool:
        return self._submit(item)

    def _do(self, batch: list[int]) -> None:
        self.batches.append(batch)


def test_all_that_waits_is_done_at_once_and_no_more_than_is_allowed() -> None:
    counting = Counting(most=3)
    for number in range(7):
        assert counting.leave(number)
    counting.start()
    counting.stop()
    assert counting.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_it_ends_with_nothing_done_if_nothing_was_left_to_it() -> None:
    counting = Counting(most=3)
    counting.start()
    counting.stop()
    assert counting.batches == []


def test_it_says_so_where_no_more_may_wait_and_does_the_others() -> None:
    counting = Counting(most=1, room=2)
    assert [counting.leave(number) for number in range(4)] == [True, True, False, False]
    counting.start()
    counting.stop()
    assert counting.batches == [[0], [1]]
