"""An exported model in one of its runtimes: the side of `benchmarks.worker` that is neither ours nor a peer's."""

from collections.abc import Callable

import numpy as np

_SYSTEMS = {
    "tensorflow": dict(runtime="tensorflow"),
    "openvino": dict(runtime="openvino"),
    "openvino_bf16": dict(runtime="openvino", precision="bf16"),
}


def setup(system: str, threads: int, logical_cpus: int, device: str) -> None:
    """As many threads as the process has cores, which is OpenVINO's own choice; TensorFlow as the commands have it."""
    del logical_cpus, device
    if system == "tensorflow":
        from tf_pivae import cli

        cli.import_tensorflow_quietly()
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)


def wait() -> None:
    """Calls return finished results."""


def forget() -> None:
    """Nothing is kept."""


def prepare(system: str, case: dict) -> tuple[Callable[[], list[float]], None]:
    """A function that runs `log_prob` of the case's export: its numbers."""
    from tf_pivae.export import load

    model = load(case["folder"], batch_size=case["batch"], **_SYSTEMS[system])
    images = np.random.default_rng(0).integers(0, 256, [case["batch"], case["side"], case["side"], 3], np.uint8)
    return lambda: model.log_prob(images).log_prob.tolist(), None
