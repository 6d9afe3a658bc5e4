import os

import numpy as np
import pytest

from tf_pivae.errors import UserError
from tf_pivae.metrics import ReferenceKey, callable_network, extract, moments_of, reference_statistics

IMAGES = np.random.default_rng(0).integers(0, 256, (103, 4, 4, 3), np.uint8)
ARGUMENTS = {"batch_size": 10, "keep_features": 30, "keep_logits": True, "progress": False}


class Interruption(Exception):
    pass


def network(fail_at=None, checksum="1234", value=None):
    """Pixels as features; stops the pass at its `fail_at`-th batch."""
    calls = []

    def function(images):
        calls.append(len(images))
        if fail_at is not None and len(calls) == fail_at:
            raise Interruption
        pixels = images.reshape(len(images), -1).astype(np.float32)
        return pixels if value is None else pixels * value, pixels[:, :7]

    result = callable_network(function, "pixels", example=IMAGES, checksum=checksum)
    calls.clear()
    return result, calls


def assert_same(one, other):
    np.testing.assert_array_equal(one.moments.mean, other.moments.mean)
    np.testing.assert_array_equal(one.moments.covariance, other.moments.covariance)
    np.testing.assert_array_equal(one.features, other.features)
    np.testing.assert_array_equal(one.logits, other.logits)
    assert one.count == other.count


def sources():
    parts = np.split(IMAGES, [1, 4, 50, 51])
    return {
        "array": IMAGES,
        "list": parts,
        "generator": (part for part in parts),
        "function": lambda start: iter(np.array_split(IMAGES[start:], 3)),
    }


@pytest.mark.parametrize("kind", ["array", "list", "generator", "function"])
def test_every_source_gives_the_same_bits(kind):
    plain = extract(IMAGES, network()[0], **ARGUMENTS)
    assert_same(extract(sources()[kind], network()[0], **ARGUMENTS), plain)
    pixels = IMAGES.reshape(103, -1).astype(float)
    np.testing.assert_allclose(plain.moments.covariance, np.cov(pixels, rowvar=False), rtol=1e-10)
    np.testing.assert_array_equal(plain.logits, pixels[:, :7])


@pytest.mark.parametrize("kind", ["array", "list", "function"])
@pytest.mark.parametrize("fail_at", [3, 4, 8, 11])
def test_an_interrupted_pass_goes_on_bit_by_bit(tmp_path, kind, fail_at):
    path = tmp_path / "pass.npz"
    with pytest.raises(Interruption):
        extract(sources()[kind], network(fail_at)[0], state_path=path, save_every=2, **ARGUMENTS)
    assert path.exists()
    resumed, calls = network()
    result = extract(sources()[kind], resumed, state_path=path, save_every=2, **ARGUMENTS)
    assert_same(result, extract(IMAGES, network()[0], **ARGUMENTS))
    assert sum(calls) == 103 - (fail_at - 1) // 2 * 20  # images before the last save are not computed again
    assert [file.name for file in tmp_path.iterdir()] == ["pass.npz"]
    other, calls = network()
    assert_same(extract(sources()[kind], other, state_path=path, **ARGUMENTS), result)
    assert not calls  # It was finished, but nobody had kept the result.


def test_the_reservoir_is_a_uniform_sample():
    images = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    net = callable_network(lambda x: x.reshape(len(x), 1), "value", example=images)
    counts = np.zeros(60)
    for seed in range(400):
        sample = extract(images, net, batch_size=7, keep_features=20, seed=seed, progress=False).features[:, 0]
        assert len(set(sample)) == 20
        counts[sample.astype(int)] += 1
    expected = 400 * 20 / 60
    assert ((counts - expected) ** 2 / (expected * (2 / 3))).sum() < 100  # chi-squared, 59 degrees; P < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": IMAGES[:100]}, "images differ"),
        ({"net": network(checksum="9")[0]}, "checksum differ"),
        ({"key": "another run"}, "key differ"),
        ({"keep_features": 31}, "keep_features differ"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path, change, message):
    path = tmp_path / "pass.npz"
    with pytest.raises(Interruption):
        extract(IMAGES, network(5)[0], state_path=path, save_every=2, **ARGUMENTS)
    change = dict(change)
    images = change.pop("images", IMAGES)
    net = change.pop("net", network()[0])
    with pytest.raises(UserError, match=message):
        extract(images, net, state_path=path, **(ARGUMENTS | change))


