"""Every data set of the paper on its builder's own feature specification, and TFDS without a network."""

import builtins
import socket
import time
from pathlib import Path
from typing import ClassVar

import gin
import numpy as np
import pytest
import requests

from tf_pivae import loading
from tf_pivae.data import image_ops, tfds_images, tfds_source
from tf_pivae.errors import UserError


def one_line(error):
    """gin adds a line of its own to errors raised within a configurable; commands print the first."""
    return "\n" not in str(error.value).partition("\n  In call to configurable")[0]


tfds = pytest.importorskip("tensorflow_datasets")

GIN = Path(__file__).resolve().parents[2] / "gin/datasets"

# The splits of the real data sets (TFDS's catalogue; it asks the network for them).
CIFAR = {"train": 50000, "test": 10000}
STL = {"unlabelled": 100000, "train": 5000, "test": 8000}
CELEBA = {"train": 162770, "validation": 19867, "test": 19962}
IMAGENET = {"train": 1281167, "validation": 50000}
LSUN = {"train": 3033042, "validation": 300}
# What the shipped fragments must give: shape, classes, and from these splits so many training and test images.
PAPER = {
    "cifar10": ((32, 32, 3), 10, CIFAR, (50000, 10000)),
    "stl10_48": ((48, 48, 3), 10, STL, (100000, 8000)),
    "stl10_96": ((96, 96, 3), 10, STL, (100000, 8000)),
    "celeba_crop178": ((96, 96, 3), 0, CELEBA, (196199, 6400)),
    "celeba_crop96": ((96, 96, 3), 0, CELEBA, (196199, 6400)),
    "imagenet64": ((64, 64, 3), 1000, IMAGENET, (1281167, 50000)),
    "lsun_bedroom64": ((64, 64, 3), 0, LSUN, (3033042, 300)),
}
OTHERS = {
    "celeba_labelled": ("celeb_a", {"crop": 96, "label_key": "attributes/Male"}, (96, 96, 3), 2),
    "fashion_mnist": ("fashion_mnist", {"pad_to": 32}, (32, 32, 1), 10),
    "grey_to_colour": ("mnist", {"pad_to": 32, "channels": 3}, (32, 32, 3), 10),
    "odd_sizes_to_grey": ("oxford_iiit_pet", {"crop": "central", "image_size": 20, "channels": 1}, (20, 20, 1), 37),
}


@pytest.fixture
def configure():
    """A function that reads a shipped data set fragment; gin is as before afterwards."""

    def configure(row):
        loading.register()
        gin.clear_config()
        gin.parse_config_file(str(GIN / f"{row}.gin"))

    yield configure
    gin.clear_config()


def test_every_data_set_of_the_paper_has_its_fragment():
    assert {path.stem for path in GIN.glob("*.gin")} >= {*PAPER, "fashion_mnist"}


@pytest.mark.parametrize("row", PAPER)
def test_data_sets_of_the_paper_on_mock_data(row, tmp_path, configure):
    configure(row)
    shape, num_classes, splits, counts = PAPER[row]
    with tfds.testing.mock_data(num_examples=5):
        dataset = gin.get_bindings("train")["dataset"](cache_dir=tmp_path)
    _check(dataset, shape, num_classes)
    # The splits that it names, in the real data set's.
    bound = gin.get_bindings("tfds_images")
    infos = tfds.core.SplitDict([_split_info(*split, tmp_path) for split in splits.items()])
    expressions = bound.get("train_split", "train"), bound.get("test_split", "test")
    assert tuple(infos[split].num_examples for split in expressions) == counts


def _split_info(name, size, folder):
    files = tfds.core.ShardedFileTemplate(folder, dataset_name="real", split=name, filetype_suffix="tfrecord")
    return tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0, filename_template=files)


@pytest.mark.parametrize("row", OTHERS)
def test_other_data_sets_on_mock_data(row, tmp_path):
    name, arguments, shape, num_classes = OTHERS[row]
    with tfds.testing.mock_data(num_examples=5):
        dataset = tfds_images(name, **arguments, cache_dir=tmp_path)
    _check(dataset, shape, num_classes)


def _check(dataset, shape, num_classes):
    assert dataset.image_shape == shape
    assert (len(dataset.train), len(dataset.test)) == (5, 5)
    assert dataset.num_classes == num_classes
    assert len(dataset.class_names) in (0, num_classes)
    assert dataset.train.images.std() > 1


