"""What torch-fidelity makes of a folder that `sample` has written."""

import numpy as np
import pytest
from PIL import Image
from torch_fidelity_peer import peer_extractor

import tf_pivae
from tf_pivae.data import bundled
from tf_pivae.metrics import image_scores
from tf_pivae.uses import sample


def _eigenvalues(product, most=64):
    """What `np.linalg.eigvals` finds besides zeros: those of a matrix of a rank below `most`, in its range."""
    base, _ = np.linalg.qr(product @ np.random.default_rng(0).normal(size=(len(product), most)))
    np.testing.assert_allclose(base @ (base.T @ product), product, rtol=0.0, atol=1e-9 * np.abs(product).max())
    return _EIGVALS(base.T @ product @ base)


_EIGVALS = np.linalg.eigvals


def test_torch_fidelity_finds_our_fid_in_the_folder(finished, tmp_path, inception, inception_archive, monkeypatch):
    pytest.importorskip("torch")
    torch_fidelity = pytest.importorskip("torch_fidelity")
    from tf_pivae.metrics.inception_weights import load_weights

    run_dir, _ = finished
    count = 12
    reference = bundled(image_size=16).test.images[:count]
    for i, image in enumerate(reference):
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / f"real/{i:02d}.png")
    sample(str(run_dir), f"{tmp_path}/samples/", num_samples=count, seed=1)
    samples = tf_pivae.load(run_dir).sample(count, seed=1)
    ours = image_scores(samples, reference, inception, ["fid"], allow_rank_deficient=True, progress=False)[0].value
    softmax = np.zeros((2048, 1008), np.float32), np.zeros(1008, np.float32)
    peer_extractor(load_weights(inception_archive), softmax, tmp_path / "peer.pth")
    monkeypatch.setattr(np.linalg, "eigvals", _eigenvalues)  # Of 2048x2048, a quarter of a minute.
    theirs = torch_fidelity.calculate_metrics(
        input1=f"{tmp_path}/samples",
        input2=f"{tmp_path}/real",
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        save_cpu_ram=True,  # No processes that read twelve images.
        feature_extractor_weights_path=f"{tmp_path}/peer.pth",
    )["frechet_inception_distance"]
    assert ours > 10
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
