import numpy as np
import pytest
import scipy.linalg

from tf_pivae.errors import UserError
from tf_pivae.metrics import (
    Moments,
    StreamingMoments,
    frechet_distance,
    frechet_distance_from_moments,
    moments_of,
)


def features(seed, count=300, dim=24, rank=None):
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(rank or dim, dim)) * np.exp(random.normal(size=dim))
    return random.normal(size=(count, rank or dim)) @ mixing + random.normal(size=dim)


def scipy_distance(a, b):
    """Equation (9) as it is written: a general matrix square root of the product, real part."""
    cov_a = np.cov(a, rowvar=False)
    cov_b = np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)


def low_rank_distance(a, b):
    """Equation (9) of sets with fewer samples than dimensions, from their small centred Gram matrices.

    The square root of C_a C_b has the trace of the singular values of X Y^T, X and Y being the centred samples.
    """
    x, y = ((s - s.mean(0)) / np.sqrt(len(s) - 1) for s in (a, b))
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * scipy.linalg.svdvals(x @ y.T).sum()


def test_equals_scipy():
    a = features(0)
    b = features(1, count=400)
    np.testing.assert_allclose(frechet_distance(a, b), scipy_distance(a, b), rtol=1e-6)


def test_is_symmetric():
    a = features(0)
    b = features(1, count=400)
    np.testing.assert_allclose(frechet_distance(a, b), frechet_distance(b, a), rtol=1e-10)


def test_rank_deficient_equals_scipy():
    # enough samples, but on a plane
    a = features(2, rank=7)
    b = features(3, rank=11)
    np.testing.assert_allclose(frechet_distance(a, b), scipy_distance(a, b), rtol=1e-6)


def test_fewer_samples_than_dimensions_equals_scipy_and_gram_matrices():
    a = features(4, count=15)
    b = features(5, count=20)
    distance = frechet_distance(a, b, allow_rank_deficient=True)
    np.testing.assert_allclose(distance, scipy_distance(a, b), rtol=1e-6)
    np.testing.assert_allclose(distance, low_rank_distance(a, b), rtol=1e-10)


def test_closed_form_of_diagonal_gaussians():
    a = Moments(100, np.zeros(3), np.diag([1.0, 4.0, 0.0]))
    b = Moments(100, np.array([1.0, 0.0, 2.0]), np.diag([9.0, 1.0, 25.0]))
    expected = 1 + 4 + (1 - 3) ** 2 + (2 - 1) ** 2 + 25
    np.testing.assert_allclose(frechet_distance_from_moments(a, b), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 0.5], [-0.5, 1.0]], "not symmetric"),
        ([[1.0, 0.0], [0.0, -2.0]], "larger than every variance"),
        ([[0.0, 1.0], [1.0, 0.0]], "larger than every variance"),
        ([[1.0, 0.0], [0.0, -0.5]], "eigenvalue -0.5"),
        ([[1.0, 0.0, 0.9], [0.0, 1.0, 0.9], [0.9, 0.9, 1.0]], "eigenvalue -0.273"),
    ],
)
def test_what_is_no_covariance(covariance, message):
    good = Moments(100, np.zeros(len(covariance)), np.eye(len(covariance)))
    bad = good._replace(covariance=np.array(covariance))
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(UserError, match=message):
            frechet_distance_from_moments(*pair)


def test_a_covariance_kept_in_float32():
    a, b = (moments_of(features(seed, rank=7)) for seed in (0, 1))
    rounded = [m._replace(covariance=m.covariance.astype(np.float32)) for m in (a, b)]
    expected = frechet_distance_from_moments(a, b)
    np.testing.assert_allclose(frechet_distance_from_moments(*rounded), expected, rtol=1e-3)


def test_both_ways_to_a_factor_agree(monkeypatch):
    from tf_pivae.metrics import frechet

    a = features(20, dim=60)
    b = features(21, dim=60)
    by_cholesky = frechet_distance(a, b)
    monkeypatch.setattr(frechet, "CHOLESKY_LIMIT", np.inf)
    np.testing.assert_allclose(frechet_distance(a, b), by_cholesky, rtol=1e-11)


def test_few_samples_by_either_way_to_a_factor_agree(monkeypatch):
    from tf_pivae.metrics import frechet

    a = features(22, count=15, dim=60)
    b = features(23, count=20, dim=60)
    assert frechet._pivoted_factor(np.cov(a, rowvar=False)).shape == (60, 14)
    pivoted = frechet_distance(a, b, allow_rank_deficient=True)
    monkeypatch.setattr(frechet, "_pivoted_factor", lambda covariance: None)
    np.testing.assert_allclose(frechet_distance(a, b, allow_rank_deficient=True), pivoted, rtol=1e-11)


@pytest.mark.parametrize("rank", [None, 5])
def test_a_set_against_itself_is_zero(rank):
    a = features(6, rank=rank)
    variance = np.trace(np.cov(a, rowvar=False))
    assert frechet_distance(a, a) < 1e-12 * variance
    assert frechet_distance(a, np.random.default_rng(0).permutation(a)) < 1e-10 * variance


def test_equals_torch_fidelity():
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    a = features(7)
    b = features(8)
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(s)) for s in (a, b)]
    peer = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(a, b), peer, rtol=1e-6)


def test_equals_torch_fidelity_rank_deficient():
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torch_fidelity.metric_fid")
    a = features(9, count=20, dim=64)
    b = features(10, count=30, dim=64)
    statistics = [fid.fid_features_to_statistics(torch.from_numpy(s)) for s in (a, b)]
    peer = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    np.testing.assert_allclose(frechet_distance(a, b, allow_rank_deficient=True), peer, rtol=1e-6)


def test_streaming_equals_batch():
    a = features(11, count=1000) + 1e4  # a large mean, which naive sums of squares lose digits to
    stream = StreamingMoments(a.shape[1])
    for part in np.array_split(a, [1, 8, 8, 500, 777]):
        stream.update(part)
    count, mean, covariance = stream.result()
    assert count == 1000
    np.testing.assert_allclose(mean, a.mean(0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(a, rowvar=False), rtol=1e-9, atol=1e-9)


def test_state_goes_through_a_file_bit_by_bit(tmp_path):
    a = features(13)
    whole = StreamingMoments(a.shape[1]).update(a[:100])
    np.savez(tmp_path / "state.npz", **whole.state())
    with np.load(tmp_path / "state.npz") as state:
        resumed = StreamingMoments.from_state(state)
    for stream in (whole, resumed):
        stream.update(a[100:])
    np.testing.assert_array_equal(whole.result().covariance, resumed.result().covariance)
    np.testing.assert_array_equal(whole.result().mean, resumed.result().mean)


def spoilt(value):
    a = features(14)
    a[3, 2] = value
    return a


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (spoilt(np.nan), "1 of 300 rows hold NaN"),
        (spoilt(np.inf), "NaN or infinity"),
        (features(15, count=1), "at least 2 samples"),
        (features(15, count=20), "20 samples, fewer than the 24 feature dimensions"),
        (features(15, dim=23), "23 and 24 dimensions"),
        (np.zeros(24), "an array"),
    ],
)
def test_mistakes_are_one_clear_line(a, message):
    with pytest.raises(UserError, match=message) as caught:
        frechet_distance(a, features(0))
    assert "\n" not in str(caught.value)
