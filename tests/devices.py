"""The devices of tests: the machine's GPUs where there are any, otherwise halves of the processor.

Tests with the mark `device` run on these; on a machine with GPUs `make gpu` runs them.
"""

import contextlib
from collections.abc import Iterator

import tensorflow as tf

_MEGABYTES = 2048  # Of a half of the only GPU: other processes share it.


def split() -> None:
    """Halves the processor, and a GPU that is the only one, for tests on two replicas; before TensorFlow starts."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    if len(gpus) == 1:
        half = tf.config.LogicalDeviceConfiguration(memory_limit=_MEGABYTES)
        tf.config.set_logical_device_configuration(gpus[0], [half] * 2)


def names() -> list[str]:
    """Two devices or more; the last one is not the one that TensorFlow takes unasked, where those are processors."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [f"{device.device_type}:{i}" for i, device in enumerate(devices)]


@contextlib.contextmanager
def tensor_float_32(enabled: bool) -> Iterator[None]:
    """Whether GPUs may round the factors of float32 convolutions and products to 11 bits, as they do by default."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(enabled)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
