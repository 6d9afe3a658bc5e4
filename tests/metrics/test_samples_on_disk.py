"""What torch-fidelity makes of a folder that `sample` has written."""

import numpy as np
import pytest
from PIL import Image
from shipped import RUN, held_out
from torch_fidelity_peer import peer_extractor

import tf_pivae
from tf_pivae.metrics import image_scores
from tf_pivae.uses import sample


def test_torch_fidelity_finds_our_fid_in_the_folder(tmp_path, inception, inception_archive):
    pytest.importorskip("torch")
    torch_fidelity = pytest.importorskip("torch_fidelity")
    from tf_pivae.metrics.inception_weights import load_weights

    count = 24
    reference = held_out()[:24]
    for i, image in enumerate(reference):
        (tmp_path / "real").mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(tmp_path / f"real/{i:02d}.png")
    sample(RUN, f"{tmp_path}/samples/", num_samples=count, seed=1)
    samples = tf_pivae.load(RUN).sample(count, seed=1)
    ours = image_scores(samples, reference, inception, ["fid"], allow_rank_deficient=True, progress=False)[0].value
    softmax = np.zeros((2048, 1008), np.float32), np.zeros(1008, np.float32)
    peer_extractor(load_weights(inception_archive), softmax, tmp_path / "peer.pth")
    theirs = torch_fidelity.calculate_metrics(
        input1=f"{tmp_path}/samples",
        input2=f"{tmp_path}/real",
        fid=True,
        cuda=False,
        cache=False,
        verbose=False,
        feature_extractor_weights_path=f"{tmp_path}/peer.pth",
    )["frechet_inception_distance"]
    assert ours > 10
    np.testing.assert_allclose(theirs, ours, rtol=1e-3)
