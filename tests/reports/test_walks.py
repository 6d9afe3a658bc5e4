"""Walks through the latents, beside what the model itself samples and reconstructs."""

import numpy as np
import pytest
import small_models
import tensorflow as tf
from small_models import SHAPE, assert_close

from tf_pivae.models.hierarchical_vae import plain_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.report import latent_walks


def _gan(image_shape, num_classes=0):
    return plain_vae(image_shape, widths=(4, 6), top_channels=5, latent_channels=0, num_classes=num_classes)


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(small_models.model(), scale=0.2)


@pytest.fixture(scope="module")
def conditional(randomize):
    return randomize(small_models.conditional(), scale=0.2)


@pytest.fixture(scope="module")
def gan(randomize):
    return randomize(PiVAE(SHAPE, vae=_gan), scale=0.2)


def test_walks_between_samples_begin_and_end_at_samples(model):
    walk = latent_walks.between_samples(model, rows=3, steps=4, seed=5).reshape(3, 4, *SHAPE)
    samples = model.sample(6, seed=5, sample_noise=0.0)
    assert_close(walk[:, 0], samples[0::2])
    assert_close(walk[:, -1], samples[1::2])
    assert (walk[:, 1] != walk[:, 0]).any(axis=(1, 2, 3)).all()


def test_walks_between_samples_of_classes(conditional):
    labels = np.array([0, 2])
    walk = latent_walks.between_samples(conditional, rows=2, steps=3, seed=1, labels=labels).reshape(2, 3, *SHAPE)
    samples = conditional.sample(4, seed=1, sample_noise=0.0, labels=np.repeat(labels, 2))
    assert_close(walk[:, 0], samples[0::2])
    assert_close(walk[:, -1], samples[1::2])


def test_great_circle_keeps_the_distribution():
    a, b = np.random.default_rng(0).normal(size=[2, 4, 2000]).astype(np.float32)
    points = latent_walks.great_circle(tf.constant(a), tf.constant(b), 5).numpy().reshape(4, 5, 2000)
    np.testing.assert_allclose(points[:, 0], a, atol=1e-6)
    np.testing.assert_allclose(points[:, -1], b, atol=1e-6)
    # The variance of 2000 normals scatters by sqrt(2 / 2000) = 0.032; on the straight line it would sink to 0.5.
    np.testing.assert_allclose(points.var(axis=-1), 1.0, atol=0.16)


def test_each_row_of_the_groups_changes_its_group_alone(model):
    """Built a second time from `vae.decode`: prior draws of the group by hand where all else stays."""
    names, walk = latent_walks.through_groups(model, steps=3, seed=2)
    assert names == model.vae.group_names
    walk = walk.reshape(len(names), 3, *SHAPE)
    first = model.sample(2, seed=2, sample_noise=0.0)
    for row in walk:
        assert_close(row[:1], first[:1])
        assert (row[-1] != row[0]).any()
    noise = latent_walks.prior_noise(model, 2, seed=2)
    swapped = {tag: value[1:] if tag == "latents/top" else value[:1] for tag, value in noise.items()}
    assert_close(walk[0, -1:], latent_walks.decode_noise(model, swapped))


def test_top_channels_are_those_that_change_the_image_most(model):
    chosen, walk = latent_walks.through_top_channels(model, rows=2, steps=3, seed=3)
    noise = latent_walks.prior_noise(model, 1, seed=3)
    changes = []
    for channel in range(3):
        ends = []
        for value in (-latent_walks.TOP_RANGE, latent_walks.TOP_RANGE):
            top = noise["latents/top"].numpy().copy()
            top[..., channel] = value
            ends.append(latent_walks.decode_noise(model, {**noise, "latents/top": tf.constant(top)}).astype(float))
        changes.append(np.abs(ends[1] - ends[0]).mean())
        if channel in chosen:
            row = walk.reshape(2, 3, *SHAPE)[list(chosen).index(channel)]
            assert_close(row[[0, -1]], np.concatenate(ends))
    assert list(chosen) == sorted(range(3), key=lambda channel: -changes[channel])[:2]


def test_a_generator_without_latents_below_the_top(gan):
    names, walk = latent_walks.through_groups(gan, steps=2)
    assert names == ["top"]
    assert_close(walk, gan.sample(2, sample_noise=0.0))
    chosen, walk = latent_walks.through_top_channels(gan, rows=9, steps=2)
    assert sorted(chosen) == list(range(5)), "no more rows than channels"
    assert len(walk) == 10
