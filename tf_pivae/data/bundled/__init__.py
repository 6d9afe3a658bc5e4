"""Real images that need no network: a subset of Fashion-MNIST, shipped with the package (see NOTICE)."""

import importlib.resources

import gin
import numpy as np

from tf_pivae.data import arrays, image_ops
from tf_pivae.errors import UserError

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")

# 32 is the usual padding of the 28x28 images; 16 is that one's exact 2x2 mean; 28 is the raw image.
PREPROCESS = {
    16: image_ops.Preprocess(pad_to=32, image_size=16),
    28: image_ops.Preprocess(),
    32: image_ops.Preprocess(pad_to=32),
}


@gin.configurable
def bundled(image_size: int = 32, num_examples: arrays.Limits | None = None) -> arrays.ImageDataset:
    """The bundled subset of Fashion-MNIST: 8,000 training and 2,000 test images, classes balanced, in random order.

    Args:
      image_size: 32 (padded with zeros), 16 (padded to 32 and halved) or 28 (raw).
      num_examples: as in `ImageDataset.take`.

    Returns:
      An `ImageDataset` in memory, `[image_size, image_size, 1]`, with 10 classes.

    Raises:
      UserError: for another size.
    """
    if image_size not in PREPROCESS:
        raise UserError(f"bundled.image_size must be 16, 28 or 32, got {image_size!r}.")
    limits = arrays.check_num_examples(num_examples)
    splits = []
    with (
        importlib.resources.files(__name__).joinpath("fashion_mnist.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as file,
    ):
        for split, limit in zip(("train", "test"), limits, strict=True):
            images = file[f"{split}_images"][:limit, :, :, None]
            labels = file[f"{split}_labels"][:limit].astype(np.int64)
            splits.append(arrays.ImageSplit(image_ops.preprocess_array(PREPROCESS[image_size], images), labels))
    train, test = splits
    return arrays.ImageDataset("fashion_mnist_subset", train, test, num_classes=10, class_names=CLASS_NAMES)
