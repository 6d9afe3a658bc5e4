"""Shape and classes of a data set's images before anything of it is downloaded or prepared."""

import inspect
from pathlib import Path
from typing import NamedTuple

import gin

from tf_pivae.data import folder, idx, image_files, image_ops, npz, tfds_source
from tf_pivae.data.bundled import CLASS_NAMES
from tf_pivae.errors import UserError


class Specification(NamedTuple):
    """What a model has to know of its data."""

    name: str
    image_shape: tuple  # (H, W, C)
    num_classes: int  # 0 without labels


def specification(source):
    """The `Specification` of a source of images, such as `tfds_images`, as gin configures it.

    Needs no network, no pixels, and prepares nothing: it reads TFDS' own description of the data set, or the headers
    (and the labels, to count the classes) of local files, and not even these where the configuration declares both:
    `idx_images.raw_shape` and `class_names`, `image_folder.channels`.

    Args:
      source: a configurable of `tf_pivae.data`, the value of `train.dataset`.

    Raises:
      UserError: a missing file, feature or argument, or a source that cannot tell.
    """
    name = getattr(source, "__name__", None)
    if name not in _READERS:
        raise UserError(f"{source!r} is no source of images that can tell their shape: {', '.join(_READERS)}.")
    signature = inspect.signature(inspect.unwrap(source)).parameters
    arguments = {k: p.default for k, p in signature.items()} | gin.get_bindings(name)
    missing = [k for k, value in arguments.items() if value is inspect.Parameter.empty or value is gin.REQUIRED]
    if missing:
        raise UserError(f"{name} needs a value: add --gin_param={name}.{missing[0]}=...")
    return _READERS[name](arguments)


def _preprocess(arguments):
    names = ("crop", "pad_to", "image_size", "channels")
    return image_ops.Preprocess(*(arguments[name] for name in names))


def _tfds(arguments):
    name, label_key = arguments["name"], arguments["label_key"]
    builder = tfds_source._builder(name, arguments["data_dir"])
    image = tfds_source._feature(builder, arguments["image_key"])
    shape = tfds_source._image_shape(name, arguments["image_key"], image, _preprocess(arguments))
    if label_key == "label" and label_key not in builder.info.features:
        return Specification(name, shape, 0)
    return Specification(name, shape, getattr(tfds_source._feature(builder, label_key), "num_classes", None) or 0)


def _idx(arguments):
    raw_shape = arguments["raw_shape"] or idx.read_image_shape(arguments["train_images"])
    shape = _preprocess(arguments).output_shape(*raw_shape)
    labels = arguments["train_labels"]
    classes = 0 if labels is None else len(arguments["class_names"]) or 1 + int(idx.read_idx(labels).max())
    return Specification(arguments["name"], shape, classes)


def _bundled(arguments):
    size = arguments["image_size"]
    return Specification("fashion_mnist_subset", (size, size, 1), len(CLASS_NAMES))


def _npz(arguments):
    path = Path(arguments["path"]).expanduser()
    file = npz._NpzFile(path)
    keys = ("train_images", "train_labels") if "train_images" in file else ("images", "labels")
    shape = npz._as_rank_4(file.header(keys[0])[0])[1:]
    classes = 1 + int(file.read(keys[1]).max()) if keys[1] in file else 0
    return Specification(arguments["name"] or path.stem, _preprocess(arguments).output_shape(*shape), classes)


def _folder(arguments):
    path = Path(arguments["path"]).expanduser().absolute()
    channels, size, classes = arguments["channels"], arguments["image_size"], ()
    if channels is None or arguments["class_folders"]:
        if not path.is_dir():
            raise UserError(f"there is no folder {path}: set image_folder.path to a folder of images")
        files, _ = image_files.find_files(path)
        if channels is None:
            headers = [header for _, header in folder._usable(path.name, path, files, [])]
            channels = 1 if all(header.grey for header in headers) else 3
        if arguments["class_folders"]:
            classes = {file.relative.split("/")[0] for file in files}
    return Specification(arguments["name"] or path.name, (size, size, channels), len(classes))


def _reduced_levels(arguments):
    return specification(arguments["dataset"])


_READERS = {
    "tfds_images": _tfds,
    "idx_images": _idx,
    "bundled": _bundled,
    "npz_images": _npz,
    "image_folder": _folder,
    "reduced_levels": _reduced_levels,
}
