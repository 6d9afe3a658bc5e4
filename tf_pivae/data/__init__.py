"""Images in, batches out: every source becomes one `ImageDataset` of uint8 arrays or memory maps.

Importing this package imports neither TensorFlow nor TFDS; what needs them imports them when called.
"""

from tf_pivae.data.arrays import ImageDataset, ImageSplit
from tf_pivae.data.batches import batch_indices, train_batches
from tf_pivae.data.bundled import bundled
from tf_pivae.data.folder import image_folder
from tf_pivae.data.idx import idx_images
from tf_pivae.data.levels import reduced_levels
from tf_pivae.data.npz import npz_images, save_npz
from tf_pivae.data.tfds_source import tfds_images

__all__ = [
    "ImageDataset",
    "ImageSplit",
    "batch_indices",
    "bundled",
    "idx_images",
    "image_folder",
    "npz_images",
    "reduced_levels",
    "save_npz",
    "tfds_images",
    "train_batches",
]
