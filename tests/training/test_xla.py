"""What XLA compiles is the same step, with the same noise."""

from pathlib import Path

import devices
import forking
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import assert_same_weights, small_images, small_trainer

from tf_pivae.errors import UserError
from tf_pivae.noise import RowNoise, fold_in
from tf_pivae.training.loop import _jit_compile


def _compiled(function):
    return tf.function(function, jit_compile=True, autograph=False)()


@pytest.mark.parametrize("key", [0, 1, 2**63 + 5, 2**64 - 1])
@pytest.mark.parametrize("tag", ["likelihood", 9])
def test_keys_under_xla_are_the_keys_without(key, tag):
    key = tf.constant(key, tf.uint64)
    np.testing.assert_array_equal(_compiled(lambda: fold_in(key, tag)), fold_in(key, tag))


@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_noise_under_xla_is_the_noise_without(draw):
    """Rows of sizes that fill their counters and that do not; XLA's own normal numbers would depend on the batch."""
    for rows, shape in ((5, [1001]), (1, [8, 3]), (3, [4])):

        def noise(for_xla=True, rows=rows, shape=shape):
            rows = RowNoise(3, rows + 1, 2**33, for_xla=for_xla).part(1, rows)
            return getattr(rows.fold_in(2).fold_in("x"), draw)("tag", shape)

        atol = 0.0 if draw == "uniform" else 4e-6
        np.testing.assert_allclose(_compiled(noise), noise(for_xla=False), rtol=0.0, atol=atol)


@pytest.mark.slow
@pytest.mark.device
def test_compiled_step_is_the_step():
    """In a process of its own: XLA keeps the memory that it compiles in, here a gigabyte."""
    result = forking.run(Path(__file__).parent / "xla_step.py", devices.names()[0])
    assert result.returncode == 0, result.stderr
    assert result.stdout == "the same\n"


def test_keras_fit_takes_the_same_steps(randomize):
    images = np.concatenate([small_images(seed=i) for i in range(2)])
    by_fit, by_hand = (small_trainer(randomize, learning_rate=1e-3) for _ in range(2))
    by_fit.compile(jit_compile=True)
    history = by_fit.fit(tf.data.Dataset.from_tensor_slices(images).batch(8, drop_remainder=True), verbose=0).history
    step = tf.function(by_hand.train_step, autograph=False)
    for part in (images[:8], images[8:]):
        metrics = step(tf.constant(part))
    assert int(by_fit.step) == 2
    np.testing.assert_allclose(history["bits_per_dim"], [float(metrics["bits_per_dim"])], rtol=1e-4)
    assert_same_weights(by_hand, by_fit, steps=2, learning_rate=1e-3)


class _Strategy:
    """The devices of one."""

    def __init__(self, *devices):
        self.num_replicas_in_sync = len(devices)
        self.extended = self
        self.worker_devices = devices


def test_one_gpu_compiles_unless_told_otherwise():
    gpu = "/job:localhost/replica:0/task:0/device:GPU:0"
    cpu = "/job:localhost/replica:0/task:0/device:CPU:0"
    assert _jit_compile(_Strategy(gpu), None)
    assert not _jit_compile(_Strategy(gpu), False)
    assert not _jit_compile(_Strategy(cpu), None)
    assert _jit_compile(_Strategy(cpu), True)
    assert not _jit_compile(_Strategy(gpu, gpu.replace(":0", ":1")), None)
    with pytest.raises(UserError, match="leave it unset"):
        _jit_compile(_Strategy(gpu, gpu), True)
    assert not _jit_compile(tf.distribute.MirroredStrategy(["/cpu:0"]), None)
