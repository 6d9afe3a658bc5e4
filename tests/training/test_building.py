"""Mistakes in one line, and models that are refused before they take memory."""

import resource

import keras
import pytest
import tensorflow as tf

from tf_pivae.errors import UserError
from tf_pivae.system.memory import physical_memory
from tf_pivae.training.building import (
    bounded_variables,
    check_batch,
    explained,
)


def test_any_exception_becomes_one_line():
    for error, text in (
        (KeyError("x\ny"), r"^a model: KeyError: 'x\\ny'\.$"),
        (ValueError("first\nsecond"), r"^a model: first\.$"),
        (RecursionError("maximum"), r"^a model: it refers to itself\.$"),
        (TypeError(""), r"^a model: TypeError\.$"),
    ):
        with pytest.raises(UserError, match=text), explained("a model"):
            raise error
    with pytest.raises(UserError, match=r"^already$"), explained("a model"):
        raise UserError("already")
    with pytest.raises(tf.errors.UnavailableError), explained("a model"):  # another worker's end
        raise tf.errors.UnavailableError(None, None, "gone")
    with pytest.raises(KeyboardInterrupt), explained("a model"):
        raise KeyboardInterrupt


class _Refusing(keras.layers.Layer):
    def call(self, x):
        raise ValueError("sides must be even: pad the images.\nMore of it.")


def test_what_a_layer_raises_is_the_line():
    """Keras writes in front of it which layer's call that was, and behind it the arguments."""
    with pytest.raises(UserError, match=r"^a model: sides must be even: pad the images\.$"), explained("a model"):
        _Refusing()(tf.zeros([1, 2]))


def test_the_exception_itself_on_request(monkeypatch):
    monkeypatch.setenv("TF_PIVAE_DEBUG", "1")
    with pytest.raises(KeyError), explained("a model"):
        raise KeyError("x")


@pytest.mark.parametrize("devices", [1, 2])
def test_variables_beyond_the_limit_are_refused_before_they_take_memory(devices):
    strategy = tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(devices)])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    layer = keras.layers.Conv2D(1_000_000_000, 3)
    with strategy.scope(), pytest.raises(UserError, match=r"more than .* GB, this machine's memory"):  # noqa: SIM117
        with bounded_variables():
            layer.build([None, 8, 8, 64])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_the_sum_counts():
    with bounded_variables(limit=4000):
        tf.Variable(tf.zeros([500]))
        keras.Variable(initializer="zeros", shape=[400])
        keras.Variable(initializer="zeros", shape=[40], dtype="float16")
        tf.Variable(lambda: tf.zeros([60]))
        with pytest.raises(UserError, match="4e-06 GB"):
            keras.Variable(initializer="zeros", shape=[21])
    tf.Variable(tf.zeros([5000]))


def test_a_refusal_within_a_layers_call_stays_a_line():
    """Keras puts what it knows of the call around it, over several lines."""
    with pytest.raises(UserError, match=r"^the model's variables take more than 4e-06 GB, a made up limit: [^\n]*$"):  # noqa: SIM117
        with bounded_variables(4000, "a made up limit"):
            keras.Sequential([keras.layers.Dense(2000)])(tf.zeros([1, 2]))


def test_physical_memory_is_that_of_the_system():
    with open("/proc/meminfo") as file:
        kilobytes = int(file.readline().split()[1])
    assert physical_memory() == pytest.approx(1024 * kilobytes, rel=0.1)


def test_batches_beyond_the_memory_are_refused():
    check_batch(64, (32, 32, 3))
    with pytest.raises(UserError, match="batch_size = 1000000000000 needs"):
        check_batch(10**12, (32, 32, 3))
