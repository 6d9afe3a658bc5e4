"""Joins the requests of many clients into one run of the model, which costs little more than a run for one of them.

A row's result does not depend on the rows beside it (that is the contract of the exported model), so no client notices.
"""

import asyncio
import collections

import numpy as np

from tf_pivae.export.requests import RequestError


class _Request:
    def __init__(self, inputs, rows, loop):
        self.inputs = inputs
        self.rows = rows
        self.arrived = loop.time()
        self.outputs = loop.create_future()


class Unbatched:
    """Every request runs alone.

    Args:
      run: function of a dict of arrays to a dict of arrays; called in `executor`.
      executor: where runs take place.
      slots: `asyncio.Semaphore`, as many as runs at once; shared by all signatures.
      observe: function of the number of rows of a run.
    """

    def __init__(self, run, executor, slots, observe):
        self._run, self._executor, self._slots, self._observe = run, executor, slots, observe

    async def submit(self, inputs, rows):
        """Waits for a slot and runs: dict of arrays."""
        async with self._slots:
            self._observe(rows)
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, inputs)

    def close(self):
        """Nothing is left running."""


class Batcher:
    """Requests wait until there are `max_batch_size` rows, the oldest has waited for `timeout`, and a slot is free.

    Args:
      run, executor, slots, observe: as for `Unbatched`.
      max_batch_size: rows of a run; no request has more.
      timeout: seconds.
      max_waiting: rows that may wait; a request beyond them is UNAVAILABLE at once.
    """

    def __init__(self, run, executor, slots, observe, max_batch_size=64, timeout=0.002, max_waiting=4096):
        self._run, self._executor, self._slots, self._observe = run, executor, slots, observe
        self._max_batch_size, self._timeout, self._max_waiting = max_batch_size, timeout, max_waiting
        self._waiting = collections.deque()
        self._waiting_rows = 0
        self._arrived = asyncio.Event()
        self._running = set()
        self._scheduler = asyncio.get_running_loop().create_task(self._schedule())

    async def submit(self, inputs, rows):
        """Waits for the batch that this request becomes part of: its own rows of the outputs, a dict of arrays.

        Raises:
          RequestError: UNAVAILABLE, too many wait already; or what the run raised for these rows.
        """
        if self._waiting_rows + rows > self._max_waiting:
            raise RequestError("UNAVAILABLE", f"{self._waiting_rows} rows are waiting already: try again later.")
        request = _Request(inputs, rows, asyncio.get_running_loop())
        self._waiting.append(request)
        self._waiting_rows += rows
        self._arrived.set()
        return await request.outputs

    def close(self):
        """Stops the scheduler; nothing may be waiting any more."""
        self._scheduler.cancel()

    async def _schedule(self):
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            await self._slots.acquire()  # While all are taken, the batch grows.
            try:
                await self._fill()
            except asyncio.CancelledError:  # Closed, with nothing waiting but what clients gave up.
                self._slots.release()
                raise
            task = asyncio.create_task(self._answer(self._take()))
            self._running.add(task)  # The event loop itself holds tasks only weakly.
            task.add_done_callback(self._running.discard)

    async def _fill(self):
        loop = asyncio.get_running_loop()
        deadline = self._waiting[0].arrived + self._timeout
        while self._waiting_rows < self._max_batch_size and loop.time() < deadline:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), deadline - loop.time())
            except (asyncio.TimeoutError, TimeoutError):
                return

    def _take(self):
        """The oldest requests that fit together; those that their clients gave up are dropped."""
        batch, rows = [], 0
        while self._waiting and rows + self._waiting[0].rows <= self._max_batch_size:
            request = self._waiting.popleft()
            self._waiting_rows -= request.rows
            if not request.outputs.done():
                batch.append(request)
                rows += request.rows
        return batch

    async def _answer(self, batch):
        try:
            if not batch:
                return
            try:
                await self._run_together(batch)
            except RequestError as error:
                if len(batch) == 1:
                    _fail(batch[0], error)
                    return
                for request in batch:  # One of them is at fault: the others must not suffer.
                    await self._run_alone(request)
        finally:
            self._slots.release()

    async def _run_together(self, batch):
        joined = {key: np.concatenate([request.inputs[key] for request in batch]) for key in batch[0].inputs}
        outputs = await self._in_executor(joined, sum(request.rows for request in batch))
        start = 0
        for request in batch:
            rows = slice(start, start + request.rows)
            if not request.outputs.done():
                request.outputs.set_result({key: value[rows] for key, value in outputs.items()})
            start += request.rows

    async def _run_alone(self, request):
        try:
            await self._run_together([request])
        except RequestError as error:
            _fail(request, error)

    async def _in_executor(self, inputs, rows):
        self._observe(rows)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._run, inputs)
        except RequestError:
            raise
        except Exception as error:  # Whatever it is, clients wait for an answer and the server lives on.
            raise RequestError("INTERNAL", f"{type(error).__name__}: {error}") from error


def _fail(request, error):
    if not request.outputs.done():
        request.outputs.set_exception(error)
