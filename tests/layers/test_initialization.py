"""Initial weights follow from the seed alone."""

import random
import threading
import time
from collections.abc import Callable, Iterator

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pivae import loading
from tf_pivae.layers.convolution import Conv2D
from tf_pivae.layers.initialization import Dense, initializer, seeded
from tf_pivae.training.recipe import Recipe


def _kernels(*make: Callable[[], keras.layers.Layer], between: Callable[[], object] = lambda: None) -> list[np.ndarray]:
    layers = []
    for layer in make:
        layers.append(layer())
        layers[-1].build([1, 4, 4, 3])
        between()
    return [layer.kernel.numpy() for layer in layers]


def test_they_are_those_of_keras_whatever_is_drawn_between() -> None:
    keras.utils.set_random_seed(5)
    expected = _kernels(
        lambda: keras.layers.Conv2D(2, 3, kernel_initializer="he_normal"),
        lambda: keras.layers.Dense(2),
        lambda: keras.layers.Conv2D(2, 3, kernel_initializer="zeros"),
        lambda: keras.layers.Dense(2),
    )
    with seeded(5):
        ours = [lambda: Conv2D(2, 3), lambda: Dense(2), lambda: Conv2D(2, 3, kernel_initializer="zeros")]
        actual = _kernels(*ours, lambda: Dense(2), between=random.random)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_outside_they_are_random() -> None:
    with seeded(5):
        pass
    values = [initializer("random_normal")([4], tf.float32) for _ in range(2)]
    assert np.all(values[0] != values[1])


@pytest.fixture
def busy_thread() -> Iterator[threading.Event]:
    """Where it is set, a thread draws numbers all the time."""
    draws = threading.Event()
    ends = threading.Event()

    def work() -> None:
        while not ends.is_set():
            draws.wait(0.1)
            if draws.is_set():
                random.random()
                time.sleep(1e-4)

    thread = threading.Thread(target=work)
    thread.start()
    yield draws
    ends.set()
    thread.join()


def test_a_run_starts_with_the_same_weights_beside_a_busy_thread(tiny: str, busy_thread: threading.Event) -> None:
    loading.register()
    try:
        loading.parse_gin([tiny, "options/spectral_normalization.gin"], [])
        recipe = Recipe()
        data = recipe.dataset()
        states = []
        for busy in (False, True):
            if busy:
                busy_thread.set()
            states.append({n: [v.numpy() for v in values] for n, values in recipe.build(data).state.items()})
    finally:
        gin.clear_config()
    assert states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        for a, b in zip(values, states[1][name], strict=True):
            np.testing.assert_array_equal(a, b)
