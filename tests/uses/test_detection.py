"""Areas under the curves beside their definitions, and bootstrap intervals beside repeated draws."""

import itertools

import numpy as np
import pytest

from tf_pivae.uses.detection import separation


def pairs(usual, unusual):
    """AUROC by its definition: the share of pairs in which the unusual one is higher."""
    return np.mean([(b > a) + 0.5 * (b == a) for a, b in itertools.product(usual, unusual)])


def average_precision(usual, unusual):
    """The sum over thresholds of precision times what recall gains, as scikit-learn defines it."""
    thresholds = sorted({*usual, *unusual}, reverse=True)
    total = 0.0
    recall_before = 0.0
    for threshold in thresholds:
        result = np.sum(unusual >= threshold)
        false = np.sum(usual >= threshold)
        recall = result / len(unusual)
        total += (recall - recall_before) * result / (result + false)
        recall_before = recall
    return total


@pytest.mark.parametrize("kind", ["normal", "ties", "apart", "alike"])
def test_areas_are_their_definitions(kind):
    rng = np.random.default_rng(0)
    usual, unusual = {
        "normal": (rng.normal(size=40), rng.normal(1.0, 2.0, size=25)),
        "ties": (rng.integers(0, 4, 40).astype(float), rng.integers(1, 5, 25).astype(float)),
        "apart": (np.arange(5.0), np.arange(5.0) + 10),
        "alike": (np.zeros(6), np.zeros(3)),
    }[kind]
    result = separation(usual, unusual, resamples=20)
    np.testing.assert_allclose(result.auroc.value, pairs(usual, unusual), rtol=1e-12)
    np.testing.assert_allclose(result.aupr.value, average_precision(usual, unusual), rtol=1e-12)
    if kind == "apart":
        assert result.auroc == result.aupr == (1.0, 1.0, 1.0)
    if kind == "alike":
        assert result.auroc.value == 0.5
        np.testing.assert_allclose(result.aupr, 1 / 3)


def test_higher_values_are_the_unusual_ones():
    usual, unusual = np.random.default_rng(1).normal([[0.0]] * 50 + [[1.0]] * 50).reshape(2, 50)
    there = separation(usual, unusual, 10).auroc.value
    back = separation(unusual, usual, 10).auroc.value
    assert there > 0.6
    np.testing.assert_allclose(there + back, 1.0)


def test_intervals_are_as_wide_as_repeated_draws_are_spread():
    rng = np.random.default_rng(2)
    draws = [(rng.normal(size=100), rng.normal(1.0, size=60)) for _ in range(200)]
    for area in ("auroc", "aupr"):
        spread = np.std([getattr(separation(*draw, resamples=1), area).value for draw in draws])
        intervals = [getattr(separation(*draw, resamples=200, seed=3), area) for draw in draws[:20]]
        widths = [interval.high - interval.low for interval in intervals]
        np.testing.assert_allclose(np.mean(widths), 2 * 1.96 * spread, rtol=0.25)
        assert all(interval.low <= interval.value <= interval.high for interval in intervals)
