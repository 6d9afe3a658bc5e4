import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import kernel_distance, kernel_distance_subsets


def features(seed, count, dim=16):
    random = np.random.default_rng(seed)
    return np.maximum(random.normal(size=(count, dim)) + 0.1 * seed, 0).astype(np.float32)


def direct(a, b):
    """The unbiased estimator, term by term."""
    a = a.astype(float)
    b = b.astype(float)
    k = lambda x, y: (x @ y / a.shape[1] + 1) ** 3  # noqa: E731
    same = lambda s: np.mean([k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j])  # noqa: E731
    return same(a) + same(b) - 2 * np.mean([k(x, y) for x in a for y in b])


def test_equals_every_term_added_up():
    a = features(0, 30)
    b = features(1, 41)
    np.testing.assert_allclose(kernel_distance(a, b), direct(a, b), rtol=1e-9)


def test_blocks_do_not_change_the_sum(monkeypatch):
    from tf_pivae.metrics import kernel

    a = features(0, 30)
    b = features(1, 41)
    whole = kernel_distance(a, b)
    monkeypatch.setattr(kernel, "BLOCK", 7)
    np.testing.assert_allclose(kernel_distance(a, b), whole, rtol=1e-10)


def test_is_unbiased_around_zero_for_one_distribution():
    values = [
        kernel_distance(
            features(0, 100) * 0 + np.random.default_rng(s).normal(size=(100, 16)),
            np.random.default_rng(1000 + s).normal(size=(100, 16)),
        )
        for s in range(200)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(200)
    assert min(values) < 0


def test_a_single_subset_of_everything_is_the_whole_set():
    a = features(0, 50)
    b = features(1, 50)
    result = kernel_distance_subsets(a, b, num_subsets=3, subset_size=50)
    np.testing.assert_allclose(result.mean, kernel_distance(a, b), rtol=1e-9)
    assert result.std < 1e-12


def test_equals_torch_fidelity_on_the_same_subsets():
    torch = pytest.importorskip("torch")
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    a = features(0, 300)
    b = features(2, 260)
    for seed in (2020, 7):
        peer = kid.kid_features_to_metric(
            torch.from_numpy(a).double(),
            torch.from_numpy(b).double(),
            kid_subsets=20,
            kid_subset_size=100,
            kid_kernel="poly",
            kid_kernel_poly_degree=3,
            kid_kernel_poly_gamma=None,
            kid_kernel_poly_coef0=1,
            rng_seed=seed,
            verbose=False,
        )
        ours = kernel_distance_subsets(a, b, num_subsets=20, subset_size=100, seed=seed)
        np.testing.assert_allclose(ours.mean, peer["kernel_inception_distance_mean"], rtol=1e-6)
        np.testing.assert_allclose(ours.std, peer["kernel_inception_distance_std"], rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "arguments", "message"),
    [
        (features(0, 40) * np.nan, {}, "NaN"),
        (features(0, 40), {"subset_size": 41}, "smaller subset_size"),
        (features(0, 1), {"subset_size": 2}, "at least 2 samples"),
        (features(0, 40, dim=5), {}, "5 and 16 dimensions"),
        (features(0, 40), {"num_subsets": 0}, "num_subsets >= 1"),
    ],
)
def test_mistakes_are_one_clear_line(a, arguments, message):
    with pytest.raises(UserError, match=message):
        kernel_distance_subsets(a, features(1, 60), **arguments)
