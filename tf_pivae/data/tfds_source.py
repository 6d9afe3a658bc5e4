"""Any image data set of TensorFlow Datasets (TFDS), by name, with the paper's splits and preprocessing as arguments."""

import contextlib
import dataclasses
import difflib
import functools
import io
import logging
import math
import os
import pathlib
import shutil
import socket
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import gin

from tf_pivae.data import arrays, cache, image_ops, sources
from tf_pivae.errors import UserError, first_line, sentence

_log = logging.getLogger(__name__)
_BATCH = 256
# TFDS retries a dead connection ten times over three minutes, and waits without limit for a silent one.
_CONNECT_SECONDS = 10
_READ_SECONDS = 120
_RETRIES = 2


@gin.configurable
def tfds_images(
    name: str,
    train_split: str = "train",
    test_split: str = "test",
    crop: image_ops.Size | str | None = None,
    pad_to: image_ops.Size | None = None,
    image_size: image_ops.Size | None = None,
    channels: int | None = None,
    image_key: str = "image",
    label_key: str = "label",
    data_dir: str | None = None,
    num_examples: arrays.Limits | None = None,
    num_images: tuple[int, int] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> arrays.ImageDataset:
    """A data set of TFDS, downloaded by TFDS where needed and prepared once in the cache.

    The paper's data sets:
      cifar10, imagenet_resized/64x64 (test_split "validation"): as they are.
      stl10: train_split "unlabelled", image_size 48 (96 is native).
      celeb_a: train_split "train+validation+test[:-6400]", test_split "test[-6400:]"; crop 178 and image_size 96, or
        crop 96.
      lsun/bedroom: test_split "validation", crop "central", image_size 64.
      fashion_mnist: pad_to 32.

    Args:
      name: of the TFDS builder, with its configuration and version if wanted ("lsun/bedroom", "cifar10:3.0.2").
      train_split, test_split: TFDS split expressions.
      crop, pad_to, image_size, channels: see `image_ops.Preprocess`, in this order. 16-bit images are scaled to 8 bits.
      image_key: the feature that holds the image.
      label_key: the feature that holds the label, "attributes/Male" for one within another; a data set without
        "label" is unlabelled.
      data_dir: where TFDS keeps its data; default as TFDS has it (`$TFDS_DATA_DIR` or `~/tensorflow_datasets`).
      num_examples: as in `ImageDataset.take`.
      num_images: training and test images that the splits hold, optional: what a dry run and a description say where
        TFDS has not been asked yet, which knows them only online.
      cache_dir: see `cache.prepare`.

    Returns:
      An `ImageDataset` of memory maps.

    Raises:
      UserError: if there is no such data set, split or feature, or it is not on this machine and cannot be downloaded.
    """
    preprocess = image_ops.Preprocess(crop, pad_to, image_size, channels)
    specification = {
        "source": "tfds",
        "name": name,
        "splits": [train_split, test_split],
        "data_dir": data_dir,
        "keys": [image_key, label_key],
        "preprocess": repr(preprocess),
    }

    def open_source() -> sources.ImageSource:
        builder = _builder(name, data_dir)
        image = _feature(builder, image_key)
        label = (
            None if label_key == "label" and label_key not in builder.info.features else _feature(builder, label_key)
        )
        shape = _image_shape(name, image_key, image, preprocess)
        if not cache.is_reading_only():
            _download(builder, name, _cache_size(builder, (train_split, test_split), shape))
        keys = (image_key, None if label is None else label_key)
        train, test = (_split(builder, name, s, keys, preprocess, shape) for s in (train_split, test_split))
        if cache.is_reading_only() and num_images is not None and train.num_images is None:
            train, test = (dataclasses.replace(s, num_images=n) for s, n in zip((train, test), num_images, strict=True))
        names = tuple(getattr(label, "names", None) or ())
        num_classes = getattr(label, "num_classes", None)
        return sources.ImageSource(shape, train, test, num_classes, names if len(names) == num_classes else ())

    return cache.prepare(name.replace("/", "-").replace(":", "-"), specification, open_source, num_examples, cache_dir)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(f"TFDS cannot be imported ({error}): pip install tensorflow-datasets brings it.") from error
    try:
        return tfds.builder(name, data_dir=data_dir)
    except ImportError as error:
        raise UserError(f"TFDS needs {error.name} for {name}: pip install {error.name} brings it.") from error
    except Exception as error:  # TFDS raises several kinds, with pages of names
        base, _, config = name.split(":")[0].partition("/")
        names = tfds.list_builders(with_community_datasets=False)
        subject = f"data set {base!r}"
        choices = names
        if config and base in names:
            subject = f"{base!r} with configuration {config!r}"
            choices = list(tfds.builder_cls(base).builder_configs)
        elif base in names:
            raise UserError(f"TFDS cannot open {name!r}: {sentence(first_line(error)[:200])}") from error
        matches = difflib.get_close_matches(config or base if choices is not names else base, choices, 3, 0.5)
        hint = f"; did you mean {' or '.join(matches)}?" if matches else "."
        raise UserError(f"TFDS has no {subject}{hint}") from error


def _feature(builder: Any, key: str) -> Any:
    feature = builder.info.features
    for part in key.split("/"):
        if not hasattr(feature, "keys") or part not in feature:
            raise UserError(
                f"{builder.name} of TFDS has no feature {key!r}; it has {', '.join(builder.info.features)}."
            )
        feature = feature[part]
    return feature


def _image_shape(name: str, key: str, feature: Any, preprocess: image_ops.Preprocess) -> tuple[int, int, int]:
    """The `(H, W, C)` after preprocessing; raises UserError where it would differ from image to image."""
    import tensorflow_datasets as tfds

    if not isinstance(feature, tfds.features.Image):
        raise UserError(
            f"feature {key!r} of {name} is {type(feature).__name__}, not an image: set tfds_images.image_key."
        )
    height, width, channels = preprocess.output_shape(*feature.shape)
    if height is None or width is None:
        raise UserError(f"the images of {name} differ in size: set tfds_images.image_size (and crop = 'central').")
    if channels is None:
        raise UserError(f"the images of {name} differ in channels: set tfds_images.channels to 1 or 3.")
    return (height, width, channels)


def _cache_size(builder: Any, splits: tuple[str, ...], shape: tuple[int, int, int]) -> str:
    """What the cache will hold after TFDS is done, as text; TFDS knows it ahead only for some data sets, and online."""
    try:
        count = sum(builder.info.splits[split].num_examples for split in splits)
    except Exception:  # A split that is unknown so far, or wrong: `_split` says so when it matters.
        return "size unknown"
    return f"{count * math.prod(shape) / 1e6:.1f} MB"


def _download(builder: Any, name: str, cache_size: str) -> None:
    """Lets TFDS download and prepare what is not on this machine yet, and says first what space that takes."""
    with _quiet_loggers("absl"):  # it warns when there is nothing yet
        if builder.is_prepared():
            return
    online = _online(builder)
    sizes = {"": builder.info.download_size, " prepared": builder.info.dataset_size}
    # TFDS knows some sizes only online.
    sizes_text = ", ".join(f"{size}{suffix}" for suffix, size in sizes.items() if size)
    _log.info(
        "TFDS: downloading %s (%s) to %s (%.1f MB free); after that the cache (%s).",
        name,
        sizes_text or "size unknown",
        builder.data_dir,
        _free_bytes(builder.data_dir) / 1e6,
        cache_size,
    )
    try:
        with _impatient_downloads(), contextlib.nullcontext() if online else _quietly():
            builder.download_and_prepare()
    except ModuleNotFoundError as error:
        raise UserError(f"TFDS needs {error.name} to prepare {name}: pip install {error.name} brings it.") from error
    except Exception as error:  # network, disk, manual download: all of them end here for the user
        reason = first_line(error)[:200] if online else "no network"
        raise UserError(
            f"cannot download {name} through TFDS ({reason}). Without a network, use local files: data "
            "that TFDS prepared elsewhere with --gin_param=\"tfds_images.data_dir='DIR'\", or other files with "
            '--gin_param="train.dataset=@npz_images" --gin_param="npz_images.path=\'FILE\'" (likewise '
            "@image_folder and @idx_images)."
        ) from error


def _free_bytes(folder: str | os.PathLike[str]) -> int:
    folder = pathlib.Path(folder).expanduser().absolute()
    return shutil.disk_usage(next(parent for parent in (folder, *folder.parents) if parent.exists())).free


def _online(builder: Any) -> bool:
    """False only if no host name of the data can be resolved: there is no network."""
    if urllib.request.getproxies():
        return True
    try:
        hosts = {urllib.parse.urlparse(url).hostname for url in builder.url_infos} - {None}
    except ImportError:
        return True
    for host in sorted(hosts):
        try:
            socket.getaddrinfo(host, 443)
        except OSError:
            continue
        return True
    return not hosts


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hides TFDS' output during a download that is bound to fail; the user sees the error alone."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        with _quiet_loggers("absl", "urllib3"), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


@contextlib.contextmanager
def _quiet_loggers(*names: str) -> Iterator[None]:
    """Lets only errors through."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _impatient_downloads() -> Iterator[None]:
    """Within it, TFDS gives up on a network that is not there after seconds, not minutes: see docs/design.md."""
    import requests

    request = requests.Session.request

    @functools.wraps(request)
    def impatient(self: requests.Session, method: str, url: str, **kwargs: Any) -> requests.Response:
        adapter = self.get_adapter(url)
        adapter.max_retries = adapter.max_retries.new(total=_RETRIES)
        return request(self, method, url, **{**kwargs, "timeout": (_CONNECT_SECONDS, _READ_SECONDS)})

    requests.Session.request = impatient
    try:
        yield
    finally:
        requests.Session.request = request


def _split(
    builder: Any,
    name: str,
    split: str,
    keys: tuple[str, str | None],
    preprocess: image_ops.Preprocess,
    shape: tuple[int, int, int],
) -> sources.SplitSource:
    """The `SplitSource` of a TFDS split expression."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    count = None
    if builder.info.splits:
        try:
            count = builder.info.splits[split].num_examples
        except Exception as error:  # a ValueError or KeyError, by the kind of mistake in the expression
            raise UserError(
                f"{name} of TFDS has no split {split!r}; it has {', '.join(builder.info.splits)}."
            ) from error
    image_feature = _feature(builder, keys[0])
    fixed = None not in image_feature.shape

    def example(features: Any) -> tuple[Any, Any]:
        image = image_feature.decode_example(_pick(features, keys[0]))
        return image, tf.cast(_pick(features, keys[1]), tf.int64) if keys[1] else tf.constant(-1, tf.int64)

    def read(start: int) -> Iterator[sources.Chunk]:
        # Only the two features are decoded, and of the records that a continued preparation passes over not even these.
        dataset = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding(
                _nested(keys, True), decoders=_nested(keys[:1], tfds.decode.SkipDecoding())
            ),
            # One file after the other: the order is that of the records.
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
        )
        dataset = dataset.skip(start).map(example, num_parallel_calls=2, deterministic=True)
        dataset = dataset.batch(_BATCH) if fixed else dataset.map(lambda image, label: (image[None], label[None]))
        for images, labels in dataset.prefetch(2).as_numpy_iterator():
            images = preprocess(images)
            if images.shape[1:] != shape:
                raise UserError(f"{name}: an image became {list(images.shape[1:])}, not {list(shape)}.")
            yield sources.Chunk(len(images), images, labels if keys[1] else None)

    return sources.SplitSource(read, count, count)


def _pick(features: Any, key: str) -> Any:
    return functools.reduce(lambda tree, part: tree[part], key.split("/"), features)


def _nested(keys: tuple[str | None, ...], value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for the key "a/b"; keys that are None are left out."""
    tree: dict[str, Any] = {}
    for key in keys:
        if key:
            *path, last = key.split("/")
            functools.reduce(lambda node, part: node.setdefault(part, {}), path, tree)[last] = value
    return tree
