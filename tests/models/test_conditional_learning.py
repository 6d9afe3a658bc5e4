"""A class-conditional model knows its classes: Bayes' rule over its bounds names what held-out images show."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.data import bundled, train_batches
from tf_pivae.models.hierarchical_vae import plain_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.training.trainer import Trainer

CLASSES = 10
STEPS = 400
HELD_OUT = 500


@pytest.fixture(scope="module")
def data():
    """The bundled part of Fashion-MNIST, 16x16."""
    return bundled(image_size=16)


@pytest.fixture(scope="module")
def model(data):
    """A class-conditional PiVAE after a short training by likelihood."""
    tf.keras.utils.set_random_seed(0)
    vae = functools.partial(plain_vae, widths=(16, 32, 64), top_channels=16, latent_channels=4)
    head = functools.partial(RealNVP, width=8, num_blocks=1, num_couplings=2)
    model = PiVAE(data.image_shape, vae=vae, flow=head, num_classes=CLASSES)
    trainer = Trainer(model)
    batches = iter(train_batches(data.train, 64, seed=0, with_labels=True))
    trainer.initialize(*(part.numpy() for part in next(batches)))
    step = tf.function(trainer.train_step, autograph=False)
    for _ in range(STEPS):
        assert step(next(batches))["skipped_generator"] == 0.0
    return model


@pytest.mark.slow
def test_the_right_label_has_the_higher_log_prob(model, data):
    """Held out images, the same noise for every label; binomial margins of five standard errors over chance."""
    test = data.test.take(HELD_OUT)
    log_prob = np.stack(
        [model.log_prob(test.images, 4, labels=np.full(HELD_OUT, label)) for label in range(CLASSES)], 1
    )
    rows = np.arange(HELD_OUT)
    right = test.labels
    wrong = (right + np.random.default_rng(0).integers(1, CLASSES, HELD_OUT)) % CLASSES
    better = np.mean(log_prob[rows, right] > log_prob[rows, wrong])
    assert better > 0.5 + 5.0 * np.sqrt(0.25 / HELD_OUT)
    top_1 = np.mean(log_prob.argmax(1) == right)
    assert top_1 > 0.1 + 5.0 * np.sqrt(0.09 / HELD_OUT)
    # Well over chance: a quarter of the way to certainty, and half of it for pairs.
    assert top_1 > 0.4
    assert better > 0.8


@pytest.mark.slow
def test_the_label_moves_samples_towards_its_class(model, data):
    """What a label changes in the mean of its samples points to what sets its class apart among real images."""
    samples = [model.sample(64, labels=np.full(64, label)).mean(0).ravel() for label in range(CLASSES)]
    real = [data.train.images[data.train.labels == label].mean(0).ravel() for label in range(CLASSES)]
    ours, theirs = (np.stack(means) - np.mean(means, 0) for means in (samples, real))
    nearest = (ours @ theirs.T).argmax(1)
    assert np.mean(nearest == np.arange(CLASSES)) >= 0.7  # Chance is 0.1.
