"""Folders of images: splits, crops, tiles, and files that nobody should have put there."""

import io
import os
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tf_pivae.data import image_files, image_folder
from tf_pivae.errors import UserError


def noise(height, width, channels=3, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def save(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path, **options)
    return path


def make(tmp_path, count=10, **arguments):
    for i in range(count):
        save(tmp_path / "images" / f"{i % 3}" / f"{i}.png", noise(40, 50, seed=i))
    return image_folder(tmp_path / "images", **{"image_size": 16, "cache_dir": tmp_path / "cache", **arguments})


def rows(*splits):
    return {image.tobytes() for split in splits for image in split.images}


def test_central_crops_split_by_file(tmp_path):
    dataset = make(tmp_path, test_fraction=0.3)
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (7, 3, (16, 16, 3))
    assert len(rows(dataset.train, dataset.test)) == 10
    # The central 40x40 by PIL, whose BOX filter rounds twice.
    square = image_folder(tmp_path / "images", 20, test_fraction=0.3, cache_dir=tmp_path / "cache")
    ours = np.concatenate([square.train.images, square.test.images]).astype(int)
    for i in range(10):
        theirs = np.asarray(Image.fromarray(noise(40, 50, seed=i)[:, 5:45]).resize((20, 20), Image.Resampling.BOX))
        assert (np.abs(ours - theirs).max(axis=(1, 2, 3)) <= 1).sum() == 1
    assert rows(dataset.train, dataset.test) == rows(*[getattr(make(tmp_path, seed=1), s) for s in ("train", "test")])


def test_the_split_ignores_the_other_files_order_and_follows_the_seed(tmp_path):
    one = make(tmp_path / "a", test_fraction=0.3)
    two = make(tmp_path / "b", test_fraction=0.3)
    np.testing.assert_array_equal(one.test.images, two.test.images)
    other = make(tmp_path / "a", test_fraction=0.3, seed=1)
    assert rows(other.test) != rows(one.test)


def test_a_test_folder_and_classes(tmp_path):
    for i, kind in enumerate(("cat", "dog", "cat")):
        save(tmp_path / "train" / kind / f"{i}.png", np.full((20, 20), i * 10, np.uint8))
    save(tmp_path / "test" / "dog" / "x.png", np.full((20, 20), 77, np.uint8))
    dataset = image_folder(
        tmp_path / "train", 8, test_path=tmp_path / "test", class_folders=True, cache_dir=tmp_path / "cache"
    )
    assert dataset.class_names == ("cat", "dog")
    assert dict(zip(dataset.train.images[:, 0, 0, 0].tolist(), dataset.train.labels.tolist(), strict=True)) == {
        0: 0,
        10: 1,
        20: 0,
    }
    np.testing.assert_array_equal(dataset.test.labels, [1])
    assert dataset.image_shape == (8, 8, 1)


def test_classes_of_the_test_folder_alone_are_named(tmp_path, caplog):
    for part, kind in (("train", "cat"), ("train", "dog"), ("test", "dog"), ("test", "Dog")):
        save(tmp_path / part / kind / "x.png", np.full((20, 20), 77, np.uint8))
    image_folder(tmp_path / "train", 8, test_path=tmp_path / "test", class_folders=True, cache_dir=tmp_path / "cache")
    assert "test images are of classes that no training image is of: Dog." in caplog.text


def test_a_missing_test_folder_is_not_blamed_on_the_other(tmp_path):
    save(tmp_path / "train" / "x.png", np.full((20, 20), 77, np.uint8))
    with pytest.raises(UserError, match=r"there is no folder .*none: set image_folder\.test_path to a folder"):
        image_folder(tmp_path / "train", 8, test_path=tmp_path / "none", cache_dir=tmp_path / "cache")


def gradient(height, width):
    """Each pixel tells its own row and column."""
    row, column = np.mgrid[:height, :width]
    return np.stack([row, column, np.zeros_like(row)], -1).astype(np.uint8)


def test_grid_tiles_of_a_gradient(tmp_path):
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png", gradient(100, 70))
    dataset = image_folder(tmp_path / "images", 32, crop="tiles", test_fraction=0.5, cache_dir=tmp_path / "cache")
    assert dataset.train.images.shape == (6, 32, 32, 3)
    corners = [tuple(image[0, 0, :2].tolist()) for image in dataset.train.images]
    assert corners == [(r, c) for r in (2, 34, 66) for c in (3, 35)]
    for image, (row, column) in zip(dataset.train.images, corners, strict=True):
        np.testing.assert_array_equal(image, gradient(100, 70)[row : row + 32, column : column + 32])
    limited = image_folder(
        tmp_path / "images", 32, crop="tiles", max_tiles_per_image=4, test_fraction=0.5, cache_dir=tmp_path / "cache"
    )
    assert len(limited.train) == len(limited.test) == 4
    assert rows(limited.train) < rows(dataset.train)


def test_downscaled_and_random_tiles(tmp_path):
    for i in range(2):
        save(tmp_path / "images" / f"{i}.png", gradient(128, 200))
    arguments = {"test_fraction": 0.5, "cache_dir": tmp_path / "cache"}
    both = image_folder(tmp_path / "images", 32, crop="tiles", downscale=(2, 4), **arguments)
    assert len(both.train) == 2 * 3 + 1 * 1
    steps = np.diff(both.train.images[..., 0].astype(int), axis=1)
    assert (steps[:6] == 2).all()  # a ramp averaged by 2 climbs by 2 a pixel
    assert (steps[6:] == 4).all()
    random = image_folder(tmp_path / "images", 32, crop="random_tiles", max_tiles_per_image=50, **arguments)
    assert len(random.train) == 50
    for image in random.train.images:
        row, column = image[0, 0, :2].astype(int)
        np.testing.assert_array_equal(image, gradient(128, 200)[row : row + 32, column : column + 32])
    assert len(rows(random.train)) > 40
    assert rows(random.train) != rows(random.test)


def test_rectangles(tmp_path, caplog):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", gradient(70, 100))
    arguments = {"test_fraction": 0.5, "cache_dir": tmp_path / "cache"}
    tiles = image_folder(tmp_path / "images", (32, 24), crop="tiles", **arguments)
    assert tiles.train.images.shape == (2 * 2 * 4, 32, 24, 3)
    assert [tuple(image[0, 0, :2].tolist()) for image in tiles.train.images[:8]] == [
        (r, c) for r in (3, 35) for c in (2, 26, 50, 74)
    ]
    random = image_folder(tmp_path / "images", [32, 24], crop="random_tiles", max_tiles_per_image=9, **arguments)
    for image in random.train.images:
        row, column = image[0, 0, :2].astype(int)
        np.testing.assert_array_equal(image, gradient(70, 100)[row : row + 32, column : column + 24])
    central = image_folder(tmp_path / "images", (7, 20), **arguments)
    np.testing.assert_array_equal(central.train.images[0, :, 0, 0], 17 + 2 + 5 * np.arange(7))  # rows 17 to 51
    np.testing.assert_array_equal(central.train.images[0, 0, :, 1], 2 + 5 * np.arange(20))


def test_whole_files_as_they_are(tmp_path, caplog):
    for i in range(4):
        save(tmp_path / "images" / f"{i}.png", gradient(10, 17))
    save(tmp_path / "images" / "other.png", gradient(17, 10))
    arguments = {"crop": None, "test_fraction": 0.5, "cache_dir": tmp_path / "cache"}
    plain = image_folder(tmp_path / "images", **arguments)
    assert len(plain.train) + len(plain.test) == 4
    assert "other.png (17x10, where most are 10x17: set image_folder.image_size, or pad_to)" in caplog.text
    np.testing.assert_array_equal(plain.train.images[0], gradient(10, 17))
    padded = image_folder(tmp_path / "images", pad_to=(20, 20), **arguments)
    assert len(padded.train) + len(padded.test) == 5
    assert np.pad(gradient(17, 10), ((1, 2), (5, 5), (0, 0))).tobytes() in rows(padded.train, padded.test)
    exif = Image.Exif()
    exif[0x0112] = 6  # All of the usual size are to be turned.
    for i in range(4):
        save(tmp_path / "turned" / f"{i}.png", gradient(10, 17), exif=exif)
    np.testing.assert_array_equal(
        image_folder(tmp_path / "turned", **arguments).test.images[0], np.rot90(gradient(10, 17), -1)
    )
    with pytest.raises(UserError, match=r"image_folder\.pad_to is for whole files"):
        image_folder(tmp_path / "images", 8, pad_to=8)
    with pytest.raises(UserError, match=r"no image_folder\.image_size: add --gin_param="):
        image_folder(tmp_path / "images")


def png_claiming(width, height):
    """A small, valid PNG whose header claims any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(pixels, form, **options):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **options)
    return stream.getvalue()


def test_hostile_files_are_skipped_and_named(tmp_path, caplog):
    folder = tmp_path / "images"
    for i in range(4):
        save(folder / f"good{i}.png", noise(40, 40, seed=i))
    (folder / "zero.png").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "bomb.png").write_bytes(png_claiming(30000, 30000))
    (folder / "huge.png").write_bytes(png_claiming(9000, 9000))
    (folder / "cut.png").write_bytes(encoded(noise(40, 40), "PNG")[:-900])
    (folder / "cut.jpg").write_bytes(encoded(noise(400, 400), "JPEG")[:20000])
    (folder / "shell.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\nshowpage\n")
    save(folder / "tiny.png", noise(1, 1))
    save(folder / "float.tiff", np.zeros((40, 40), np.float32))
    (folder / ".hidden.png").write_bytes(b"x")
    outside = save(tmp_path / "outside" / "secret.png", noise(40, 40, seed=9))
    os.symlink(outside, folder / "link.png")
    os.symlink(tmp_path / "outside", folder / "links")
    os.symlink(tmp_path / "nowhere", folder / "dangling.png")
    os.mkfifo(folder / "pipe.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dataset = image_folder(folder, 16, test_fraction=0.25, cache_dir=tmp_path / "cache")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB
    usable = rows(dataset.train, dataset.test)
    assert len(usable) == len(dataset.train) + len(dataset.test) == 4
    for name in ("zero.png (empty)", "text.jpg (not an image)", "bomb.png (claims", "huge.png (claims 9000",
                 "cut.png (damaged", "cut.jpg (damaged", "shell.eps (not an image)", "tiny.png (1x1 is",
                 "link.png (a link)", "links (a link)", "dangling.png (a link)", "pipe.png (not a"):  # fmt: skip
        assert name in caplog.text, name
    assert "float.tiff (floating" in caplog.text
    assert "hidden" not in caplog.text


def test_nothing_usable_is_an_error_that_names(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    arguments = {"image_size": 16, "cache_dir": tmp_path / "cache"}
    with pytest.raises(UserError, match="no image in"):
        image_folder(folder, **arguments)
    (folder / "zero\n.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"zero\\n.png \(empty\)"):
        image_folder(folder, **arguments)
    for i in range(3):
        save(folder / f"{i}.png", noise(8, 8))
    with pytest.raises(UserError, match=r"no usable image in the train split; skipped 2: .*8x8 is smaller than 16x16"):
        image_folder(folder, **arguments)
    with pytest.raises(UserError, match="must not be empty"):
        image_folder("", **arguments)
    with pytest.raises(UserError, match="there is no folder"):
        image_folder(tmp_path / "missing", **arguments)
    for wrong in ({"crop": "left"}, {"test_fraction": 1.5}, {"downscale": 0}, {"crop": "random_tiles"}):
        with pytest.raises(UserError, match=f"image_folder.{next(iter(wrong))}"):
            image_folder(folder, **arguments, **wrong)


def decode(tmp_path, data, channels=3):
    (tmp_path / "x.bin").write_bytes(data)
    image_files.read_header(tmp_path / "x.bin")
    return image_files.decode(tmp_path / "x.bin", channels)


def test_16_bits_with_a_transparent_value(tmp_path):
    """Over white as those of 8 bits are, and kept where there is a channel for it."""
    grey = noise(20, 30, 1).copy()
    grey[0, :5] = 7
    for pixels, clear in ((grey, 7), (grey.astype(np.uint16) * 257, 7 * 257)):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "PNG", transparency=clear)
        over_white = decode(tmp_path, stream.getvalue(), 1)[..., 0]
        np.testing.assert_array_equal(over_white, np.where(grey == 7, 255, grey))
        alpha = decode(tmp_path, stream.getvalue(), 2)[..., 1]
        np.testing.assert_array_equal(alpha, np.where(grey == 7, 0, 255))


@pytest.mark.parametrize(("dtype", "form"), [(np.uint16, "PNG"), (np.int32, "TIFF")])
def test_8_bits_kept_in_more_are_no_black_image(tmp_path, dtype, form):
    grey = noise(20, 30, 1).astype(dtype)
    with pytest.raises(image_files.UnusableImage, match="no pixel above 255, so it would be black: save it with 8"):
        decode(tmp_path, encoded(grey, form), 1)
    assert not decode(tmp_path, encoded(grey * 0, form), 1).any()
    grey[0, 0] = 256  # Dark, but of 16 bits.
    assert decode(tmp_path, encoded(grey, form), 1).max() == 1


def test_unusual_kinds_are_converted(tmp_path):
    rgb = noise(20, 30)
    rgba = noise(20, 30, 4)
    grey = noise(20, 30, 1)
    assert (decode(tmp_path, encoded(rgb, "PNG")) == rgb).all()  # whatever the suffix
    assert (decode(tmp_path, encoded(grey, "PNG"), 1)[..., 0] == grey).all()
    assert (decode(tmp_path, encoded(grey, "PNG")) == grey[..., None]).all()
    assert (decode(tmp_path, encoded(rgba, "PNG"), 4) == rgba).all()
    assert (decode(tmp_path, encoded((grey.astype(np.uint16) * 257), "PNG"), 1)[..., 0] == grey).all()
    cleared = np.dstack([rgb, np.zeros((20, 30), np.uint8)])
    assert (decode(tmp_path, encoded(cleared, "PNG")) == 255).all()  # transparent over white
    palette = Image.fromarray(rgb).quantize(16)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    assert (decode(tmp_path, stream.getvalue()) == np.asarray(palette.convert("RGB"))).all()
    stream = io.BytesIO()
    frames = [Image.fromarray(noise(20, 30, seed=s)).quantize(256) for s in range(3)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(decode(tmp_path, stream.getvalue()).astype(int) - np.asarray(frames[0].convert("RGB"))).max() <= 1
    flat = Image.new("CMYK", (30, 20), (0, 255, 255, 0))  # cyan absent: red
    stream = io.BytesIO()
    flat.save(stream, "JPEG", quality=95)
    red = decode(tmp_path, stream.getvalue()).reshape(-1, 3).mean(0)
    assert red[0] > 240
    assert red[1:].max() < 15
    stream = io.BytesIO()
    Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1").save(stream, "PNG")
    assert set(np.unique(decode(tmp_path, stream.getvalue(), 1))) == {0, 255}


def test_exif_orientation_is_respected(tmp_path):
    rgb = gradient(20, 30)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    data = encoded(rgb, "PNG", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path, data), np.rot90(rgb, -1))


def test_changed_files_are_prepared_anew(tmp_path):
    first = make(tmp_path)
    save(tmp_path / "images" / "0" / "0.png", noise(40, 50, seed=99))
    assert rows(first.train, first.test) != rows(*[getattr(make_again(tmp_path), s) for s in ("train", "test")])


def make_again(tmp_path):
    return image_folder(tmp_path / "images", 16, cache_dir=tmp_path / "cache")


def test_a_turned_photograph_counts_as_decoded(tmp_path):
    for i in range(12):
        picture = Image.fromarray(noise(20, 30, seed=i))
        exif = Image.Exif()
        if i < 3:
            exif[0x0112] = 6
            picture = picture.transpose(Image.Transpose.ROTATE_90)
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{i}.jpg", exif=exif)
    dataset = image_folder(tmp_path / "in", crop=None, cache_dir=tmp_path / "cache")
    assert dataset.image_shape == (20, 30, 3)
    assert len(dataset.train) + len(dataset.test) == 12
