"""An export of a model of 6x10 images: signatures, files, both runtimes, both clients."""

import json
import shutil
import time
import urllib.request

import numpy as np
import pytest
import servers
import talking
import tensorflow as tf

from tf_pivae.bijectors.real_nvp import RealNVP
from tf_pivae.export import load
from tf_pivae.export.client import ServingError
from tf_pivae.export.write.saved_model import write_saved_model
from tf_pivae.export.write.signatures import Options
from tf_pivae.models.hierarchical_vae import residual_vae
from tf_pivae.models.pivae import PiVAE

SHAPE = (6, 10, 1)


def _vae(image_shape, num_classes):
    sizes = dict(stem_width=4, widths=(4, 6), top_channels=2, latent_channels=2)
    return residual_vae(image_shape, num_classes=num_classes, **sizes)


def _flow(image_shape):
    return RealNVP(image_shape, num_scales=2, num_couplings=1, num_blocks=1, width=4)


@pytest.fixture(scope="module")
def model(randomize):
    return randomize(PiVAE(SHAPE, vae=_vae, flow=_flow), scale=0.05)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("rectangles") / "served"
    write_saved_model(model, path / "1", Options(importance_samples=2))
    return path


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, [5, *SHAPE], dtype=np.uint8)


@pytest.fixture(scope="module")
def own(model, images):
    """The model's log-probabilities, [5]."""
    return np.concatenate([model.log_prob(image[None], 2) for image in images])


def test_a_version_of_larger_images_wants_a_new_server(folder, published, tmp_path):
    """How large a request may be was settled by the first one."""
    shutil.copytree(published.folders[0], tmp_path / "1")
    with servers.development(tmp_path) as server:
        shutil.copytree(folder / "1", tmp_path / ".2")
        (tmp_path / ".2").rename(tmp_path / "2")
        deadline = time.monotonic() + 60
        statuses = []
        while len(statuses) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
            with urllib.request.urlopen(f"{server.url}/v1/models/pivae") as response:
                statuses = json.load(response)["model_version_status"]
    states = {status["version"]: status for status in statuses}
    assert states["1"]["state"] == "AVAILABLE"
    assert states["2"]["state"] == "END"
    assert "its requests are larger than those of the model this server began with: restart" in str(states["2"])


@pytest.mark.parametrize("runtime", ["tensorflow", "openvino"])
def test_in_a_process(folder, model, images, own, runtime):
    exported = load(folder, runtime, batch_size=3)
    np.testing.assert_allclose(exported.log_prob(images).log_prob, own, rtol=1e-5)
    reconstructed = np.concatenate([model.reconstruct(image[None]) for image in images])
    assert talking.same(exported.decode(exported.encode(images)), reconstructed)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_over_a_wire(folder, images, own, protocol):
    files = [tf.io.encode_png(image).numpy() for image in images]
    with servers.development(folder) as server, talking.connect(server, protocol) as client:
        np.testing.assert_allclose(client.log_prob(images).log_prob, own, rtol=1e-5)
        np.testing.assert_allclose(client.log_prob_of_files(files).log_prob, own, rtol=1e-5)
        assert client.sample([1, 2]).shape == (2, *SHAPE)
        turned = tf.io.encode_png(images[0].transpose(1, 0, 2)).numpy()
        with pytest.raises(ServingError, match="an image of 6 rows, 10 columns and 1 channels"):
            client.log_prob_of_files([turned])
        with pytest.raises(ValueError, match=r"\[.*6, 10, 1\]"):
            client.log_prob(images.transpose(0, 2, 1, 3))
