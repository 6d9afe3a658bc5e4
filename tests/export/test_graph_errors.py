"""Bad input is INVALID_ARGUMENT in the graph itself, whatever program runs it; files are decoded as they are."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

InvalidArgument = tf.errors.InvalidArgumentError


@pytest.fixture(scope="module")
def run(grey, graph_session):
    return graph_session(grey.folder)


@pytest.fixture(scope="module")
def run_conditional(conditional, graph_session):
    return graph_session(conditional.folder)


def encoded(pixels, kind="PNG", **options):
    """An image file of uint8 [H, W] or [H, W, C]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def files(*contents):
    return np.array(contents, object)


def png_header(width, height, bits=8, colour=0):
    """A PNG that claims a size and has next to no data."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def test_png_and_palette_files_are_the_pixels_they_hold(grey, run, conditional, run_conditional):
    pixels = run("image_bytes", image_bytes=files(*(encoded(x[..., 0]) for x in grey.images[:5])))
    expected = run("log_prob", images=grey.images[:5])
    np.testing.assert_allclose(pixels["log_prob"], expected["log_prob"], rtol=1e-6)
    colours = conditional.images[:5] // 64 * 64
    labels = conditional.labels[:5]
    contents = [encoded(x) for x in colours[:3]]
    for x in colours[3:]:
        palette = Image.fromarray(x).quantize(256)
        np.testing.assert_array_equal(np.asarray(palette.convert("RGB")), x)
        contents.append(encoded(np.asarray(palette.convert("RGB"))))
        buffer = io.BytesIO()
        palette.save(buffer, "PNG")
        contents[-1] = buffer.getvalue()
    actual = run_conditional("image_bytes", image_bytes=files(*contents), labels=labels)["log_prob"]
    np.testing.assert_allclose(
        actual, run_conditional("log_prob", images=colours, labels=labels)["log_prob"], rtol=1e-6
    )


def test_jpeg_files_are_what_the_commands_decode(grey, run):
    contents = [encoded(x[..., 0], "JPEG", quality=95) for x in grey.images[:3]]
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(file)))[..., None] for file in contents])
    result = run("image_bytes", image_bytes=files(*contents))["log_prob"]
    np.testing.assert_allclose(result, run("log_prob", images=decoded)["log_prob"], rtol=1e-6)


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)
BAD_FILES = {
    "no image": b"not an image at all, but long enough to be one",
    "empty": b"",
    "gif": encoded(GREY, "GIF"),
    "bmp": encoded(GREY, "BMP"),
    "truncated png": encoded(GREY)[:-30],
    "png cut in its header": encoded(GREY)[:20],
    "truncated jpeg": encoded(GREY, "JPEG")[:200],
    "other size": encoded(np.zeros([8, 9], np.uint8)),
    "other size, jpeg": encoded(np.zeros([16, 8], np.uint8), "JPEG"),
    "colour": encoded(np.zeros([8, 8, 3], np.uint8)),
    "colour, jpeg": encoded(np.zeros([8, 8, 3], np.uint8), "JPEG"),
    "transparent": encoded(np.zeros([8, 8, 4], np.uint8)),
    "16 bits": encoded(np.zeros([8, 8], np.uint16)),
    "bomb": png_header(60000, 60000),
    "bomb beyond int32": png_header(2**32 - 1, 2**32 - 1),
    "large, almost empty": encoded(np.zeros([6000, 6000], np.uint8)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(run, name):
    with pytest.raises(InvalidArgument) as error:
        run("image_bytes", image_bytes=files(encoded(GREY), BAD_FILES[name]))
    if name not in ("truncated png", "truncated jpeg"):
        assert "image_bytes: every" in str(error.value)


IMAGES = np.zeros([2, 8, 8, 1], np.uint8)
BAD_ARRAYS = {
    "other height": ("log_prob", {"images": np.zeros([2, 9, 8, 1], np.uint8)}, r"\[.*\]"),
    "one row high": ("log_prob", {"images": np.zeros([2, 1, 8, 1], np.uint8)}, r"\[.*\]"),
    "one pixel": ("reconstruct", {"images": np.zeros([2, 1, 1, 1], np.uint8)}, r"\[.*\]"),
    "channels": ("log_prob", {"images": np.zeros([2, 8, 8, 3], np.uint8)}, r"\[.*\]"),
    "rank": ("encode", {"images": np.zeros([8, 8, 1], np.uint8)}, r"\[.*\]"),
    "empty batch": ("log_prob", {"images": IMAGES[:0]}, r"the batch is empty; send at least one row\."),
    "no seeds": ("sample", {"seeds": np.zeros([0], np.int64)}, r"the batch is empty; send at least one row\."),
    "no files": ("image_bytes", {"image_bytes": np.zeros([0], object)}, r"the batch is empty; send at least one row\."),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(run, name):
    signature, inputs, message = BAD_ARRAYS[name]
    with pytest.raises(InvalidArgument, match=message):
        run(signature, **inputs)


def test_bad_latents(grey, run):
    latents = run("encode", images=grey.images[:2])
    assert run("decode", **latents)["images"].shape == (2, 8, 8, 1)
    for bad in (np.nan, np.inf, -np.inf):
        for name in latents:
            broken = {**latents, name: np.where(np.arange(2).reshape(-1, 1, 1, 1) == 1, bad, latents[name])}
            with pytest.raises(InvalidArgument, match=rf"{name}: must be finite; got NaN or infinity\."):
                run("decode", **broken)
    for name in list(latents)[1:]:
        with pytest.raises(InvalidArgument, match=r"as many rows as the other inputs\."):
            run("decode", **{**latents, name: latents[name][:1]})
        with pytest.raises(InvalidArgument):
            run("decode", **{**latents, name: latents[name][:, :1]})


def test_bad_labels_and_levels(conditional, run_conditional):
    images = conditional.images[:3]
    labels = np.array([0, 1, 2])
    for bad in (-1, 3, 2**40):
        with pytest.raises(InvalidArgument, match=r"labels: must lie in \[0, 3\)\."):
            run_conditional("log_prob", images=images, labels=np.array([0, bad, 1]))
        with pytest.raises(InvalidArgument, match=r"labels: must lie in \[0, 3\)\."):
            run_conditional("sample", seeds=labels, labels=np.array([0, bad, 1]))
    with pytest.raises(InvalidArgument, match=r"as many rows as the other inputs\."):
        run_conditional("log_prob", images=images, labels=labels[:1])
    bright = images.copy()
    bright[1, 0, 0, 0] = 200
    with pytest.raises(InvalidArgument, match=r"pixels must lie in \[0, 200\)\."):
        run_conditional("log_prob", images=bright, labels=labels)
