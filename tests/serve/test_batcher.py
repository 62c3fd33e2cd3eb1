"""The queue: full batches, longest-waiting first, nothing computed in vain, one failure alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import pytest

from bertsmith.serve.batcher import BatchConfig, Batcher, Item, Reply
from bertsmith.serve.refusal import Refusal


class Slow:
    """Computes when it is let, and remembers what it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.let = asyncio.Event()

    async def ask(self, items: Sequence[Item]) -> Reply:
        self.batches.append([str(item.payload) for item in items])
        await self.let.wait()
        bad = {"bad": ("failed", "it broke"), "wrong": ("invalid", "it is wrong")}
        return Reply([bad.get(str(item.payload), ("ok", item.payload)) for item in items], 0.01)  # type: ignore[misc]


def items(*names: str, tokens: int = 10) -> list[Item]:
    return [Item("answer", name, tokens) for name in names]


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_batches_fill_up_to_their_pieces_longest_waiting_first() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=30, in_flight=1))
        first = batcher.submit(items("a"))
        later = batcher.submit(items("b", "c")) + batcher.submit(items("long", tokens=100)) + batcher.submit(items("d"))
        await asyncio.sleep(0)
        worker.let.set()
        answers = await asyncio.gather(*first, *later)
        assert [answer.value for answer in answers] == ["a", "b", "c", "long", "d"]
        assert worker.batches == [["a"], ["b", "c"], ["long"], ["d"]]
        assert not batcher.busy
        assert batcher.waiting == 0

    run(test())


def test_a_second_batch_is_ready_while_the_first_is_computed() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=10, in_flight=2))
        futures = batcher.submit(items("a", "b", "c"))
        await asyncio.sleep(0)
        assert worker.batches == [["a"], ["b"]]
        worker.let.set()
        await asyncio.gather(*futures)

    run(test())


def test_a_failing_item_fails_alone() -> None:
    async def test() -> None:
        worker = Slow()
        worker.let.set()
        batcher = Batcher(worker, BatchConfig())
        found = await asyncio.gather(*batcher.submit(items("a", "bad", "wrong", "b")), return_exceptions=True)
        assert [one if isinstance(one, Refusal) else one.value for one in found][::3] == ["a", "b"]
        assert [one.status_code for one in found[1:3] if isinstance(one, Refusal)] == [500, 422]

    run(test())


def test_what_nobody_waits_for_is_not_computed() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=10, in_flight=1))
        first, gone, last = batcher.submit(items("a", "gone", "last"))
        await asyncio.sleep(0)
        gone.cancel()
        worker.let.set()
        await asyncio.gather(first, last)
        assert worker.batches == [["a"], ["last"]]
        assert batcher.dropped == {"client_gone": 1}

    run(test())


def test_a_deadline_that_passed_in_the_queue_is_504_and_uncomputed() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=10, in_flight=1))
        (first,) = batcher.submit(items("a"))
        (late,) = batcher.submit(items("late"), seconds=0.01)
        (fine,) = batcher.submit(items("fine"), seconds=1e9)
        await asyncio.sleep(0.05)
        worker.let.set()
        await asyncio.gather(first, fine)
        with pytest.raises(Refusal) as refused:
            await late
        assert refused.value.status_code == 504
        assert worker.batches == [["a"], ["fine"]]
        assert batcher.dropped == {"deadline_passed": 1}

    run(test())


@pytest.mark.parametrize("config", [{"queue_items": 3}, {"queue_tokens": 30}, {"queue_seconds": 0.35}])
def test_a_full_queue_takes_no_more_and_says_when_to_come_back(config: dict[str, float]) -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=10, in_flight=1, **config), speed=100)  # type: ignore[arg-type]
        futures = [future for name in "abcd" for future in batcher.submit(items(name))]
        await asyncio.sleep(0)
        with pytest.raises(Refusal) as refused:
            batcher.submit(items("e"))
        assert (refused.value.status_code, batcher.waiting) == (429, 3)
        assert int(refused.value.headers["Retry-After"]) >= 1  # type: ignore[index]
        worker.let.set()
        await asyncio.gather(*futures)
        (again,) = batcher.submit(items("e"))
        assert (await again).value == "e"

    run(test())


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    async def test() -> None:
        worker = Slow()
        worker.let.set()
        batcher = Batcher(worker, BatchConfig(queue_items=2))
        assert len(await asyncio.gather(*batcher.submit(items(*"abcdef")))) == 6

    run(test())


