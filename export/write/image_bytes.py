"""Decodes PNG and JPEG inside the graph, for clients that have files and no array library.

The header is read first and must already be right, so that a small file which unpacks into gigabytes is refused before
a pixel of it is decoded. An image is never resized or converted: a wrong one is an error with its reason.
Nor is it turned, as a JPEG's EXIF orientation may say, or blended by a PNG's transparent colour (tRNS), both of which
the commands do to files.
"""

from collections.abc import Sequence

import tensorflow as tf

Shape = Sequence[int]  # height, width, channels

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8\xff"
_PNG_COLOUR_TYPES = {1: (0,), 3: (2, 3), 4: (6,)}  # PNG specification, 11.2.2: grey, RGB or palette, RGB with alpha.


def can_decode(image_shape: Shape) -> bool:
    """Whether files of this number of channels exist."""
    return image_shape[-1] in _PNG_COLOUR_TYPES


def decode_images(image_bytes: tf.Tensor, image_shape: Shape) -> tf.Tensor:
    """String [N], each a PNG or JPEG file -> uint8 [N, H, W, C].

    Raises:
      tf.errors.InvalidArgumentError: when run, if a file is neither, is damaged or has another size, number of channels
        or more than 8 bits.
    """
    return tf.map_fn(
        lambda contents: _decode(contents, image_shape),
        image_bytes,
        fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
    )


def _decode(contents: tf.Tensor, image_shape: Shape) -> tf.Tensor:
    is_png = tf.strings.length(contents) >= 33
    is_png = tf.logical_and(is_png, tf.equal(tf.strings.substr(contents, 0, 8), _PNG_SIGNATURE))
    is_jpeg = tf.equal(tf.strings.substr(contents, 0, 3), _JPEG_SIGNATURE)
    is_png_or_jpeg = tf.debugging.Assert(
        tf.logical_or(is_png, is_jpeg), ["image_bytes: every string must be a whole PNG or JPEG file."]
    )
    with tf.control_dependencies([is_png_or_jpeg]):
        header = tf.cond(
            is_png,
            lambda: _check_png(contents, image_shape),
            lambda: _check_header(tf.image.extract_jpeg_shape(contents), image_shape),
        )
    with tf.control_dependencies([header]):
        pixels = tf.cond(
            is_png,
            lambda: tf.io.decode_png(contents, channels=image_shape[-1]),
            # The exact cosine transform, as Pillow's and most other decoders'.
            lambda: tf.io.decode_jpeg(contents, channels=image_shape[-1], dct_method="INTEGER_ACCURATE"),
        )
    return tf.ensure_shape(pixels, image_shape)


def _check_png(contents: tf.Tensor, image_shape: Shape) -> tf.Tensor:
    """The fields of IHDR, which is the first chunk: width, height, bits per sample, colour type."""
    sides = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
    bits, colour = (tf.io.decode_raw(tf.strings.substr(contents, start, 1), tf.uint8)[0] for start in (24, 25))
    colours = [tf.equal(colour, tf.constant(kind, tf.uint8)) for kind in _PNG_COLOUR_TYPES[image_shape[-1]]]
    right = tf.reduce_any(tf.stack(colours)) & (bits <= 8)
    channels = tf.where(right, image_shape[-1], -1)  # -1: another colour type.
    return _check_header(tf.stack([sides[1], sides[0], channels]), image_shape)


def _check_header(shape: tf.Tensor, image_shape: Shape) -> tf.Tensor:
    is_expected = tf.reduce_all(tf.equal(shape, list(image_shape)))
    expected = f"an image of {image_shape[0]} rows, {image_shape[1]} columns and {image_shape[2]} channels of 8 bits"
    check = tf.debugging.Assert(
        is_expected,
        [f"image_bytes: every file must hold {expected}; got rows, columns, channels (-1: another kind):", shape],
    )
    with tf.control_dependencies([check]):
        return tf.identity(is_expected)
