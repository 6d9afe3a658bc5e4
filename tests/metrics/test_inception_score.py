import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import inception_score


def logits(seed=0, count=503, classes=12, scale=3.0):
    return (scale * np.random.default_rng(seed).normal(size=(count, classes))).astype(np.float32)


def test_mutual_information_of_one_split():
    """log IS is the mutual information of image and class: H(mean p) - mean H(p)."""
    values = logits().astype(float)
    p = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    entropy = lambda q: -(q * np.log(q)).sum(-1)  # noqa: E731
    expected = np.exp(entropy(p.mean(0)) - entropy(p).mean())
    score = inception_score(values, 1)
    np.testing.assert_allclose(score.mean, expected, rtol=1e-10)
    assert score.std == 0


def test_bounds():
    certain = np.tile(1e4 * np.eye(10), (7, 1))
    np.testing.assert_allclose(inception_score(certain, 7).mean, 10, rtol=1e-12)
    np.testing.assert_allclose(inception_score(np.ones((30, 10)), 3).mean, 1, rtol=1e-12)


@pytest.mark.parametrize("splits", [1, 10, 7])
def test_equals_torch_fidelity(splits):
    torch = pytest.importorskip("torch")
    isc = pytest.importorskip("torch_fidelity.metric_isc")
    values = logits()
    for shuffle_seed in (None, 2020):
        peer = isc.isc_features_to_metric(
            torch.from_numpy(values), splits=splits, shuffle=shuffle_seed is not None, rng_seed=shuffle_seed
        )
        ours = inception_score(values, splits, shuffle_seed=shuffle_seed)
        np.testing.assert_allclose(ours.mean, peer["inception_score_mean"], rtol=1e-6)
        np.testing.assert_allclose(ours.std, peer["inception_score_std"], rtol=1e-6, atol=1e-12)


def test_mistakes_are_one_clear_line():
    with pytest.raises(UserError, match="NaN"):
        inception_score(logits() * np.nan)
    with pytest.raises(UserError, match="10 splits of 9 logits"):
        inception_score(logits(count=9))
    with pytest.raises(UserError, match="array"):
        inception_score(np.zeros(10))
