"""Reference statistics that come with the package: whole, those of the images that they name, and used."""

import dataclasses

import numpy as np
import pytest
from isolation import FASHION_MNIST

from tf_pivae import data, loading, metrics
from tf_pivae.evaluate.measuring import reference_key
from tf_pivae.files import file_sha256, read_json
from tf_pivae.metrics.packaged_statistics import CHECKSUMS, FOLDER, packaged_moments
from tf_pivae.metrics.packaged_statistics.make_statistics import make


def refuse(images):
    raise AssertionError("the network was asked for features")


def demo():
    return data.bundled(16)


def fashion_mnist():
    if not FASHION_MNIST:
        pytest.skip("FASHION_MNIST does not name the folder of the complete data set (see CONTRIBUTING.md)")
    files = {"images": "t10k-images-idx3-ubyte.gz", "labels": "t10k-labels-idx1-ubyte.gz"}
    paths = [f"idx_images.test_{kind} = '{FASHION_MNIST}/{name}'" for kind, name in files.items()]
    trained = [path.replace("test_", "train_").replace("t10k", "train") for path in paths]
    return loading.configured_dataset(["datasets/fashion_mnist_28.gin"], [*paths, *trained])


@pytest.mark.parametrize(("load", "count"), [(demo, 2_000), (fashion_mnist, 10_000)])
def test_a_first_distance_needs_no_pass_over_the_reference(load, count, inception, tmp_path):
    dataset = load()
    network = dataclasses.replace(inception, function=refuse)
    result = metrics.reference_statistics(
        dataset.test.images, network, reference_key(dataset, "test"), cache_dir=tmp_path, progress=False
    )
    assert result.count == count
    assert result.moments.covariance.shape == (2048, 2048)
    np.testing.assert_array_equal(result.moments.covariance, result.moments.covariance.T)
    assert result.features.shape == (0, 2048)
    assert not list(tmp_path.iterdir())


def test_single_features_are_computed(inception, tmp_path):
    """Which no file has."""
    dataset = demo()
    network = dataclasses.replace(inception, function=refuse)
    with pytest.raises(AssertionError, match="asked for features"):
        metrics.reference_statistics(
            dataset.test.images,
            network,
            reference_key(dataset, "test"),
            cache_dir=tmp_path,
            keep_features=10,
            progress=False,
        )


def test_every_file_has_its_checksum():
    files = {path.name: file_sha256(path) for path in FOLDER.glob("*.npz")}
    assert read_json(FOLDER / CHECKSUMS) == files
    assert len(files) == 2


@pytest.mark.slow
def test_the_demo_s_are_those_of_its_images(inception):
    images = demo().test.images
    (file,) = FOLDER.glob("*2000*.npz")
    with np.load(file) as arrays:
        packaged = packaged_moments(file.name, str(arrays["key"]))
    computed = metrics.extract(images, inception, progress=False).moments
    # Two float32 networks, on different processors: sums of up to 3,888 products, 94 layers.
    np.testing.assert_allclose(packaged.mean, computed.mean, rtol=1e-3, atol=1e-5)
    assert metrics.frechet_distance_from_moments(packaged, computed, allow_rank_deficient=True) < 1e-3


@pytest.fixture
def made(tmp_path):
    """A cached file's moments, the name of the file that was made of it in `tmp_path`, and its key."""
    images = np.random.default_rng(0).integers(0, 256, (60, 4, 3, 1), np.uint8)
    pixels = metrics.callable_network(
        lambda batch: batch.reshape(len(batch), -1) / np.float32(255.0), "pixels", example=images, checksum="1"
    )
    key = metrics.ReferenceKey("noise", "test", "none", 60)
    cache = tmp_path / "cache"
    moments = metrics.reference_statistics(images, pixels, key, cache_dir=cache, progress=False).moments
    (file,) = cache.glob("*.npz")
    with np.load(file) as arrays:
        return moments, make(file, tmp_path).name, str(arrays["key"])


def test_a_file_holds_the_moments_that_were_cached(made, tmp_path):
    moments, name, key = made
    packaged = packaged_moments(name, key, tmp_path)
    assert packaged.count == moments.count == 60
    np.testing.assert_array_equal(packaged.mean, moments.mean)
    np.testing.assert_allclose(packaged.covariance, moments.covariance, rtol=2.0**-24, atol=0.0)  # float32's rounding


def test_what_is_missing_damaged_or_of_another_key_is_not_taken(made, tmp_path):
    _, name, key = made
    assert packaged_moments(name, key.replace("test", "train"), tmp_path) is None
    assert packaged_moments("other.npz", key, tmp_path) is None
    path = tmp_path / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-400] + bytes([whole[-400] ^ 1]) + whole[-399:])
    assert packaged_moments(name, key, tmp_path) is None
    path.write_bytes(whole)
    assert packaged_moments(name, key, tmp_path) is not None
    (tmp_path / CHECKSUMS).write_text("{}")
    assert packaged_moments(name, key, tmp_path) is None
    (tmp_path / CHECKSUMS).unlink()
    assert packaged_moments(name, key, tmp_path) is None