def test_a_closed_queue_answers_all_that_wait() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=10, in_flight=1))
        first, waiting = batcher.submit(items("a", "b"))
        await asyncio.sleep(0)
        batcher.close(Refusal(503, "gone"))
        with pytest.raises(Refusal, match="gone"):
            await waiting
        with pytest.raises(Refusal, match="gone"):
            batcher.submit(items("c"))
        worker.let.set()
        assert (await first).value == "a"

    run(test())


def test_the_speed_is_that_of_batches_that_tell() -> None:
    async def test() -> None:
        worker = Slow()
        worker.let.set()
        batcher = Batcher(worker, BatchConfig())
        await asyncio.gather(*batcher.submit(items("a", tokens=10)))
        assert batcher.speed == 0
        await asyncio.gather(*batcher.submit(items("a", tokens=1000)))
        assert batcher.speed == pytest.approx(100_000)

    run(test())


def test_what_the_worker_has_counts_as_time_to_wait() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(tokens=20, in_flight=2, queue_seconds=0.3), speed=100)
        futures = batcher.submit(items("a", "b"))
        await asyncio.sleep(0)
        assert not batcher.late, "nothing waits"
        futures += batcher.submit(items("c", "d")) + batcher.submit(items("e"))
        await asyncio.sleep(0)
        assert (batcher.waiting, batcher.late) == (1, True), "0.4 s of work are with the worker"
        with pytest.raises(Refusal):
            batcher.submit(items("f"))
        worker.let.set()
        await asyncio.gather(*futures)
        assert not batcher.late

    run(test())


def test_more_load_than_can_be_computed_is_shed_until_there_is_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.serve.batcher.CALM", 0.2)

    async def test() -> None:
        worker = Slow()
        config = BatchConfig(tokens=10, in_flight=2, queue_seconds=0.45, shed_seconds=0.05)
        batcher = Batcher(worker, config, speed=100)
        computed = batcher.submit(items("a")) + batcher.submit(items("b1", "b2"))
        await asyncio.sleep(0)
        waiting, (stream,) = batcher.submit(items("c")), batcher.submit(items("stream"), patient=True)
        await asyncio.sleep(0.06)
        fresh = batcher.submit(items("fresh"))
        with pytest.raises(Refusal, match="too many"):
            batcher.submit(items("e"))
        assert batcher.shedding, "0.5 s of work would have been before it"
        with pytest.raises(Refusal, match="too many"):
            await asyncio.gather(*waiting)
        assert (batcher.waiting, batcher.dropped["overload"]) == (3, 1), "what was begun, a stream, what has just come"
        for name in "fffff":
            with pytest.raises(Refusal, match="too many"):
                batcher.submit(items(name))

        await asyncio.sleep(0.25)
        with pytest.raises(Refusal, match="too many"):
            batcher.submit(items("g"))
        assert batcher.shedding, "twice as much came as could be computed"
        worker.let.set()
        await asyncio.gather(*computed, stream, *fresh)
        assert worker.batches == [["a"], ["b1"], ["b2"], ["fresh"], ["stream"]]

        for name in "hijk":
            await asyncio.sleep(0.15)
            await asyncio.gather(*batcher.submit(items(name)))
        assert not batcher.shedding, "what came could be taken"

    run(test())


