"""The Keras network beside the TorchScript one and torch-fidelity's, and a resize written from its definition."""

import numpy as np
import pytest
from torch_fidelity_peer import peer_extractor

from tf_pivae.errors import UserError

TOLERANCE = 1e-4


def tf1_bilinear(images, size=299):
    """TF1's resize, align_corners=False: output i samples the input at i * in / out; [B, H, W, C] in float64."""
    for axis in (1, 2):
        length = images.shape[axis]
        position = np.arange(size) * (length / size)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, length - 1)
        weight = (position - low).reshape([-1 if a == axis else 1 for a in range(4)])
        images = np.take(images, low, axis) * (1 - weight) + np.take(images, high, axis) * weight
    return images


def torchscript_features(archive, images):
    torch = pytest.importorskip("torch")
    network = torch.jit.load(str(archive)).eval()
    scaled = (tf1_bilinear(images.astype(np.float64)) - 128) / 128
    with torch.no_grad():
        return network(torch.from_numpy(scaled.transpose(0, 3, 1, 2)).float()).numpy()


def test_equals_torchscript_from_pixels_on(inception, inception_archive, cifar_images):
    features = inception(cifar_images)
    assert features.pool.shape == (20, 2048)
    assert features.logits is None
    peer = torchscript_features(inception_archive, cifar_images)
    assert np.abs(peer).max() > 1  # the features are not small, so the tolerance means something
    np.testing.assert_allclose(features.pool, peer, atol=TOLERANCE)


def test_another_resize_would_be_noticed(cifar_images):
    from tf_pivae.metrics.inception import preprocess

    tf = pytest.importorskip("tensorflow")
    ours = preprocess(tf.constant(cifar_images)).numpy()
    np.testing.assert_allclose(ours, (tf1_bilinear(cifar_images.astype(float)) - 128) / 128, atol=1e-5)
    modern = (tf.image.resize(cifar_images, [299, 299]).numpy() - 128) / 128
    assert np.abs(ours - modern).max() > 0.1


def test_grey_images_and_other_sizes(inception, cifar_images):
    grey = cifar_images[:2, :28, :24, :1]
    np.testing.assert_array_equal(inception(grey).pool, inception(np.repeat(grey, 3, -1)).pool)


def test_a_batch_does_not_mix_images(inception, cifar_images):
    np.testing.assert_allclose(inception(cifar_images[:3]).pool[1], inception(cifar_images[1:2]).pool[0], atol=1e-5)


def test_logits_and_features_equal_torch_fidelity(inception_archive, cifar_images, tmp_path):
    """With a softmax layer of random weights, which the archive lacks; through the .npz, which keeps it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity")
    from tf_pivae.metrics import inception_network
    from tf_pivae.metrics.inception_weights import load_weights, save_npz

    random = np.random.default_rng(0)
    softmax = (random.normal(0, 0.05, (2048, 1008)).astype(np.float32), random.normal(size=1008).astype(np.float32))
    weights = load_weights(inception_archive)
    save_npz(weights._replace(softmax=softmax), tmp_path / "inception.npz")
    network = inception_network(tmp_path / "inception.npz")
    assert network.has_logits
    features = network(cifar_images[:6])
    peer = peer_extractor(weights, softmax, tmp_path / "peer.pth", ["2048", "logits_unbiased"])
    with torch.no_grad():
        pool, logits = peer(torch.from_numpy(cifar_images[:6].transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(features.pool, pool.numpy(), atol=TOLERANCE)
    np.testing.assert_allclose(features.logits, logits.numpy(), atol=TOLERANCE)


def test_fast_features_are_close_and_not_taken_for_the_others(inception, inception_archive, cifar_images):
    from tf_pivae.metrics import extract, image_scores, inception_network

    fast = inception_network(inception_archive, fast=True)
    assert (fast.title("fid"), fast.checksum) == ("FID", inception.checksum)
    ours = fast(cifar_images).pool
    theirs = inception(cifar_images).pool
    error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
    assert 1e-4 < error < 0.03
    assert (ours.view(np.uint32) & 0xFFFF).any()  # means over pixels are not rounded
    extracted = extract(cifar_images, fast, progress=False)
    with pytest.raises(UserError, match=r"statistics come from .* with bfloat16 convolutions"):
        image_scores(extracted, cifar_images, inception, ["fid"], progress=False)
    (score,) = image_scores(extracted, cifar_images[::-1], fast, ["fid"], allow_rank_deficient=True, progress=False)
    assert "with bfloat16 convolutions" in str(score)
    assert score.value < 1e-6


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 4), np.uint8),
        np.zeros((0, 8, 8, 3), np.uint8),
    ],
)
def test_images_of_a_wrong_kind(inception, images):
    with pytest.raises(UserError, match="images must be uint8"):
        inception(images)
