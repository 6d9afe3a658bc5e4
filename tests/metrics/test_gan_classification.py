import itertools

import gin
import keras
import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import ClassifierConfig, gan_classification, gan_train_test, train_classifier
from tf_pivae.metrics.classifier import augmented, residual_network

RECIPE = ClassifierConfig(depth=8, num_steps=150, crop_padding=1)
SHORTER = ClassifierConfig(depth=8, num_steps=30, crop_padding=1)


@pytest.fixture(scope="module")
def halves(fashion):
    """Real images twice: one half to train on, the other to stand in for samples; and the test images."""
    images = fashion.train.images
    labels = fashion.train.labels
    half = len(images) // 2
    return (images[:half], labels[:half]), (images[half:], labels[half:]), (fashion.test.images, fashion.test.labels)


@pytest.fixture(scope="module")
def state_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("classifiers")


def test_real_data_as_samples_give_the_classifiers_own_accuracy(halves, state_dir):
    real, samples, test = halves
    result = gan_train_test(
        *samples, *real, *test, RECIPE, state_dir=state_dir / "a", real_state_dir=state_dir / "r", progress=False
    )
    assert result.real > 0.6
    error = result.standard_error(result.real, len(test[0]))
    assert abs(result.gan_train - result.real) < 0.08  # other training images, the same number
    assert abs(result.gan_test - result.real) < 6 * error  # other test images
    assert (result.samples, result.test_count) == (len(samples[0]), len(test[0]))


def test_the_training_images_as_samples_give_exactly_the_same(halves, state_dir):
    real, _, test = halves
    folders = dict(state_dir=state_dir / "b", real_state_dir=state_dir / "short")
    result = gan_train_test(*real, *real, *test, SHORTER, **folders, progress=False)
    assert result.gan_train == result.real > 0.15  # Ten classes: the training has begun.


def test_classifiers_are_float32_whatever_keras_default_is():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = residual_network((8, 8, 1), 2, 8, np.zeros(1), np.ones(1), 0)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}


def test_shuffled_labels_give_chance(halves, state_dir):
    real, (images, labels), test = halves
    shuffled = np.random.default_rng(0).permutation(labels)
    result = gan_train_test(
        images,
        shuffled,
        *real,
        *test,
        RECIPE,
        state_dir=state_dir / "c",
        real_state_dir=state_dir / "r",
        progress=False,
    )
    assert abs(result.gan_train - 0.1) < 0.06
    assert abs(result.gan_test - 0.1) < 6 * result.standard_error(0.1, len(images))
    assert result.real > 0.6


def test_an_interrupted_training_goes_on_bit_by_bit(halves, tmp_path, monkeypatch):
    (images, labels), _, _ = halves
    recipe = ClassifierConfig(depth=8, num_steps=9, batch_size=16, crop_padding=2, save_every=3)

    def weights(state_dir):
        return train_classifier(images[:50], labels[:50], 10, recipe, state_dir=state_dir, progress=False)

    whole = weights(tmp_path / "whole")

    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return augmented(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(gan_classification, "augmented", interrupted)
        with pytest.raises(KeyboardInterrupt):
            weights(tmp_path / "resumed")
    with np.load(tmp_path / "resumed" / "classifier.npz") as state:
        assert state["step"] == 3
    resumed = weights(tmp_path / "resumed")
    for a, b in zip(whole.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(UserError, match=r"another classifier \(data, shape differ"):
        train_classifier(images[:51], labels[:51], 10, recipe, state_dir=tmp_path / "resumed", progress=False)


def test_every_epoch_sees_every_image_once():
    rows = np.concatenate([gan_classification._batch_rows(50, 16, step, seed=3) for step in range(25)])
    for epoch in rows.reshape(8, 50):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(50))
    assert (rows[:50] != rows[50:100]).any()


def test_augmentation_shifts_and_flips():
    images = np.random.default_rng(0).integers(1, 256, (200, 5, 6, 3), np.uint8)
    random = np.random.default_rng(1)
    result = augmented(images, 2, True, random)
    assert result.shape == images.shape
    assert result.dtype == np.uint8
    padded = np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])
    ways = set()
    for image, source in zip(result, padded, strict=True):
        matches = [
            (row, column, flip)
            for row in range(5)
            for column in range(5)
            for flip in (1, -1)
            if np.array_equal(image, source[row : row + 5, column : column + 6][:, ::flip])
        ]
        assert len(matches) == 1
        ways.add(matches[0])
    assert len(ways) > 40  # of 50 ways
    np.testing.assert_array_equal(augmented(images, 0, False, random), images)


@pytest.mark.parametrize(("depth", "convolutions"), [(8, 7), (20, 19), (32, 31)])
def test_depth_counts_weighted_layers(depth, convolutions):
    model = residual_network((32, 32, 3), 10, depth, [0.0] * 3, [1.0] * 3, 0)
    assert sum("conv2d" in layer.name for layer in model.layers) == convolutions  # and one dense layer
    # Kernels, two numbers a channel of every normalisation, the dense layer; shortcuts have none. He et al. 2016,
    # table 6, round it: 0.27M at 20 layers, 0.46M at 32.
    widths = [3, 16]
    count = 64 * 10 + 10
    for width in (16, 32, 64):
        widths += [width] * ((depth - 2) // 3)
    for inputs, outputs in itertools.pairwise(widths):
        count += 9 * inputs * outputs + 2 * outputs
    assert sum(np.prod(w.shape) for w in model.trainable_weights) == count
    assert round(count / 1e6, 2) == {8: 0.08, 20: 0.27, 32: 0.46}[depth]


def test_normalisation_comes_from_the_training_images():
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 3), np.uint8)
    mean, variance = gan_classification._pixel_moments(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)))
    np.testing.assert_allclose(variance, images.var((0, 1, 2)))


def test_the_recipe_is_in_gin():
    try:
        gin.parse_config("ClassifierConfig.depth = 14\nClassifierConfig.drops = (0.6,)")
        config = ClassifierConfig()
        assert (config.depth, config.drops, config.momentum, config.weight_decay) == (14, (0.6,), 0.9, 2e-4)
    finally:
        gin.clear_config()
    assert ClassifierConfig().depth == 32


@pytest.mark.parametrize(
    ("images", "labels", "config", "message"),
    [
        (np.zeros((4, 8, 8, 1)), [0, 1, 0, 1], RECIPE, "must be uint8"),
        (np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0], RECIPE, "as many integer labels"),
        (np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 2], RECIPE, "0 to 1 is allowed"),
        (np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1], ClassifierConfig(depth=9), "6n . 2"),
    ],
)
def test_mistakes_are_one_clear_line(images, labels, config, message):
    with pytest.raises(UserError, match=message):
        train_classifier(images, np.array(labels), 2, config, progress=False)


@pytest.mark.parametrize("name", ["batch_size", "num_steps", "save_every"])
def test_a_recipe_without_steps_is_refused(name):
    with pytest.raises(ValueError, match=rf"ClassifierConfig\.{name} = 0 is not possible"):
        ClassifierConfig(**{name: 0})


def test_a_diverging_training_stops():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    config = ClassifierConfig(depth=8, num_steps=30, batch_size=4, learning_rate=1e30, drops=(), crop_padding=0)
    with pytest.raises(UserError, match=r"lower ClassifierConfig\.learning_rate"):
        train_classifier(images, np.arange(20) % 2, 2, config, progress=False)
