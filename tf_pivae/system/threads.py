"""How TensorFlow spreads its work over the cores of a small machine."""

import os

_FEW = 2  # Cores up to which one thread per operation was measured to be faster; see docs/performance.md.
_INTRA_OP = "TF_NUM_INTRAOP_THREADS"
_INTER_OP = "TF_NUM_INTEROP_THREADS"


def num_cores() -> int:
    """The cores that this process may use, an int."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_variables(num_threads: int) -> dict[str, str]:
    """Environment variables that keep TensorFlow to a number of threads, a dict of strings.

    By default TensorFlow runs as many operations at a time as there are cores, and cuts each into as many pieces. Those
    wait for each other, which on few cores costs more than it gains: there an operation gets one thread, and the cores
    get different operations. On more cores a model has too few operations at a time for that.
    """
    intra_op = 1 if num_threads <= _FEW else num_threads
    return {_INTRA_OP: str(intra_op), _INTER_OP: str(num_threads), "OMP_NUM_THREADS": str(num_threads)}


def fit_to_cores() -> None:
    """Sets `thread_variables` for the cores of this process, if they are few; call it before TensorFlow is imported.

    Where one of TensorFlow's two is set already, nothing is changed.
    """
    if num_cores() <= _FEW and not any(name in os.environ for name in (_INTRA_OP, _INTER_OP)):
        variables = thread_variables(num_cores())
        os.environ.update({name: variables[name] for name in (_INTRA_OP, _INTER_OP)})


def calls_side_by_side() -> int:
    """How many calls of a compiled function are worth running at a time, an int.

    Where an operation has one thread, and there is no GPU, as many as operations may run at a time; otherwise one.
    """
    import tensorflow as tf

    intra_op = tf.config.threading.get_intra_op_parallelism_threads() or _number(_INTRA_OP)
    return operations_at_a_time() if intra_op == 1 and not tf.config.list_physical_devices("GPU") else 1


def operations_at_a_time() -> int:
    """How many operations of a graph TensorFlow runs at a time on processors, an int."""
    import tensorflow as tf

    return tf.config.threading.get_inter_op_parallelism_threads() or _number(_INTER_OP) or num_cores()


def _number(name):
    """A variable's value, an int; 0 where it is not set or not a number of threads, which TensorFlow then ignores."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
