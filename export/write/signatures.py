"""The functions of an exported model: tensors in, a dictionary of tensors out, row by row.

Every input has the batch as its first dimension, which is what lets TensorFlow Serving join requests, and each output
row depends on its own input row alone. Bad input is an INVALID_ARGUMENT error of the graph itself, so that it is one in
every program that runs it.
"""

import math
from typing import NamedTuple

import tensorflow as tf

from tf_pivae.export.requests import DEFAULT_SIGNATURE, EMPTY_BATCH
from tf_pivae.export.write.fixed_noise import FixedNoise
from tf_pivae.export.write.image_bytes import can_decode, decode_images
from tf_pivae.models.latent_methods import RECONSTRUCTION
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import SeededRowNoise


class Options(NamedTuple):
    """What is fixed at export."""

    importance_samples: int = 16  # K of `log_prob`
    temperature: float = 1.0  # scales the priors' standard deviations in `sample`
    sample_noise: float = 1.0  # scales the noise of p(y|z) in `sample`


def signatures(model: PiVAE, options: Options) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Traces the signatures of a `PiVAE`.

    log_prob     images uint8 [N, H, W, C]  -> log_prob float32 [N], nats; bits_per_dim float32 [N]; also the default
    image_bytes  image_bytes string [N]     -> the same, of PNG or JPEG files (for 1, 3 or 4 channels)
    sample       seeds int64 [N]            -> images uint8 [N, H, W, C]
    reconstruct  images                     -> images
    encode       images                     -> the latent groups by name, float32
    decode       the latent groups          -> images

    A class-conditional model's take `labels`, int64 [N], too. The noise of all but `sample` is that of the model's own
    methods for a single image and seed 0.

    Returns:
      dict of name -> `tf.types.experimental.ConcreteFunction`.
    """
    graph = _Graph(model, options)
    images = {"images": tf.TensorSpec([None, *model.image_shape], tf.uint8)}
    labels = {"labels": tf.TensorSpec([None], tf.int64)} if model.num_classes else {}
    latents = {name: tf.TensorSpec([None, *shape], tf.float32) for name, shape in graph.latent_shapes().items()}
    inputs = {
        "log_prob": (graph.log_prob, images),
        "sample": (graph.sample, {"seeds": tf.TensorSpec([None], tf.int64)}),
        "reconstruct": (graph.reconstruct, images),
        "encode": (graph.encode, images),
        "decode": (graph.decode, latents),
    }
    if can_decode(model.image_shape):
        inputs["image_bytes"] = graph.log_prob_of_files, {"image_bytes": tf.TensorSpec([None], tf.string)}
    traced = {name: _trace(function, {**specs, **labels}) for name, (function, specs) in inputs.items()}
    return {**traced, DEFAULT_SIGNATURE: traced["log_prob"]}


def _trace(function, specs):
    """A concrete function whose inputs go by the names and in the order of `specs`."""
    arguments = {name: tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in specs.items()}
    return tf.function(lambda **inputs: function(**inputs), autograph=False).get_concrete_function(**arguments)


class _Graph:
    """The signatures' bodies. What two of them need is a function of the graph, stored once."""

    def __init__(self, model: PiVAE, options: Options) -> None:
        self._model = model
        self._options = options
        self._bound = tf.function(self._importance_weighted_bound, autograph=False)
        self._inferred = tf.function(self._infer, autograph=False)

    def latent_shapes(self):
        """The latent groups' names, the top first, and the shape of one row of each."""
        images = tf.TensorSpec([None, *self._model.image_shape], tf.uint8)
        labels = tf.TensorSpec([None], tf.int64) if self._model.num_classes else None
        latents, _ = self._inferred.get_concrete_function(images, labels).structured_outputs
        return {name: tuple(z.shape[1:]) for name, z in latents.items()}

    def log_prob(self, images, labels=None):
        model = self._model
        images = self._checked(images)
        labels = self._checked_labels(labels, images)
        log_prob = self._bound(images, labels)
        return {"log_prob": log_prob, "bits_per_dim": -log_prob / (model.dimensions * math.log(2.0))}

    def _importance_weighted_bound(self, images, labels):
        count = self._options.importance_samples
        return self._model.importance_weighted_bound(images, count, FixedNoise(tf.shape(images)[0], count), labels)

    def log_prob_of_files(self, image_bytes, labels=None):
        image_bytes = _not_empty(image_bytes)
        return self.log_prob(decode_images(image_bytes, self._model.image_shape), labels)

    def sample(self, seeds, labels=None):
        model = self._model
        options = self._options
        seeds = _not_empty(seeds)
        labels = self._checked_labels(labels, seeds)
        v = model.sample_continuous(SeededRowNoise(seeds), options.temperature, options.sample_noise, labels)
        return {"images": model.to_uint8(v)}

    def encode(self, images, labels=None):
        images = self._checked(images)
        return self._inferred(images, self._checked_labels(labels, images))[0]

    def _infer(self, images, labels):
        """The latent groups by name, and the mean decoded from them."""
        noise = FixedNoise(tf.shape(images)[0]).fold_in(RECONSTRUCTION)
        groups, mean = self._model.infer(images, noise, labels)
        return dict(zip(self._model.vae.group_names, (group.z for group in groups), strict=True)), mean

    def decode(self, labels=None, **latents):
        latents = [_finite(name, latents[name]) for name in self._model.vae.group_names]
        latents = [_as_many(name, z, latents[0]) for name, z in zip(self._model.vae.group_names, latents, strict=True)]
        latents[0] = _not_empty(latents[0])
        mean = self._model.vae.decode(latents, self._checked_labels(labels, latents[0]))
        return {"images": self._model.to_uint8(self._model.to_image_space(mean))}

    def reconstruct(self, images, labels=None):
        model = self._model
        images = self._checked(images)
        labels = self._checked_labels(labels, images)
        _, mean = self._inferred(images, labels)
        return {"images": model.to_uint8(model.to_image_space(mean))}

    # Checks. `ensure_shape` looks at what was fed, not at what the signature promises.

    def _checked(self, images):
        model = self._model
        images = _not_empty(tf.ensure_shape(images, [None, *model.image_shape]))
        if model.num_bins == 256:
            return images
        in_range = tf.reduce_all(images < tf.constant(model.num_bins, tf.uint8))
        return _require(in_range, f"images: pixels must lie in [0, {model.num_bins}).", images)

    def _checked_labels(self, labels, rows):
        if labels is None:
            return None
        labels = _as_many("labels", labels, rows)
        inside = tf.reduce_all((labels >= 0) & (labels < self._model.num_classes))
        return _require(inside, f"labels: must lie in [0, {self._model.num_classes}).", labels)


def _not_empty(rows):
    return _require(tf.shape(rows)[0] > 0, EMPTY_BATCH, rows)


def _as_many(name, values, rows):
    is_equal = tf.equal(tf.shape(values)[0], tf.shape(rows)[0])
    return _require(is_equal, f"{name}: must have as many rows as the other inputs.", values)


def _finite(name, latents):
    latents = tf.ensure_shape(latents, latents.shape)
    return _require(tf.reduce_all(tf.math.is_finite(latents)), f"{name}: must be finite; got NaN or infinity.", latents)


def _require(condition, message, value):
    """`value`, after a check that `condition` holds."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message], summarize=1)]):
        return tf.identity(value)
