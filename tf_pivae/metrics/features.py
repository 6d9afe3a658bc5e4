"""Feature networks: what turns uint8 images into the vectors that the scores compare."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_pivae.errors import UserError, first_line, sentence
from tf_pivae.files import file_sha256
from tf_pivae.metrics import inception_layout

if TYPE_CHECKING:
    import keras

UNVERIFIED = "unverified"  # checksum of a callable, whose weights are not known
OFFICIAL_TITLES = {"fid": "FID", "kid": "KID", "inception_score": "Inception Score"}
CUSTOM_TITLES = {"fid": "Frechet", "kid": "Kernel", "inception_score": "Logit score"}


class Features(NamedTuple):
    """What a network says about a batch of images."""

    pool: np.ndarray  # [B, D], float32
    logits: np.ndarray | None  # [B, K], float32, or None where the network has none


@dataclass(frozen=True)
class FeatureNetwork:
    """A named, checksummed function from uint8 images [B, H, W, C] to `Features`.

    Use `inception_network`, `keras_network` or `callable_network` to make one.
    """

    name: str
    checksum: str  # SHA-256 of the weights, or UNVERIFIED
    feature_dim: int
    has_logits: bool
    resize: str  # how images come to the network's size, for the protocol of a score
    function: Callable[[np.ndarray], Features]

    @property
    def is_inception(self) -> bool:
        return self.name in (inception_layout.NAME, inception_layout.FAST_NAME)

    def title(self, metric: str) -> str:
        """'FID' and the like for the Inception network, 'Frechet[name]' and the like for any other."""
        name = metric.capitalize()
        if self.is_inception:
            return OFFICIAL_TITLES.get(metric, name)
        return f"{CUSTOM_TITLES.get(metric, name)}[{self.name}]"

    def __call__(self, images: np.ndarray) -> Features:
        """Features of `images`, uint8 [B, H, W, C], C 1 or 3. Raises UserError for another dtype, rank or output."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3) or 0 in images.shape:
            raise UserError(
                f"images must be uint8 [B, H, W, C] with 1 or 3 channels; got {images.dtype} {images.shape}."
            )
        features = self.function(images)
        pool = np.asarray(features.pool, np.float32)
        logits = None if features.logits is None else np.asarray(features.logits, np.float32)
        if pool.shape != (len(images), self.feature_dim):
            raise UserError(
                f"feature network '{self.name}' gives features {pool.shape} for {len(images)} images; "
                f"({len(images)}, {self.feature_dim}) was expected."
            )
        return Features(pool, logits)


def callable_network(
    function: Callable, name: str, *, example: np.ndarray, checksum: str = UNVERIFIED, resize: str = "none"
) -> FeatureNetwork:
    """A feature network from any function of uint8 images [B, H, W, C].

    Args:
      function: returns features [B, D], or a pair (features [B, D], logits [B, K]); arrays or tensors.
      name: what its scores are named after; not that of the Inception network.
      example: one or more images, uint8 [B, H, W, C], which show the dimensions.
      checksum: identifies the function's numbers; without one, reference statistics cannot be cached.
      resize: how it resizes images, for the protocol.

    Raises:
      UserError: a reserved or empty name, or outputs of other ranks.
    """
    _check_name(name)

    def call(images: np.ndarray) -> Features:
        output = function(images)
        if not isinstance(output, (tuple, list)):
            return Features(np.asarray(output), None)
        pool, logits = output
        return Features(np.asarray(pool), None if logits is None else np.asarray(logits))

    pool, logits = call(np.asarray(example)[:1])
    for title, array in (("features", pool), ("logits", logits)):
        if array is not None and array.ndim != 2:
            raise UserError(
                f"feature network '{name}' gives {title} of shape {array.shape}; a matrix [B, D] is needed."
            )
    return FeatureNetwork(name, checksum, pool.shape[1], logits is not None, resize, call)


