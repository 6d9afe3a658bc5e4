"""Scores of images: folders, protocols, what FID must react to, and Table 7's pattern on real images."""

import itertools

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from tf_pivae.errors import UserError
from tf_pivae.metrics import (
    callable_network,
    extract,
    frechet_distance,
    image_scores,
    images_from_folder,
    real_subsets,
)


def noisy(images, sigma):
    noise = np.random.default_rng(0).normal(0, sigma, images.shape)
    return np.clip(np.rint(images + noise), 0, 255).astype(np.uint8)


def blurred(images, sigma):
    return np.rint(scipy.ndimage.gaussian_filter(images.astype(float), (0, sigma, sigma, 0))).astype(np.uint8)


def fid(samples, reference, network, **arguments):
    return image_scores(samples, reference, network, ["fid"], progress=False, **arguments)[0].value


def assert_grows(values):
    assert all(low < high for low, high in itertools.pairwise(values)), values


# --- the true Inception network ---


def test_true_fid_is_zero_on_itself_and_grows_with_noise_and_blur(inception):
    from tf_pivae.data import bundled

    images = bundled(image_size=32).train.images[:10]
    reference = extract(images, inception, keep_features=10, progress=False)
    distances = {
        name: [fid(samples, reference, inception, allow_rank_deficient=True) for samples in varied]
        for name, varied in {
            "noise": [noisy(images, s) for s in (5, 20, 60)],
            "blur": [blurred(images, s) for s in (0.5, 2)],
        }.items()
    }
    itself = frechet_distance(reference.features, reference.features, allow_rank_deficient=True)
    assert itself < 1e-3
    for values in distances.values():
        assert_grows([itself, *values])
        assert values[0] > 1


def test_true_fid_names_and_protocol(inception, cifar_images):
    with pytest.raises(UserError, match="fewer than the 2048 feature dimensions"):
        image_scores(cifar_images, cifar_images, inception, ["fid"], progress=False)
    scores = image_scores(
        cifar_images,
        cifar_images,
        inception,
        allow_rank_deficient=True,
        num_subsets=3,
        subset_size=10,
        reference_name="cifar10/test",
        progress=False,
    )
    # The archive has no logits, so no Inception Score.
    assert [score.name for score in scores] == ["FID", "KID", "Precision", "Recall", "Density", "Coverage"]
    assert [score.value for score in scores[2:4]] == [1.0, 1.0]  # Each set lies within itself.
    assert scores[0].value < 1e-3
    protocol = scores[0].protocol
    assert (protocol.samples, protocol.reference, protocol.reference_count) == (20, "cifar10/test", 20)
    assert protocol.checksum.startswith("7ff4a85c")
    assert "299" in protocol.resize
    assert "3 subsets of 10" in scores[1].protocol.detail
    with pytest.raises(UserError, match="Inception Score needs logits"):
        image_scores(cifar_images, cifar_images, inception, ["inception_score"], progress=False)


# --- a network that knows Fashion-MNIST ---


def test_distance_is_zero_on_itself_and_grows_with_noise_blur_and_missing_classes(fashion, fashion_network):
    images = fashion.test.images
    labels = fashion.test.labels
    reference = extract(images, fashion_network, progress=False)
    itself = fid(images, reference, fashion_network)
    assert itself < 1e-3
    assert_grows([itself, *(fid(noisy(images, sigma), reference, fashion_network) for sigma in (4, 10, 25, 60))])
    assert_grows([itself, *(fid(blurred(images, sigma), reference, fashion_network) for sigma in (0.4, 0.8, 1.6))])
    # The same number of images of fewer and fewer classes, so that nothing but coverage changes.
    others = fashion.train.images
    other_labels = fashion.train.labels
    assert_grows(
        [fid(others[other_labels < classes][:800], reference, fashion_network) for classes in (10, 8, 6, 4, 2)]
    )
    assert len(np.unique(labels)) == 10


def test_pattern_of_table_7(fashion, fashion_network):
    """IS hardly moves until most images are gone; FID grows, but stays far below that of slightly worse images."""
    images = fashion.train.images
    counts = [int(len(images) * part) for part in (1, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)]
    studies = [
        real_subsets(images, counts, fashion_network, seed, name="fashion/train", progress=False) for seed in range(5)
    ]
    rows = studies[0]
    assert [row.count for row in rows] == counts
    # Means over seeds: with as few images as here, one subset may be luckier than a larger one.
    distances = np.mean([[row.fid.value for row in study] for study in studies], axis=0)
    assert distances[0] < 1e-3
    assert_grows(distances)
    scores = np.mean([[row.inception_score.value for row in study] for study in studies], axis=0)
    assert np.abs(scores[:5] / scores[0] - 1).max() < 0.02
    worse = fid(noisy(images, 10), extract(images, fashion_network, progress=False), fashion_network)
    assert distances[4] < 0.1 * worse  # a fifth of the images against noise that one hardly sees
    assert rows[3].fid.protocol.reference == "fashion/train"
    assert rows[3].fid.name == "Frechet[fashion]"


