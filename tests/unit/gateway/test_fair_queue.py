"""Who is next, and who goes when the line is full."""

from __future__ import annotations

from gateway.fair_queue import BATCH_SHARE, FairQueue


def drain(queue: FairQueue[str]) -> list[str]:
    taken = []
    while (item := queue.next()) is not None:
        taken.append(item)
    return taken


def test_keys_take_turns_and_each_keeps_its_order() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.add(item[0], "interactive", item)
    assert drain(queue) == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert len(queue) == 0


def test_batch_waits_but_never_starves() -> None:
    queue: FairQueue[str] = FairQueue(100)
    for n in range(20):
        queue.add("a", "interactive", f"i{n}")
    for n in range(3):
        queue.add("b", "batch", f"b{n}")
    order = drain(queue)
    assert order[:BATCH_SHARE] == [*(f"i{n}" for n in range(BATCH_SHARE - 1)), "b0"]
    assert order[2 * BATCH_SHARE - 1] == "b1"


def test_batch_alone_is_served_at_once() -> None:
    queue: FairQueue[str] = FairQueue(4)
    queue.add("b", "batch", "b0")
    assert queue.next() == "b0" and queue.next() is None


def test_removed_items_are_gone() -> None:
    queue: FairQueue[str] = FairQueue(4)
    queue.add("a", "interactive", "a1")
    queue.add("a", "interactive", "a2")
    assert queue.remove("a", "interactive", "a1")
    assert not queue.remove("a", "interactive", "a1")
    assert not queue.remove("nobody", "batch", "x")
    assert len(queue) == 1 and drain(queue) == ["a2"]


def test_in_a_full_line_the_greediest_gives_way() -> None:
    queue: FairQueue[str] = FairQueue(3)
    for n in range(3):
        queue.add("greedy", "interactive", f"g{n}")
    assert queue.full
    assert queue.make_room("modest", "interactive") == "g2"
    assert queue.make_room("greedy", "interactive") is None


def test_nobody_goes_when_all_are_modest() -> None:
    queue: FairQueue[str] = FairQueue(2)
    queue.add("a", "interactive", "a1")
    queue.add("b", "interactive", "b1")
    assert queue.make_room("c", "interactive") is None and len(queue) == 2


def test_batch_gives_way_to_interactive_and_not_the_other_way() -> None:
    queue: FairQueue[str] = FairQueue(2)
    queue.add("a", "batch", "a1")
    queue.add("b", "interactive", "b1")
    assert queue.make_room("c", "batch") is None
    assert queue.make_room("c", "interactive") == "a1"
