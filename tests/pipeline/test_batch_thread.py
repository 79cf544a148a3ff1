"""A batch thread processes queued items in order, in batches, and processes all of them before it ends."""

from pipeline.batch_thread import BatchThread


class Counting(BatchThread[int]):
    """Keeps the batches it was given."""

    def __init__(self, *, most: int, room: int | None = None) -> None:
        super().__init__("counting", most=most, room=room)
        self.batches: list[list[int]] = []

    def submit(self, item: int) -> bool:
        return self._submit(item)

    def _process(self, batch: list[int]) -> None:
        self.batches.append(batch)


def test_batches_have_limited_size() -> None:
    counting = Counting(most=3)
    for number in range(7):
        assert counting.submit(number)
    counting.start()
    counting.stop()
    assert counting.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_thread_without_items_processes_nothing() -> None:
    counting = Counting(most=3)
    counting.start()
    counting.stop()
    assert counting.batches == []


def test_full_queue_refuses_items() -> None:
    counting = Counting(most=1, room=2)
    assert [counting.submit(number) for number in range(4)] == [True, True, False, False]
    counting.start()
    counting.stop()
    assert counting.batches == [[0], [1]]
