"""The likelihoods of the report: the model's own numbers, for the images that the names say."""

import numpy as np
import pytest

from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.data.bundled import bundled
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.pivae import PiVAE
from tf_pivae.report import histograms, likelihoods

SHAPE = (16, 16, 3)
LEVELS = 32


def _vae(image_shape, num_classes=0):
    return residual_vae(image_shape, stem_width=4, widths=(4, 6), top_channels=2, latent_channels=2,
                        num_classes=num_classes)  # fmt: skip


def _data(num_bins=LEVELS, shape=SHAPE, name="colours"):
    rng = np.random.default_rng(0)
    splits = [
        ImageSplit(rng.integers(0, num_bins // 2, [n, *shape]).astype(np.uint8), rng.integers(0, 2, n))
        for n in (70, 60)
    ]
    return ImageDataset(name, *splits, num_classes=2, num_bins=num_bins)


@pytest.fixture(scope="module")
def measured(randomize):
    model = randomize(PiVAE(SHAPE, vae=_vae, num_bins=LEVELS, num_classes=2), scale=0.1)
    return model, likelihoods.gather(model, _data(), {"inference_only": False}, count=55, seed=3)


def test_terms_add_up_to_the_models_bits_per_dim(measured):
    model, actual = measured
    test = _data().test.take(55)
    expected = model.bits_per_dim(test.images, seed=3, labels=test.labels)
    np.testing.assert_allclose(sum(actual.terms.values()), expected, rtol=1e-5)
    np.testing.assert_allclose(actual.sets["held-out images"], expected, rtol=1e-5)
    train = _data().train.take(55)
    expected = model.bits_per_dim(train.images, seed=3, labels=train.labels)
    np.testing.assert_allclose(actual.sets["training images"], expected, rtol=1e-5)
    assert [len(values) for values in actual.sets.values()] == [55] * 5


def test_sets_are_what_their_names_say():
    data = _data()
    sets = {name: images for name, images, _ in likelihoods.image_sets(data, 10, seed=0)}
    assert all(images.dtype == np.uint8 and images.shape == (10, *SHAPE) for images in sets.values())
    np.testing.assert_array_equal(sets["held-out images"], data.test.images[:10])
    np.testing.assert_array_equal(sets["training images"], data.train.images[:10])
    shuffled = sets["held-out images, pixels shuffled"]
    for image, original in zip(shuffled, data.test.images[:10], strict=True):
        assert (image != original).any()
        pixels, expected = (sorted(map(tuple, array.reshape(-1, 3).tolist())) for array in (image, original))
        assert pixels == expected, "the same pixels, channels kept together"
    noise = sets["uniform noise"]
    # All 32 levels, each with a share of 1/32 give or take four standard deviations.
    shares = np.bincount(noise.ravel(), minlength=LEVELS) / noise.size
    assert len(shares) == LEVELS
    np.testing.assert_allclose(shares, 1 / LEVELS, atol=4 * np.sqrt(1 / LEVELS / noise.size))
    fashion = sets["Fashion-MNIST, another data set"]
    np.testing.assert_array_equal(fashion, bundled(16).test.images[:10].repeat(3, -1) // 8)


def test_fashion_mnist_is_no_other_data_set_for_itself():
    names = [name for name, _, _ in likelihoods.image_sets(_data(name="fashion_mnist_subset"), 4, seed=0)]
    assert names == ["held-out images", "training images", "held-out images, pixels shuffled", "uniform noise"]


def test_fashion_mnist_comes_in_every_size():
    sets = {name: images for name, images, _ in likelihoods.image_sets(_data(256, (8, 8, 1)), 4, seed=0)}
    expected = bundled(32).test.images[:4].reshape(4, 8, 4, 8, 4, 1).mean((2, 4))
    np.testing.assert_allclose(sets["Fashion-MNIST, another data set"], expected, atol=0.5)


def test_another_data_set_is_brought_into_shape():
    """Colour to grey, 32 levels to 256, and 32x32 to 16x16; fewer images than are asked for."""
    other = _data(shape=(32, 32, 3), name="other")
    results = list(likelihoods.image_sets(_data(256, (16, 16, 1), "fashion_mnist"), 70, 0, other))
    ((images, labels),) = [(images, labels) for name, images, labels in results if name == "other, another data set"]
    assert images.dtype == np.uint8
    assert images.shape == (60, 16, 16, 1)
    assert len(labels) == 60
    grey = (other.test.images * (255 / 31) @ [0.299, 0.587, 0.114]).reshape(60, 16, 2, 16, 2, 1).mean((2, 4))
    np.testing.assert_allclose(images, grey, atol=1.6)  # Each of three steps rounds.


def test_summary_counts_what_is_not_finite():
    assert likelihoods.summary(np.array([1.0, 2.0, 3.0])) == "2.000 ± 0.577"
    assert likelihoods.summary(np.array([1.0, np.inf, 3.0])) == "2.000 ± 1.000 (1 images are not finite)"
    assert likelihoods.summary(np.array([np.nan])) == "never finite"
    assert likelihoods.summary(np.array([1.5])) == "1.500"


def test_scale_is_logarithmic_where_sets_lie_far_apart():
    near = histograms.common_edges([np.linspace(3, 4, 100), np.linspace(5, 6, 100)])
    assert not histograms.is_logarithmic(near)
    np.testing.assert_allclose(np.diff(near), np.diff(near)[0])
    far = histograms.common_edges([np.linspace(3, 4, 100), np.linspace(50, 60, 100)])
    assert histograms.is_logarithmic(far)
    np.testing.assert_allclose(np.diff(np.log(far)), np.diff(np.log(far))[0])
    for edges in (near, far):
        assert edges[0] < 3.1
        assert edges[-1] > 5.9
    # One image far out does not squeeze the others.
    assert histograms.common_edges([np.append(np.linspace(3, 4, 999), 1e6)])[-1] < 5
    assert len(histograms.common_edges([np.array([np.inf])])) == len(near)
