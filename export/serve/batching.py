"""Joins the requests of many clients into one run of the model, which costs little more than a run for one of them.

A row's result does not depend on the rows beside it (that is the contract of the exported model), so no client notices.
"""

import asyncio
import collections
import concurrent.futures
from collections.abc import Callable

import numpy as np

from tf_pivae.errors import sentence
from tf_pivae.export.requests import Inputs, Outputs, RequestError


class _Request:
    def __init__(self, inputs: Inputs, rows: int) -> None:
        self.inputs = inputs
        self.rows = rows
        loop = asyncio.get_running_loop()
        self.arrived = loop.time()
        self.outputs: asyncio.Future[Outputs] = loop.create_future()

    def fail(self, error: RequestError) -> None:
        if not self.outputs.done():
            self.outputs.set_exception(error)


class Batcher:
    """Requests wait until there are `max_batch_size` rows, the oldest has waited for `timeout`, and a slot is free.

    Args:
      run: function of a dict of arrays to a dict of arrays; called in `executor`.
      executor: where runs take place.
      slots: as many as runs at once; shared by all signatures.
      observe: function of the number of rows of a run.
      max_batch_size: rows of a run; no request has more.
      timeout: seconds.
      max_waiting: rows that may wait; a request beyond them is UNAVAILABLE at once.
      join: whether requests are joined; if not, each is a run.
    """

    def __init__(
        self,
        run: Callable[[Inputs], Outputs],
        executor: concurrent.futures.Executor,
        slots: asyncio.Semaphore,
        observe: Callable[[int], None],
        max_batch_size: int = 64,
        timeout: float = 0.002,
        max_waiting: int = 4096,
        join: bool = True,
    ) -> None:
        self._run = run
        self._executor = executor
        self._slots = slots
        self._observe = observe
        self._max_batch_size = max_batch_size
        self._timeout = timeout if join else 0.0
        self._max_waiting = max_waiting
        self._join = join
        self._waiting: collections.deque[_Request] = collections.deque()
        self._full = asyncio.Event()
        self._tasks: set[asyncio.Task] = set()  # The task that makes batches, and those that run them.
        self._scheduling = False

    async def submit(self, inputs: Inputs, rows: int) -> Outputs:
        """Waits for the batch that this request becomes part of: its own rows of the outputs.

        Raises:
          RequestError: UNAVAILABLE, too many wait already; or what the run raised for these rows.
        """
        waiting = self._rows()
        if waiting + rows > self._max_waiting:
            raise RequestError("UNAVAILABLE", f"{waiting} rows are waiting already: try again later.")
        request = _Request(inputs, rows)
        self._waiting.append(request)
        if waiting + rows >= self._max_batch_size:
            self._full.set()
        if not self._scheduling:
            self._scheduling = True
            self._start(self._schedule())
        return await request.outputs

    def _rows(self) -> int:
        return sum(request.rows for request in self._waiting)

    def _start(self, work: collections.abc.Coroutine) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _schedule(self) -> None:
        """Makes batches while requests wait."""
        while self._waiting:
            await self._fill()
            await self._slots.acquire()  # The batch grows on while the model is busy.
            batch = self._take()
            if batch:
                self._start(self._answer(batch))
            else:
                self._slots.release()
        self._scheduling = False

    async def _fill(self) -> None:
        """Waits for a full batch, or until the oldest request has waited long enough."""
        seconds_left = self._waiting[0].arrived + self._timeout - asyncio.get_running_loop().time()
        if self._rows() < self._max_batch_size and seconds_left > 0.0:
            self._full.clear()
            try:
                await asyncio.wait_for(self._full.wait(), seconds_left)
            except (asyncio.TimeoutError, TimeoutError):
                return

    def _take(self) -> list[_Request]:
        """The oldest requests that fit together; those that their clients gave up are dropped."""
        batch: list[_Request] = []
        rows = 0
        while self._waiting and rows + self._waiting[0].rows <= self._max_batch_size and (self._join or not batch):
            request = self._waiting.popleft()
            if not request.outputs.done():
                batch.append(request)
                rows += request.rows
        return batch

    async def _answer(self, batch: list[_Request]) -> None:
        try:
            await self._run_together(batch)
        except RequestError as error:
            if len(batch) == 1:
                batch[0].fail(error)
                return
            for request in batch:  # One of them is at fault: the others must not suffer.
                try:
                    await self._run_together([request])
                except RequestError as own:
                    request.fail(own)
        finally:
            self._slots.release()

    async def _run_together(self, batch: list[_Request]) -> None:
        self._observe(sum(request.rows for request in batch))
        try:
            joined = {key: np.concatenate([request.inputs[key] for request in batch]) for key in batch[0].inputs}
            outputs = await asyncio.get_running_loop().run_in_executor(self._executor, self._run, joined)
        except RequestError:
            raise
        except Exception as error:  # Clients need an answer, whatever failed.
            raise RequestError("INTERNAL", sentence(f"{type(error).__name__}: {error}")) from error
        start = 0
        for request in batch:
            rows = slice(start, start + request.rows)
            if not request.outputs.done():
                request.outputs.set_result({key: value[rows] for key, value in outputs.items()})
            start += request.rows