def test_a_long_job_waits_for_gaps_but_not_for_ever() -> None:
    async def test() -> None:
        worker = Slow()
        config = BatchConfig(tokens=3000, in_flight=1, queue_seconds=0.2)
        batcher = Batcher(worker, config, speed=4000)
        first = batcher.submit(items("first"))
        await asyncio.sleep(0)
        stream = batcher.submit(items("s1", "s2", "s3", tokens=200), patient=True)
        large = batcher.submit(items("l1", "l2", tokens=500))
        quick = batcher.submit(items("q1")) + batcher.submit(items("q2"))
        assert not batcher.late, "0.4 s of work do not hold up those who ask for little"
        assert not batcher.room(items("s5"), patient=True), "but they do hold up more of their kind"
        await asyncio.sleep(0.25)
        more = batcher.submit(items("q3"))
        worker.let.set()
        await asyncio.gather(*first, *quick, *stream, *large, *more)
        assert worker.batches == [["first"], ["s1", "s2", "s3"], ["q1", "q2", "q3"], ["l1", "l2"]], "in turns"

    run(test())


def test_a_lane_of_which_all_have_left_gives_way() -> None:
    async def test() -> None:
        worker = Slow()
        batcher = Batcher(worker, BatchConfig(in_flight=1))
        first = batcher.submit(items("first"))
        await asyncio.sleep(0)
        left, stream = batcher.submit(items("left")), batcher.submit(items("stream"), patient=True)
        left[0].cancel()
        worker.let.set()
        await asyncio.gather(*first, *stream)
        assert worker.batches == [["first"], ["stream"]]
        assert (batcher.waiting, batcher.busy) == (0, False)

    run(test())


class Steady:
    """Computes so many pieces a second, one batch after the other."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.free = asyncio.Lock()

    async def ask(self, items: Sequence[Item]) -> Reply:
        seconds = sum(item.tokens for item in items) / self.speed
        async with self.free:
            await asyncio.sleep(seconds)
        return Reply([("ok", item.payload) for item in items], seconds)


async def burst(batcher: Batcher, count: int) -> tuple[int, list[asyncio.Future[Any]]]:
    """Requests that come at once: how many were refused, and the others."""
    taken: list[asyncio.Future[Any]] = []
    for _ in range(count):
        with suppress(Refusal):
            taken += batcher.submit(items("x", tokens=100))
        await asyncio.sleep(0)
    return count - len(taken), taken


def test_after_a_burst_that_was_too_much_smaller_ones_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.serve.batcher.CALM", 0.1)

    async def test() -> None:
        batcher = Batcher(Steady(100_000), BatchConfig(tokens=1000, queue_seconds=0.1), speed=100_000)
        refused, taken = await burst(batcher, 300)
        assert refused > 100, "0.3 s of work"
        assert batcher.shedding
        await asyncio.gather(*taken, return_exceptions=True)
        for _ in range(3):
            await asyncio.sleep(0.2)
            refused, taken = await burst(batcher, 60)
            assert refused == 0, "0.06 s of work each 0.2 s"
            assert len(await asyncio.gather(*taken)) == 60

    run(test())


def test_a_stream_does_not_keep_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertsmith.serve.batcher.CALM", 0.1)
    monkeypatch.setattr("bertsmith.serve.batcher.GAP", 0.02)

    async def test() -> None:
        config = BatchConfig(tokens=4000, queue_seconds=0.1, shed_seconds=0.005)
        batcher = Batcher(Steady(100_000), config, speed=100_000)
        stream = [future for _ in range(30) for future in batcher.submit(items(*"abcdefghij", tokens=10), patient=True)]
        _, taken = await burst(batcher, 200)
        assert batcher.shedding
        await asyncio.gather(*taken, return_exceptions=True)
        await asyncio.sleep(0.12)
        refused = 0
        for _ in range(20):
            some, taken = await burst(batcher, 1)
            refused += some
            await asyncio.gather(*taken)
            await asyncio.sleep(0.005)
        assert refused <= 1
        assert all(answer.value in "abcdefghij" for answer in await asyncio.gather(*stream))

    run(test())