def keras_network(
    model: str | Path | keras.Model,
    name: str | None = None,
    *,
    example: np.ndarray,
    feature_layer: str | None = None,
    pixel_range: tuple[float, float] = (0.0, 255.0),
) -> FeatureNetwork:
    """A feature network from a Keras model, a Keras file (.keras, .h5) or a SavedModel directory.

    Args:
      model: the model or its path. A SavedModel is called through its signature `serving_default`.
      name: what its scores are named after: the file's or model's name by default.
      example: one or more images, uint8 [B, H, W, C], which show the dimensions.
      feature_layer: the layer whose output [B, D] is the feature; the model's own output is then the logits. Without
        it the model's output is the feature: one tensor, a pair (features, logits), or a dictionary of these two.
      pixel_range: the images' 0 and 255 come to the model, in float32, as these two numbers.

    Raises:
      UserError: nothing readable at the path, no such layer, or outputs of other ranks.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        name = name or path.stem
        checksum = tree_sha256(path)
        call = _load(path, feature_layer)
    else:
        name = name or model.name
        checksum = _model_sha256(model)
        call = _keras_call(model, feature_layer)
    low, high = pixel_range

    def function(images: np.ndarray) -> Any:
        outputs = call(low + images.astype(np.float32) * ((high - low) / 255.0))
        if isinstance(outputs, dict):
            keys = {"features", "logits"} & set(outputs)
            outputs = (
                (outputs["features"], outputs.get("logits"))
                if "features" in keys
                else next(iter(outputs.values()))
                if len(outputs) == 1
                else outputs
            )
            if isinstance(outputs, dict):
                raise UserError(
                    f"'{name}' has outputs {sorted(outputs)}: name one 'features' and, if it has them, one 'logits'."
                )
        return outputs

    digest = hashlib.sha256(f"{checksum} {feature_layer} {low} {high}".encode())
    return callable_network(function, name, example=example, checksum=digest.hexdigest())


def tree_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file, or of the names and contents of a directory's files in order. Raises UserError if absent."""
    path = Path(path)
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    if not files:
        raise UserError(f"{path} is neither a model file nor a SavedModel directory.")
    lines = (f"{file.relative_to(path).as_posix()} {file_sha256(file)}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _model_sha256(model: keras.Model) -> str:
    """SHA-256 of a model's layers and weights. Layers' names are left out: Keras numbers them as they are made."""
    layers = [(type(layer).__name__, {**layer.get_config(), "name": ""}) for layer in model.layers]
    digest = hashlib.sha256(json.dumps(layers, sort_keys=True, default=str).encode())
    for weight in model.get_weights():
        digest.update(np.ascontiguousarray(weight))
    return digest.hexdigest()


def _load(path: Path, feature_layer: str | None) -> Callable:
    try:
        if path.is_file():
            import keras

            return _keras_call(keras.models.load_model(path, compile=False, safe_mode=True), feature_layer)
        import tensorflow as tf

        loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures["serving_default"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read as a Keras file or a SavedModel with a signature 'serving_default': "
            f"{sentence(first_line(error))}"
        ) from error
    if feature_layer:
        raise UserError(
            f"a SavedModel has no layers to name: leave out feature_layer={feature_layer!r}, or give the Keras file."
        )
    arguments = list(signature.structured_input_signature[1])
    if len(arguments) != 1:
        raise UserError(f"{path}: its signature takes {arguments}; a feature network takes one batch of images.")

    def call(images: np.ndarray, _keep_alive: object = loaded) -> Any:
        return signature(**{arguments[0]: tf.constant(images)})

    return call


def _keras_call(model: keras.Model, feature_layer: str | None) -> Callable:
    import keras
    import tensorflow as tf

    if feature_layer:
        layers = [layer.name for layer in model.layers]
        if feature_layer not in layers:
            raise UserError(f"model '{model.name}' has no layer '{feature_layer}'; it has {', '.join(layers)}.")
        model = keras.Model(model.inputs, [model.get_layer(feature_layer).output, model.outputs[0]])
    return tf.function(lambda images: model(images, training=False), reduce_retracing=True)


def _check_name(name: str) -> None:
    if not name or name in (inception_layout.NAME, inception_layout.FAST_NAME):
        raise UserError(f"a feature network cannot be named {name!r}: that name stands for the FID Inception network.")