def _link(path):
    np.savez(path.with_name("other.npz"), fingerprint="{}")
    path.symlink_to("other.npz")


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(b"PK\x03\x04 cut off"),
        lambda path: np.savez(path, fingerprint="no JSON"),
        lambda path: np.savez(path, fingerprint="[]"),
        lambda path: np.savez(path, mean=np.zeros(3)),
        lambda path: np.savez_compressed(path, fingerprint="{}", mean=np.zeros(10**6)),
        os.mkfifo,
        os.mkdir,
        _link,
    ],
)
def test_a_damaged_state_is_refused(make, tmp_path):
    """It lies in a run, which somebody else may have made."""
    make(tmp_path / "pass.npz")
    with pytest.raises(UserError, match=r"not a readable state of a pass over images [^\n]*: delete it to start again"):
        extract(IMAGES, network()[0], state_path=tmp_path / "pass.npz", **ARGUMENTS)


@pytest.mark.parametrize(
    ("images", "net", "message"),
    [
        (IMAGES[:0], network()[0], "no images"),
        ([], network()[0], "no images"),
        (IMAGES, network(value=np.nan)[0], "NaN"),
        (IMAGES[:1], network()[0], "at least 2"),
        ([IMAGES[:3], IMAGES[:3, :2]], network()[0], "different sizes"),
        ([IMAGES[0]], network()[0], "batches"),
        (IMAGES.astype(np.float32), network()[0], "uint8"),
    ],
)
def test_mistakes_are_one_clear_line(images, net, message):
    with pytest.raises(UserError, match=message):
        extract(images, net, **ARGUMENTS)


# --- reference statistics ---

KEY = ReferenceKey("noise", "test", "none", 103)


def cached(path, key=KEY, images=IMAGES, net=None, **arguments):
    net, calls = net or network()
    result = reference_statistics(images, net, key, cache_dir=path, keep_features=30, progress=False, **arguments)
    return result, len(calls)


def test_reference_is_computed_once_per_key(tmp_path):
    first, calls = cached(tmp_path)
    assert calls == 2  # batches of 100
    again, calls = cached(tmp_path, images=None)  # the images are not even looked at
    assert calls == 0
    np.testing.assert_array_equal(first.moments.covariance, again.moments.covariance)
    np.testing.assert_array_equal(first.features, again.features)
    np.testing.assert_allclose(first.moments.mean, moments_of(IMAGES.reshape(103, -1)).mean)
    for change in (
        {"key": ReferenceKey("noise", "train", "none", 103)},
        {"net": network(checksum="77")},
        {"key": ReferenceKey("noise", "test", "crop", 103)},
        {"keep_logits": True},
        {"seed": 1},
    ):
        assert cached(tmp_path, **change)[1] == 2
    assert not list(tmp_path.glob("*.state")) + list(tmp_path.glob("*.partial"))


def test_damaged_or_foreign_cache_files_are_made_again(tmp_path):
    cached(tmp_path)
    (file,) = tmp_path.glob("*.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[:500])
    assert cached(tmp_path)[1] == 2
    with np.load(file) as arrays:
        foreign = {**arrays, "key": np.array("{}")}
    np.savez(file, **foreign)
    assert cached(tmp_path)[1] == 2
    assert cached(tmp_path)[1] == 0


def test_reference_mistakes(tmp_path):
    with pytest.raises(UserError, match="103 images instead of 104"):
        cached(tmp_path, key=ReferenceKey("noise", "test", "none", 104))
    with pytest.raises(UserError, match="give the network a checksum"):
        cached(tmp_path, net=network(checksum="unverified"))
