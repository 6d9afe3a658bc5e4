"""Many rows in batches, spread over the replicas that a model lives on, or over the threads of one."""

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pivae.system import threads


class RowFunction:
    """A function of rows, compiled once, that is called with any number of rows.

    They are computed in batches, and a batch is cut into one contiguous part for each replica, or for each of the calls
    that `threads.calls_side_by_side` allows. What a row gives must depend on the row alone (its noise on its place in
    the whole): the result is then the same for every batch size, number of replicas and number of threads.

    Args:
      function: a function (first_row int64, count int32, *per_row [count, ...], *shared) -> nest of [count, ...]. Its
        variables were created under the strategy that is current now.
    """

    def __init__(self, function: Callable) -> None:
        self._strategy = tf.distribute.get_strategy()
        # Those of this process: where a training has several, one of them computes alone.
        self._replicas = len(self._strategy.experimental_local_results(self._spread(tf.constant)))
        self._compiled = tf.function(
            lambda arguments, shared: self._strategy.run(function, args=(*arguments, *shared)),
            autograph=False,
            reduce_retracing=True,
        )
        self._graphs: dict[tuple, Callable] = {}
        self._process = os.getpid()
        self._calls = threads.calls_side_by_side() if self._replicas == 1 else 1
        self._map = ThreadPoolExecutor(self._calls).map if self._calls > 1 else map

    @property
    def num_traces(self) -> int:
        """How often the function was traced."""
        return self._compiled.experimental_get_tracing_count()

    def __call__(self, num_rows: int, first_row: int, batch_size: int, per_row: Sequence, shared: Sequence = ()) -> Any:
        """Computes rows 0 ... N - 1.

        Args:
          num_rows: int, N.
          first_row: int, the place of the first row in the whole.
          batch_size: int, rows computed at a time, over all replicas.
          per_row: a tuple of arrays [N, ...] (or None), each cut into the batches' rows.
          shared: a tuple of tensors that every call gets as they are.

        Returns:
          The function's nest with NumPy arrays [N, ...].

        Raises:
          ValueError: a `batch_size` below 1; or as `check_eager`.
          RuntimeError: in a process that was forked from the one that made this function.
        """
        check_eager()
        if os.getpid() != self._process:
            raise RuntimeError(
                "this process was forked from the one that has the model, and has none of TensorFlow's threads: start "
                "processes by multiprocessing's 'spawn', and load the model in each."
            )
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1; got {batch_size}.")
        num_rows, first_row, batch_size = map(int, (num_rows, first_row, batch_size))  # NumPy's small ones wrap round.
        parts = []
        for start in range(0, max(num_rows, 1), batch_size):
            stop = min(start + batch_size, num_rows)
            parts += _cut(start, stop, max(1, min(self._calls, stop - start)))
        graph = self._graph(per_row, shared)  # Traced in the caller's thread, whose contexts count.
        compute = functools.partial(self._batch, graph=graph, first_row=first_row, per_row=per_row, shared=shared)
        results = [compute(parts[0])] if len(parts) == 1 else self._map(compute, parts)
        return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *itertools.chain(*results))

    def _graph(self, per_row, shared):
        """The graph for arguments of these types, and any number of rows.

        `tf.function` would find it, too, but takes longer for that in each call than for the call itself.
        """
        types = [None if array is None else (array.dtype, array.shape[1:]) for array in per_row]
        key = (*types, *((value.dtype, tuple(value.shape)) for value in shared))
        if key not in self._graphs:
            if tf.distribute.has_strategy() and tf.distribute.get_strategy() is not self._strategy:
                raise ValueError(
                    "call a model outside of the scope of a tf.distribute strategy that it was not built in."
                )
            arguments = self._arguments([(0, 1)] * self._replicas, 0, per_row)
            traced = [*arguments[:2], *map(self._with_any_rows, arguments[2:])]
            self._graphs[key] = self._compiled.get_concrete_function(traced, shared)
        return self._graphs[key]

    def _batch(self, rows, graph, first_row, per_row, shared):
        """The results of some of the rows, a pair (start, stop): a list of one nest for each replica."""
        ranges = list(_cut(*rows, self._replicas))
        outputs = graph(self._arguments(ranges, first_row, per_row), shared)
        values = [self._strategy.experimental_local_results(value) for value in tf.nest.flatten(outputs)]
        return [
            tf.nest.pack_sequence_as(outputs, [value[i].numpy()[: stop - start] for value in values])
            for i, (start, stop) in enumerate(ranges)
        ]

    def _arguments(self, ranges, first_row, per_row):
        """What the replicas get for their ranges of rows, pairs (start, stop)."""
        counts = [stop - start for start, stop in ranges]

        def rows_of(array, i):
            # oneDNN's fused operations refuse tensors without rows: a replica that is left with none computes one.
            part = np.asarray(array[slice(*ranges[i])])
            return tf.constant(part if len(part) else np.zeros([1, *part.shape[1:]], part.dtype))

        return [
            self._spread(lambda i: tf.constant(first_row + ranges[i][0], tf.int64)),
            self._spread(lambda i: tf.constant(max(counts[i], 1), tf.int32)),
            *(None if array is None else self._spread(functools.partial(rows_of, array)) for array in per_row),
        ]

    def _with_any_rows(self, argument):
        """The argument's type with any number of rows: one trace serves smaller last batches and larger later calls."""
        if argument is None:
            return None
        parts = self._strategy.experimental_local_results(argument)
        rows = [tf.TensorSpec([None, *part.shape[1:]], part.dtype) for part in parts]
        spec = tf.type_spec_from_value(argument)
        return rows[0] if isinstance(spec, tf.TensorSpec) else type(spec)(*rows)

    def _spread(self, value):
        """What each replica of this process gets: value(0), value(1), ..."""
        local = itertools.count()
        return self._strategy.experimental_distribute_values_from_function(lambda _: value(next(local)))


def check_eager() -> None:
    """Raises ValueError inside of a graph, where there are no NumPy arrays."""
    if not tf.executing_eagerly():
        raise ValueError(
            "this takes and returns NumPy arrays: call it outside of tf.function and graphs, or there by "
            "tf.numpy_function; `bound` and `sample_continuous` are for graphs."
        )


def _cut(start, stop, parts):
    """start ... stop - 1 in a number of contiguous parts, as equal as can be: pairs (start, stop)."""
    return itertools.pairwise(start + (stop - start) * i // parts for i in range(parts + 1))
