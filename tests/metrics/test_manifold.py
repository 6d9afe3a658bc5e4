import math

import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import image_scores, kernel_distance, manifold, manifold_scores
from tf_pivae.metrics.extraction import Extraction
from tf_pivae.metrics.feature_moments import moments_of


def gaussian(seed, count, dim=16, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(count, dim))


def by_definition(samples, real, k):
    """One image at a time: is it within the ball of one of the others?"""

    def radius(point, others):
        return sorted(np.linalg.norm(others - point, axis=1))[k]  # The nearest is the point itself.

    real_radii = [radius(point, real) for point in real]
    sample_radii = [radius(point, samples) for point in samples]
    hits = [[np.linalg.norm(s - r) <= radius for r, radius in zip(real, real_radii, strict=True)] for s in samples]
    recall = [
        any(np.linalg.norm(r - s) <= radius for s, radius in zip(samples, sample_radii, strict=True)) for r in real
    ]
    return (
        np.mean([any(row) for row in hits]),
        np.mean(recall),
        np.mean([sum(row) for row in hits]) / k,
        np.mean([any(row[i] for row in hits) for i in range(len(real))]),
    )


def test_images_that_come_twice_are_at_distance_0():
    """Rounding must not put them outside of balls of radius 0."""
    constant = np.abs(gaussian(0, 1, 2048))
    samples = np.repeat(constant, 50, 0)
    real = np.repeat(constant, 75, 0)
    assert manifold_scores(samples, real, 3) == (1.0, 1.0, 75 / 3, 1.0)
    distinct = np.abs(gaussian(1, 100, 512))
    repeated = np.random.default_rng(2).permutation(np.repeat(distinct, 5, 0))
    assert manifold_scores(distinct, repeated, 3)[::3] == (1.0, 1.0)
    assert manifold_scores(repeated, distinct, 3)[:2] == (1.0, 1.0)


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 1e8), (1e-9, 1.0), (1e100, 0.0)])
def test_scores_are_those_of_scaled_and_moved_features(scale, offset):
    samples = gaussian(0, 150, 64, 0.9)
    real = gaussian(1, 150, 64)
    expected = manifold_scores(samples, real, 3)
    assert manifold_scores(scale * samples + offset, scale * real + offset, 3) == expected


def test_features_that_overflow_are_refused():
    with pytest.raises(UserError, match="the squares of the features overflow"):
        manifold_scores(1e200 * gaussian(0, 20), 1e200 * gaussian(1, 20), 3)
    with pytest.raises(UserError, match="the kernel of the features overflows"):
        kernel_distance(1e60 * gaussian(0, 20), 1e60 * gaussian(1, 20))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_the_definitions_image_by_image(k, monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", 7)
    samples = gaussian(0, 40, 4, 0.8)
    real = gaussian(1, 53, 4)
    np.testing.assert_allclose(manifold_scores(samples, real, k), by_definition(samples, real, k), rtol=1e-12)


def test_precision_and_recall_equal_torch_fidelity():
    torch = pytest.importorskip("torch")
    prc = pytest.importorskip("torch_fidelity.metric_prc")
    samples = gaussian(0, 300, scale=0.7)
    real = gaussian(1, 260)
    ours = manifold_scores(samples, real, 3)
    options = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": False, "verbose": False}
    peer = prc.prc_features_to_metric(torch.from_numpy(samples), torch.from_numpy(real), **options)
    assert 0.0 < ours.recall < ours.precision < 1.0
    assert (ours.precision, ours.recall) == pytest.approx((peer["precision"], peer["recall"]), abs=1e-6)


def test_two_draws_of_one_distribution_have_the_expected_density_and_coverage():
    """Naeem et al. 2020, section 3.3: density 1; coverage 1 - (M-1)...(M-k) / ((2M-1)...(2M-k)) for M of both."""
    count = 200
    k = 5
    scores = [manifold_scores(gaussian(2 * s, count), gaussian(2 * s + 1, count), k) for s in range(40)]
    expected = 1.0 - math.prod((count - i) / (2 * count - i) for i in range(1, k + 1))
    for name, value in (("density", 1.0), ("coverage", expected)):
        drawn = [getattr(score, name) for score in scores]
        assert abs(np.mean(drawn) - value) < 4 * np.std(drawn) / math.sqrt(len(drawn)), name


def test_collapsed_samples_are_precise_and_scattered_ones_recall():
    real = gaussian(0, 400)
    collapsed = manifold_scores(0.05 * gaussian(1, 400), real, 3)
    assert collapsed.precision == 1.0
    assert max(collapsed.recall, collapsed.coverage) < 0.5
    scattered = manifold_scores(3.0 * gaussian(1, 400), real, 3)
    assert scattered.recall > 0.9
    assert max(scattered.precision, scattered.density) < 0.01
    swapped = manifold_scores(real, 0.05 * gaussian(1, 400), 3)
    assert (swapped.precision, swapped.recall) == (collapsed.recall, collapsed.precision)


def test_one_outlier_moves_density_less_than_precision():
    """The reason for density: the ball of an outlier among the real images is large, and takes in many samples."""
    real = gaussian(0, 300, 2)
    samples = 6.0 + gaussian(1, 300, 2)
    with_outlier = np.concatenate([real, [[9.0, 9.0]]])
    before = manifold_scores(samples, real, 3)
    after = manifold_scores(samples, with_outlier, 3)
    assert after.precision - before.precision > 0.5 > after.density - before.density


@pytest.mark.parametrize(
    ("samples", "real", "k", "message"),
    [
        (gaussian(0, 9), gaussian(1, 9, 4), 3, "16 and 4 dimensions"),
        (gaussian(0, 3), gaussian(1, 9), 3, "need more than 3 images .* got 3 and 9"),
        (gaussian(0, 9), gaussian(1, 9), 0, "must be positive"),
        (np.full([9, 16], np.nan), gaussian(1, 9), 3, "the samples' features: 9 of 9 rows hold NaN"),
    ],
)
def test_mistakes_are_one_clear_line(samples, real, k, message):
    with pytest.raises(UserError, match=message):
        manifold_scores(samples, real, k)


def test_scores_say_how_many_neighbours_and_images(fashion_network):
    def extraction(features):
        return Extraction(moments_of(features), features, None, fashion_network.name, fashion_network.checksum)

    samples = gaussian(0, 90).astype(np.float32)
    real = gaussian(1, 80).astype(np.float32)
    metrics = ["coverage", "precision", "density", "recall"]
    scores = image_scores(extraction(samples), extraction(real), fashion_network, metrics)
    three = manifold_scores(samples, real, 3)
    five = manifold_scores(samples, real, 5)
    assert [score.name for score in scores] == [f"{name.capitalize()}[fashion]" for name in metrics]
    assert [score.value for score in scores] == [five.coverage, three.precision, five.density, three.recall]
    assert scores[0].protocol.detail == "5 nearest neighbours among 90 and 80"
    with pytest.raises(UserError, match="precision: there is no reference"):
        image_scores(extraction(samples), None, fashion_network, ["precision"])
