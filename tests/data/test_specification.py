"""A data set's shape and classes before it is prepared are those that it has afterwards."""

from pathlib import Path

import gin
import numpy as np
import pytest
from PIL import Image

from tf_pivae import loading
from tf_pivae.data import bundled, idx_images, image_folder, npz_images, save_npz, tfds_images
from tf_pivae.data.bundled import CLASS_NAMES
from tf_pivae.data.specification import specification
from tf_pivae.errors import UserError

GIN = Path(__file__).resolve().parents[2] / "gin/datasets"
_LOCAL = ("fashion_mnist", "fashion_mnist_28", "people", "photographs")  # Not from TFDS.


@pytest.fixture(autouse=True)
def _clean_gin():
    loading.register()  # The files name `train`.
    gin.clear_config()
    yield
    gin.clear_config()


def _agrees(source, dataset):
    result = specification(source)
    assert result.image_shape == dataset.image_shape
    assert result.num_classes == dataset.num_classes
    return result


@pytest.mark.parametrize("name", sorted(path.stem for path in GIN.glob("*.gin") if path.stem not in _LOCAL))
def test_tfds(name, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    gin.parse_config_file(str(GIN / f"{name}.gin"))
    with tfds.testing.mock_data(num_examples=3):
        dataset = gin.get_bindings("train")["dataset"](cache_dir=tmp_path)
    _agrees(gin.get_bindings("train")["dataset"], dataset)


def test_tfds_images_that_are_higher_than_wide():
    pytest.importorskip("tensorflow_datasets")
    gin.bind_parameter("tfds_images.name", "celeb_a")
    assert specification(tfds_images).image_shape == (218, 178, 3)
    gin.bind_parameter("tfds_images.pad_to", (224, 192))
    assert specification(tfds_images).image_shape == (224, 192, 3)


def test_photographs(tmp_path):
    gin.parse_config_file(str(GIN / "photographs.gin"))
    gin.bind_parameter("image_folder.path", str(tmp_path / "absent"))
    assert specification(image_folder) == ("photographs", (32, 32, 3), 0, None, None)
    rng = np.random.default_rng(0)
    for i in range(6):
        picture = Image.fromarray(rng.integers(0, 256, (300, 540, 3), np.uint8))
        picture.save(tmp_path / f"{i}.jpg")
    gin.bind_parameter("image_folder.path", str(tmp_path))
    photographs = gin.get_bindings("train")["dataset"]
    dataset = photographs(cache_dir=tmp_path / "cache")
    _agrees(photographs, dataset)
    assert dataset.image_shape == (32, 32, 3)
    # Of each file 4x2 tiles at a fourth and 2x1 at an eighth of its size; at a sixteenth none.
    assert len(dataset.train.images) + len(dataset.test.images) == 6 * (4 * 2 + 2 * 1)
    assert len(dataset.test.images) % 10 == 0


def test_people(tmp_path):
    gin.parse_config_file(str(GIN / "people.gin"))
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split).mkdir()
        for i in range(count):
            Image.new("RGBA", (64, 64), (0, 0, 0, 255 * (i % 2))).save(tmp_path / split / f"{i}.png")
    gin.bind_parameter("image_folder.path", str(tmp_path / "train"))
    gin.bind_parameter("image_folder.test_path", str(tmp_path / "test"))
    people = gin.get_bindings("train")["dataset"]
    dataset = people(cache_dir=tmp_path / "cache")
    _agrees(people, dataset)
    assert dataset.image_shape == (32, 32, 3)
    assert sorted(image.mean() for image in dataset.test.images) == [0, 255]  # What is transparent is white.


@pytest.mark.parametrize("size", [16, 28, 32])
def test_bundled(size):
    gin.bind_parameter("bundled.image_size", size)
    assert _agrees(bundled, bundled(num_examples=(4, 4))).num_classes == 10


def test_reduced_levels():
    gin.parse_config("reduced_levels.dataset = @bundled\nreduced_levels.num_bins = 32\nbundled.image_size = 16")
    from tf_pivae.data import levels

    assert specification(levels.reduced_levels) == ("fashion_mnist_subset-32-levels", (16, 16, 1), 10, 8000, 2000)


@pytest.mark.parametrize("labelled", [True, False])
def test_npz(labelled, tmp_path):
    path = str(tmp_path / "images.npz")
    arrays = {f"{split}_images": np.zeros((3, 9, 9), np.uint8) for split in ("train", "test")}
    if labelled:
        arrays |= {f"{split}_labels": np.array([0, 4, 2]) for split in ("train", "test")}
    np.savez(path, **arrays)
    gin.parse_config(f"npz_images.path = {path!r}\nnpz_images.pad_to = 12")
    assert _agrees(npz_images, npz_images()).num_classes == (5 if labelled else 0)


def test_npz_with_levels(tmp_path):
    path = str(tmp_path / "images.npz")
    gin.parse_config("bundled.image_size = 16\nbundled.num_examples = (50, 50)")
    save_npz(path, bundled())
    gin.parse_config(f"npz_images.path = {path!r}")
    _agrees(npz_images, npz_images())


def _write_idx(folder, side):
    """Labelled images of side x side, bound to `idx_images`."""
    for split in ("train", "test"):
        for kind, data in (("images", np.zeros((3, side, side), np.uint8)), ("labels", np.array([1, 0, 6], np.uint8))):
            path = folder / f"{split}-{kind}"
            header = bytes([0, 0, 8, data.ndim]) + np.array(data.shape, ">u4").tobytes()
            path.write_bytes(header + data.tobytes())
            gin.bind_parameter(f"idx_images.{split}_{kind}", str(path))


def test_idx(tmp_path):
    _write_idx(tmp_path, 6)
    gin.parse_config("idx_images.pad_to = 8")
    assert _agrees(idx_images, idx_images()) == ("idx", (8, 8, 1), 7, 3, 3)


def test_fashion_mnist_is_known_without_its_files(tmp_path):
    gin.parse_config_file(str(GIN / "fashion_mnist.gin"))
    for key in ("train_images", "train_labels", "test_images", "test_labels"):
        gin.bind_parameter(f"idx_images.{key}", str(tmp_path / "absent"))
    declared = specification(idx_images)
    _write_idx(tmp_path, 28)
    assert _agrees(idx_images, idx_images()) == declared == ("fashion_mnist", (32, 32, 1), 10, None, None)
    assert gin.query_parameter("idx_images.class_names") == CLASS_NAMES
    _write_idx(tmp_path, 27)
    with pytest.raises(UserError, match=r"holds images of \[27, 27, 1\]: set idx_images.raw_shape = \(27, 27, 1\)"):
        idx_images()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_folder(mode, tmp_path):
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        path = tmp_path / f"images/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (12, 10), 7 if mode == "L" else (1, 2, 3)).save(path)
    gin.parse_config(f"image_folder.path = {str(tmp_path / 'images')!r}\nimage_folder.image_size = 8")
    gin.parse_config(f"image_folder.class_folders = True\nimage_folder.cache_dir = {str(tmp_path / 'cache')!r}")
    expected = specification(image_folder)
    assert not (tmp_path / "cache").exists()
    dataset = image_folder()
    assert dataset.name == expected.name
    assert _agrees(image_folder, dataset) == expected == ("images", (8, 8, 1 if mode == "L" else 3), 2, 3, 1)


def test_refuses_what_it_cannot_tell():
    with pytest.raises(UserError, match=r"--gin_param=tfds_images\.name="):
        specification(tfds_images)
    with pytest.raises(UserError, match="source of images"):
        specification(len)
