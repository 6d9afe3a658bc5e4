"""Keras' own `fit`, `evaluate` and `predict` on a trainer, and Keras' callbacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_trainer import small_images, small_trainer

from tf_pivae.errors import UserError


@pytest.fixture(scope="module")
def trainer(randomize):
    return small_trainer(randomize, moving_average=True)


def values(trainer):
    return [np.array(v) for name, group in trainer.state.items() if name != "critic" for v in group]


def test_fit_takes_the_loops_steps(randomize):
    """Two steps of it, one after the other, give the weights and moments that two train steps give."""
    images = small_images(16)
    fitted, stepped = (small_trainer(randomize) for _ in range(2))
    history = fitted.fit(images, batch_size=8, shuffle=False, verbose=0)
    step = tf.function(lambda batch: stepped.train_step(batch), autograph=False)
    for i in (0, 8):
        metrics = step(tf.constant(images[i : i + 8]))
    assert history.history["bits_per_dim"] == pytest.approx([float(metrics["bits_per_dim"])], rel=1e-5)
    assert int(fitted.step) == int(stepped.step) == 2
    for one, other in zip(values(fitted), values(stepped), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_fit_takes_batches_of_any_size(randomize):
    """The last of an epoch may be smaller; a second call may bring others."""
    trainer = small_trainer(randomize)
    trainer.fit(small_images(13), batch_size=8, verbose=0)
    trainer.fit(small_images(6), batch_size=4, verbose=0)
    assert int(trainer.step) == 4
    batches = tf.data.Dataset.from_tensor_slices(small_images(13)).batch(8)
    history = trainer.fit(batches, epochs=2, shuffle=False, verbose=0)
    assert int(trainer.step) == 8
    assert np.isfinite(history.history["bits_per_dim"]).all()
    assert np.sum(history.history["skipped_generator"]) == 0


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_what_are_no_images_is_refused(trainer, method):
    images = small_images(8)
    call = getattr(trainer, method)
    with pytest.raises(ValueError, match="must be integers in"):
        call(images / np.float32(255.0), verbose=0)
    with pytest.raises(ValueError, match="must lie in"):
        call(images.astype(int) - 300, verbose=0)
    with pytest.raises(ValueError, match="`images` must be "):
        call(images[:, 1:], verbose=0)
    with pytest.raises(ValueError, match="give images"):
        call(None)
    batches = tf.data.Dataset.from_tensor_slices(images / np.float32(255.0)).batch(8)
    with pytest.raises(ValueError, match="images must be integers, such as uint8"):
        call(batches, verbose=0)


def test_callbacks_of_keras(trainer):
    """They see every batch, set the generator's learning rate, and stop by the score of held-out images."""
    bits = []
    watching = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: bits.append(logs["bits_per_dim"]))
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0)
    stopping = keras.callbacks.EarlyStopping("val_bits_per_dim", mode="min", min_delta=1e6)
    options = dict(batch_size=8, epochs=5, verbose=0, validation_data=(small_images(12, seed=5),))
    history = trainer.fit(small_images(16), callbacks=[watching, rates, stopping], **options)
    assert len(bits) == 2 * 2, "it stopped after the second epoch, without an improvement of a million bits"
    assert len(history.history["val_bits_per_dim"]) == 2
    assert float(trainer.generator_optimizer.learning_rate) == 0.0
    before = values(trainer)[0]
    trainer.fit(small_images(8), batch_size=8, verbose=0)
    np.testing.assert_array_equal(values(trainer)[0], before)


def test_predict_is_the_log_probability_that_evaluate_has_in_bits(trainer):
    images = small_images(11, seed=3)
    own = trainer.moving_average.log_prob(images, seed=trainer.seed)
    for batch_size in (4, 11):  # An image's noise does not depend on its batch.
        result = trainer.predict(images, batch_size=batch_size, verbose=0)
        np.testing.assert_allclose(result, own, rtol=1e-4)
        bits = trainer.evaluate(images, batch_size=batch_size, verbose=0, return_dict=True)["bits_per_dim"]
        assert bits == pytest.approx(-np.mean(own) / (16 * np.log(2)), rel=1e-5)


def test_images_have_no_weights(trainer):
    images = small_images(8)
    for method in (trainer.fit, trainer.evaluate):
        with pytest.raises(ValueError, match=r"`sample_weight` has no meaning here, where every image counts the same"):
            method(images, sample_weight=np.ones(8), verbose=0)
    with pytest.raises(ValueError, match=r"`class_weight` has no meaning here"):
        trainer.fit(images, class_weight={0: 1.0}, verbose=0)
    batches = tf.data.Dataset.from_tensors((images, np.zeros(8, int), np.ones(8)))
    with pytest.raises(ValueError, match=r"images have no weights here: give \(images,\) or \(images, labels\)"):
        trainer.evaluate(batches, verbose=0)


def test_batches_by_themselves(randomize):
    """They begin at the first row, whatever came before, and need no `compile`."""
    images = small_images(8)
    trainer, fitted = (small_trainer(randomize) for _ in range(2))
    expected = trainer.pivae.log_prob(images, 1, seed=trainer.seed)
    for _ in range(2):
        np.testing.assert_allclose(trainer.predict_on_batch(images), expected, rtol=1e-5)
        bits = trainer.test_on_batch(images, return_dict=True)["bits_per_dim"]
        assert float(bits) == pytest.approx(-np.mean(expected) / (16 * np.log(2)), rel=1e-5)
    trainer.train_on_batch(images)
    fitted.fit(images, batch_size=8, shuffle=False, verbose=0)
    for one, other in zip(values(trainer), values(fitted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="`sample_weight` has no meaning here"):
        trainer.test_on_batch(images, sample_weight=np.ones(8))


@pytest.mark.parametrize("option", [{"loss": "mse"}, {"optimizer": "adam"}, {"metrics": ["mae"]}])
def test_a_trainer_has_its_own_losses(trainer, option):
    with pytest.raises(ValueError, match=rf"`{next(iter(option))}` has no meaning here: losses and optimisers are"):
        trainer.compile(**option)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_arrays_alone_are_images(trainer, method):
    for value in ((small_images(8),), {"x": small_images(8)}, small_images(8).tolist()):
        with pytest.raises(ValueError, match=r"give images: uint8 \[N, H, W, C\], or a data set of batches"):
            getattr(trainer, method)(value, verbose=0)
    with pytest.raises(ValueError, match="give at least one image"):
        getattr(trainer, method)(small_images(8)[:0], verbose=0)


def test_weights_are_kept_and_a_file_of_keras_is_not_made(trainer, randomize, tmp_path):
    trainer.save_weights(tmp_path / "trainer.weights.h5")
    other = small_trainer(randomize, moving_average=True)
    other.fit(small_images(8), batch_size=8, verbose=0)
    other.load_weights(tmp_path / "trainer.weights.h5")
    for one, also in zip(values(trainer), values(other), strict=True):
        np.testing.assert_array_equal(one, also)
    with pytest.raises(UserError, match=r"train in a run directory \(tf_pivae\.train\)"):
        trainer.save(tmp_path / "trainer.keras")
