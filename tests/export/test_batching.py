"""Requests are joined and taken apart again without a mistake, and one that fails hurts no other."""

import asyncio
import concurrent.futures
import gc
import threading
import weakref

import numpy as np
import pytest

from tf_pivae.export.requests import RequestError, invalid
from tf_pivae.export.serve.batching import Batcher


class Model:
    """Squares its input; refuses negative numbers; can be held back."""

    def __init__(self):
        self.sizes = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, inputs):
        x = inputs["x"]
        self.sizes.append(len(x))
        self.gate.wait(10)
        if np.any(x < 0):
            raise invalid(f"{x.min()} is negative")
        if np.any(x == 1300):
            raise ZeroDivisionError("thirteen")
        return {"square": x**2, "row": np.arange(len(x))}


def run(test, slots=1, **options):
    """Runs `test(submit, model)`, submit being a function of a list of numbers."""

    async def main():
        model = Model()
        with concurrent.futures.ThreadPoolExecutor(slots) as executor:
            batcher = Batcher(model, executor, asyncio.Semaphore(slots), lambda rows: None, **options)

            async def submit(*numbers, shape=(-1,)):
                outputs = await batcher.submit({"x": np.reshape(numbers, shape)}, len(numbers))
                return outputs["square"].tolist()

            try:
                await asyncio.wait_for(test(submit, model), 20)
            finally:
                model.gate.set()

    asyncio.run(main())


def test_requests_at_once_are_one_run_and_get_their_own_rows():
    async def test(submit, model):
        assert await asyncio.gather(submit(1, 2), submit(3), submit(4, 5, 6)) == [[1, 4], [9], [16, 25, 36]]
        assert model.sizes == [6]

    run(test, timeout=0.05)


def test_a_full_batch_does_not_wait():
    async def test(submit, model):
        await asyncio.wait_for(asyncio.gather(*(submit(i) for i in range(8))), 5)
        assert model.sizes == [4, 4]

    run(test, timeout=3600.0, max_batch_size=4)


def test_no_run_has_more_rows_than_allowed():
    async def test(submit, model):
        requests = [[i] * (1 + i % 5) for i in range(40)]
        answers = await asyncio.gather(*(submit(*request) for request in requests))
        assert answers == [[i * i for i in request] for request in requests]
        assert max(model.sizes) <= 8
        assert sum(model.sizes) == sum(map(len, requests))
        assert len(model.sizes) < 20

    run(test, timeout=0.01, max_batch_size=8, slots=2)


def test_the_batch_grows_while_the_model_is_busy():
    async def test(submit, model):
        model.gate.clear()
        first = asyncio.create_task(submit(1))
        while not model.sizes:
            await asyncio.sleep(0.01)
        rest = [asyncio.create_task(submit(i)) for i in range(10)]
        await asyncio.sleep(0.1)
        model.gate.set()
        await asyncio.gather(first, *rest)
        assert model.sizes == [1, 10]

    run(test, timeout=0.0)


def test_a_bad_request_fails_alone():
    async def test(submit, model):
        results = await asyncio.gather(submit(1), submit(-2), submit(3), submit(1300), return_exceptions=True)
        assert results[0] == [1]
        assert results[2] == [9]
        assert (results[1].code, str(results[1])) == ("INVALID_ARGUMENT", "-2 is negative")
        assert results[3].code == "INTERNAL"
        assert "thirteen" in str(results[3])
        assert await submit(4) == [16]  # And life goes on.
        assert model.sizes == [4, 1, 1, 1, 1, 1]

    run(test, timeout=0.05)


def test_requests_that_cannot_be_joined_are_run_alone():
    async def test(submit, model):
        assert await asyncio.gather(submit(1, 2), submit(3, shape=(1, 1))) == [[1, 4], [[9]]]
        assert model.sizes == [2, 1]

    run(test, timeout=0.05)


def test_what_a_client_gave_up_is_not_run():
    async def test(submit, model):
        tasks = [asyncio.create_task(submit(i)) for i in (1, 2, 3)]
        await asyncio.sleep(0.02)
        tasks[1].cancel()
        assert await tasks[0] == [1]
        assert await tasks[2] == [9]
        assert model.sizes == [2]

    run(test, timeout=0.3)


def test_nothing_goes_on_where_nobody_waits():
    """A version's queues go with its last request."""

    async def main():
        slots = asyncio.Semaphore(1)
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            batcher = Batcher(Model(), executor, slots, lambda rows: None, timeout=0.05)
            answered = asyncio.create_task(batcher.submit({"x": np.array([1])}, 1))
            given_up = asyncio.create_task(batcher.submit({"x": np.array([2])}, 1))
            await asyncio.sleep(0.01)
            given_up.cancel()
            await answered
            gone = weakref.ref(batcher)
            del batcher, answered, given_up
            await asyncio.sleep(0.01)
            gc.collect()
            assert gone() is None
            assert not slots.locked()
            assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_too_many_waiting_rows_are_refused_at_once():
    async def test(submit, model):
        model.gate.clear()
        tasks = [asyncio.create_task(submit(0))]
        while not model.sizes:
            await asyncio.sleep(0.01)
        tasks += [asyncio.create_task(submit(i)) for i in range(5)]
        await asyncio.sleep(0.1)
        with pytest.raises(RequestError) as error:
            await asyncio.wait_for(submit(1, 2, 3, 4, 5, 6), 1)
        assert error.value.code == "UNAVAILABLE"
        model.gate.set()
        assert len(await asyncio.gather(*tasks)) == 6

    run(test, timeout=0.0, max_batch_size=8, max_waiting=8)


def test_without_batching_every_request_is_a_run():
    async def test(submit, model):
        assert await asyncio.wait_for(asyncio.gather(submit(1, 2), submit(3)), 5) == [[1, 4], [9]]
        assert model.sizes == [2, 1]

    run(test, join=False, timeout=3600.0)