def build_real(tmp_path, **features):
    """A small data set written to disk by TFDS itself: 40 images in two files a split, read through `data_dir`."""
    rng = np.random.default_rng(0)
    images = features.pop("images")
    feature = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(**features), "label": tfds.features.ClassLabel(num_classes=3)}
    )

    # Unregistered, it is known only by its files, as a data set is that was prepared elsewhere.
    with tfds.core.registered.skip_registration():

        class Real(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            name = "real"

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=feature)

            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples(images[:30]), "test": self._generate_examples(images[30:])}

            def _generate_examples(self, part):
                for i, image in enumerate(part):
                    yield i, {"image": image, "label": int(rng.integers(3))}

    builder = Real(data_dir=str(tmp_path))
    builder.download_and_prepare()
    return builder


@pytest.mark.parametrize(("dtype", "shape"), [(np.uint8, (12, 10, 3)), (np.uint16, (12, 10, 1))])
def test_data_written_by_tfds_itself(tmp_path, dtype, shape):
    images = np.random.default_rng(1).integers(0, np.iinfo(dtype).max + 1, (40, *shape), dtype)
    builder = build_real(tmp_path / "tfds", images=images, shape=shape, dtype=dtype)
    dataset = tfds_images("real", data_dir=str(tmp_path / "tfds"), crop=8, image_size=4, cache_dir=tmp_path / "cache",
                          train_split="train+test[:-4]", test_split="test[-4:]")  # fmt: skip
    assert (len(dataset.train), len(dataset.test)) == (36, 4)
    examples = [*tfds.as_numpy(builder.as_dataset("train")), *tfds.as_numpy(builder.as_dataset("test"))]
    preprocess = image_ops.Preprocess(crop=8, image_size=4)
    expected = np.stack([preprocess(example["image"]) for example in examples])
    np.testing.assert_array_equal(np.concatenate([dataset.train.images, dataset.test.images]), expected)
    np.testing.assert_array_equal(dataset.train.labels, [example["label"] for example in examples[:36]])
    with pytest.raises(UserError, match=r"no split 'valid'; it has train, test"):
        tfds_images("real", data_dir=str(tmp_path / "tfds"), crop=8, test_split="valid", cache_dir=tmp_path / "cache")


def test_messages(tmp_path):
    def refused(message, *args, **kwargs):
        with pytest.raises(UserError, match=message) as error:
            tfds_images(*args, cache_dir=tmp_path, data_dir=str(tmp_path), **kwargs)
        assert one_line(error)

    refused("no data set 'cifar11'; did you mean", "cifar11")
    refused("'lsun' with configuration 'bedrom'; did you mean bedroom", "lsun/bedrom", image_size=64)
    refused("no feature 'picture'; it has id, image, label", "cifar10", image_key="picture")
    refused("no feature 'attributes/Mal'", "celeb_a", crop=96, label_key="attributes/Mal")
    refused("is ClassLabel, not an image", "cifar10", image_key="label")
    refused("differ in size: set tfds_images.image_size", "lsun/bedroom")
    refused("crop must be", "cifar10", crop="middle")


def test_no_network_is_one_line_soon(tmp_path, monkeypatch, capfd):
    pytest.importorskip("importlib_resources")

    def no_network(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    capfd.readouterr()
    start = time.monotonic()
    with pytest.raises(UserError, match=r"tfds_images\.data_dir") as error:
        tfds_images("cifar10", data_dir=str(tmp_path / "tfds"), cache_dir=tmp_path / "cache")
    assert time.monotonic() - start < 20
    assert one_line(error)
    assert "Retrying" not in "".join(capfd.readouterr())


def test_a_silent_server_is_one_line_soon(tmp_path, monkeypatch):
    """It takes connections and never answers; TFDS would wait for ever."""
    monkeypatch.setattr(tfds_source, "_READ_SECONDS", 0.2)
    request = requests.Session.request
    with socket.create_server(("127.0.0.1", 0)) as server:

        class SilentServer(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.0.0")
            url_infos: ClassVar = {}

            def _info(self):
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict({"image": tfds.features.Image(shape=(8, 8, 3))})
                )

            def _split_generators(self, dl_manager):
                dl_manager.download(f"http://127.0.0.1:{server.getsockname()[1]}/images.zip")

            def _generate_examples(self):
                yield from ()

        start = time.monotonic()
        with pytest.raises(UserError, match=r"cannot download silent_server .*Read timed out") as error:
            tfds_images("silent_server", data_dir=str(tmp_path / "tfds"), cache_dir=tmp_path / "cache")
    assert time.monotonic() - start < 20
    assert one_line(error)
    assert requests.Session.request is request


def test_a_prepared_data_set_needs_neither_tfds_nor_tensorflow(tmp_path, monkeypatch):
    with tfds.testing.mock_data(num_examples=3):
        tfds_images("cifar10", cache_dir=tmp_path)
    real_import = builtins.__import__

    def no_tensorflow(name, *args, **kwargs):
        assert not name.startswith("tensorflow"), name
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_tensorflow)
    assert len(tfds_images("cifar10", cache_dir=tmp_path).train) == 3