def test_subsets_that_cannot_be_drawn(fashion, fashion_network):
    with pytest.raises(UserError, match="cannot be drawn from 100"):
        real_subsets(fashion.test.images[:100], [101], fashion_network, progress=False)
    assert real_subsets(fashion.test.images[:100], [90], fashion_network, seed=-1, progress=False)


# --- folders ---

PIXELS = callable_network(
    lambda images: images.reshape(len(images), -1)[:, :3], "pixels", example=np.zeros((1, 6, 6, 3), np.uint8)
)


def write(folder, images, mode=None):
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
        (picture.convert(mode) if mode else picture).save(folder / f"{index:03d}.png")
    return folder


def random_images(seed, count=20, size=6, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def test_a_folder_against_a_folder_and_an_array(tmp_path):
    a = random_images(0)
    b = random_images(1)
    folders = write(tmp_path / "a", a), write(tmp_path / "b", b)
    np.testing.assert_array_equal(images_from_folder(folders[0]), a)
    expected = fid(a, b, PIXELS)
    assert fid(folders[0], folders[1], PIXELS) == expected
    assert fid(str(folders[0]), b, PIXELS) == expected


def test_grey_opaque_and_mixed_modes(tmp_path):
    grey = random_images(2, channels=1)
    np.testing.assert_array_equal(images_from_folder(write(tmp_path / "grey", grey)), grey)
    colour = random_images(3)
    np.testing.assert_array_equal(images_from_folder(write(tmp_path / "rgba", colour, "RGBA")), colour)
    write(tmp_path / "both", colour)
    Image.fromarray(grey[0, ..., 0]).save(tmp_path / "both" / "000.png")
    both = images_from_folder(tmp_path / "both")
    np.testing.assert_array_equal(both[0], np.repeat(grey[0], 3, -1))
    np.testing.assert_array_equal(both[1:], colour[1:])


def test_folders_that_cannot_be_scored(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        images_from_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no picture")
    with pytest.raises(UserError, match="holds no images"):
        fid(tmp_path / "empty", random_images(0), PIXELS)
    mixed = write(tmp_path / "mixed", random_images(0))
    Image.fromarray(random_images(0, size=7)[0]).save(mixed / "010.png")
    with pytest.raises(UserError, match=r"different sizes in .*000\.png is 6x6, 010\.png is 7x7"):
        fid(mixed, random_images(0), PIXELS)
    broken = write(tmp_path / "broken", random_images(0))
    (broken / "003.png").write_bytes((broken / "003.png").read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot read the image .*003\.png"):
        images_from_folder(broken)
    clear = write(tmp_path / "clear", random_images(0))
    Image.new("RGBA", (6, 6), (1, 2, 3, 128)).save(clear / "001.png")
    with pytest.raises(UserError, match=r"001\.png has transparent"):
        images_from_folder(clear)
    deep = write(tmp_path / "deep", random_images(0))
    Image.fromarray(np.zeros((6, 6), np.uint16)).save(deep / "001.png")
    with pytest.raises(UserError, match=r"001\.png is a I;16 image"):
        images_from_folder(deep)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["fld"]}, "unknown metrics"),
        ({"metrics": []}, "unknown metrics"),
        ({"reference": None, "metrics": ["fid"]}, "fid: there is no reference to compare with"),
        ({"metrics": ["kid"]}, "smaller subset_size"),
        ({"samples": random_images(0, count=2), "metrics": ["fid"]}, "fewer than the 3 feature dimensions"),
        ({"samples": random_images(0).astype(float)}, "uint8"),
    ],
)
def test_mistakes_are_one_clear_line(arguments, message):
    arguments = {"samples": random_images(0), "reference": random_images(1), "network": PIXELS} | arguments
    with pytest.raises(UserError, match=message):
        image_scores(progress=False, **arguments)


def test_statistics_of_another_network_are_refused(fashion_network, fashion):
    statistics = extract(fashion.test.images[:100], fashion_network, progress=False)
    with pytest.raises(UserError, match="come from fashion"):
        fid(random_images(0), statistics, PIXELS)
