"""The processes of one training: one, or as many as TF_CONFIG names, each on its own machine.

Every worker runs the same command. Together they take the step that one process with as many replicas would: worker i
reads the slices of the global batch that belong to its replicas, noise is a function of the place in the global batch,
gradients and moments are reduced over all replicas. Only the chief (worker 0) writes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator

import tensorflow as tf

from tf_pivae.errors import UserError, WorkerLost, first_line, sentence
from tf_pivae.training.stopping import Stopping

CONNECTION_ERRORS = (  # What the loss of another worker looks like.
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)
_ASK_EVERY = 20  # Steps between checks whether a worker was told to stop: each is an exchange between all.


def local_strategy() -> tf.distribute.Strategy:
    """`MirroredStrategy` over all visible GPUs, or one replica on the CPU."""
    if not os.environ.get("TF_CONFIG", "{}").strip():
        del os.environ["TF_CONFIG"]  # TensorFlow would try to read an empty one.
    gpus = [gpu.name.removeprefix("/physical_device:") for gpu in tf.config.list_physical_devices("GPU")]
    return tf.distribute.MirroredStrategy(gpus or ["/cpu:0"])


def default_strategy() -> tf.distribute.Strategy:
    """`MultiWorkerMirroredStrategy` where TF_CONFIG names several workers, otherwise `local_strategy()`.

    It waits for all of them, for an hour at most. Python handles no signal meanwhile, so that Ctrl-C ends the process.

    Raises:
      UserError: TF_CONFIG is not what TensorFlow documents.
    """
    count = num_workers(os.environ.get("TF_CONFIG", ""))
    if count < 2:
        return local_strategy()
    print(f"waiting for all {count} workers of TF_CONFIG", flush=True)
    try:
        with _ended_by_interrupt():
            return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise WorkerLost(
            f"the workers of TF_CONFIG did not find each other: {sentence(first_line(error))} Start the same command "
            "on every one of them, and check that their addresses and ports can be reached."
        ) from error


@contextlib.contextmanager
def _ended_by_interrupt():
    """A context in which SIGINT ends the process at once, unless it is ignored, or handled in another thread."""
    handled = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT)
    if not callable(handled):
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handled)


def num_workers(tf_config: str) -> int:
    """Number of training processes in the text of TF_CONFIG; 1 for an empty one.

    Raises:
      UserError: it is not JSON with `cluster` and `task`, or the task is not in the cluster.
    """
    if not tf_config.strip():
        return 1
    shape = '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
    try:
        config = json.loads(tf_config)
        cluster = config.get("cluster", {})
        task = config.get("task", {})
        addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
        if not addresses:
            return 1
        for address in addresses:
            port = address.rpartition(":")[2] if isinstance(address, str) else ""
            if not (port.isdecimal() and 1 <= int(port) <= 65535) or addresses.count(address) > 1:
                raise UserError(f"TF_CONFIG's address {address!r} is not a host:port, or comes twice.")
        peers = cluster[task["type"]]
        indices = [f"{i}" for i in range(len(peers))]
        if task["type"] not in ("chief", "worker") or str(task["index"]) not in indices:
            raise UserError(f"TF_CONFIG's task {task} is not one of its cluster's chief and workers.")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"TF_CONFIG is not of the form {shape}: {error}.") from error
    return len(addresses)


class Workers(contextlib.AbstractContextManager):
    """What the processes of a training say to each other; every one of them must call the same methods in turn.

    Also a context manager: unless there was an error, each worker waits at its end for all others, so that no exit
    breaks another worker's exchange. If one never arrives, that is a `WorkerLost`.

    Args:
      strategy: the training's `tf.distribute.Strategy`.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self._strategy = strategy
        resolver = strategy.cluster_resolver
        cluster = resolver.cluster_spec().as_dict() if resolver else {}
        self._is_alone = sum(len(peers) for peers in cluster.values()) < 2
        first = "chief" if "chief" in cluster else "worker"
        self.is_chief = self._is_alone or (resolver.task_type, resolver.task_id) == (first, 0)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._is_alone or error is not None:
            return
        with Stopping():  # A signal changes nothing any more.
            with self.watched():
                self._sum([tf.constant(1)])
            # The first to leave may break a connection on which another still waits for its answer. So nobody leaves
            # before all have come through the exchange above, and what breaks in this one is of no consequence.
            with contextlib.suppress(*CONNECTION_ERRORS):
                self._sum([tf.constant(1)])

    def share(self, variables: Iterable) -> None:
        """Sets every worker's variables to the chief's."""
        if self._is_alone:
            return
        with self.watched():
            for dtype in sorted({variable.dtype for variable in variables}):  # A reduction takes tensors of one type.
                group = [variable for variable in variables if variable.dtype == dtype]
                values = self._sum([tf.convert_to_tensor(variable) for variable in group], counts=self.is_chief)
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)

    def stop_requested(self, step: int, requested: bool) -> bool:
        """Whether any worker asks to stop; with several, asked every few steps so that all stop at the same one."""
        if self._is_alone:
            return requested
        if step % _ASK_EVERY:
            return False
        with self.watched():
            return bool(self._sum([tf.constant(int(requested))])[0])

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """A context in which the loss of another worker is a `WorkerLost`."""
        try:
            yield
        except CONNECTION_ERRORS as error:
            if self._is_alone:
                raise
            raise WorkerLost(
                f"another worker is gone ({first_line(error)[:200]}). Nothing of the unfinished step is kept: "
                "start the same command again on every worker, and they go on from the last checkpoint."
            ) from error

    def _sum(self, values, counts=True):
        """The sum over workers of each tensor; workers that do not count add nothing."""

        def on_replica(values):
            context = tf.distribute.get_replica_context()
            local = context.replica_id_in_sync_group % len(self._strategy.extended.worker_devices)
            counted = tf.logical_and(tf.equal(local, 0), counts)
            mine = [tf.where(counted, value, tf.zeros_like(value)) for value in values]
            return context.all_reduce(tf.distribute.ReduceOp.SUM, mine)

        sums = tf.function(lambda: self._strategy.run(on_replica, args=(values,)), autograph=False)()
        return [self._strategy.experimental_local_results(value)[0] for value in sums]
