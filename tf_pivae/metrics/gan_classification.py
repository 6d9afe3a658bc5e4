"""GAN-train and GAN-test (section 5.6; Shmelkov et al. 2018): a classifier as a judge of samples."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tf_pivae.configurable import Batch, Count, Decay, Fraction, Index, NonNegative, Positive, configurable
from tf_pivae.errors import UserError
from tf_pivae.metrics.classifier import augmented, residual_network
from tf_pivae.metrics.extraction import restored, save_atomically
from tf_pivae.system.progress import progress_bar
from tf_pivae.values import Within

STATE_FILE = "classifier.npz"
EVALUATION_BATCH = 500


@configurable
@dataclass(frozen=True)
class ClassifierConfig:
    """The published recipe: 64,000 steps of batch 128, the rate divided by 10 at 50 % and 75 % of them."""

    depth: Annotated[int, Within(8, 200)] = 32  # 6n + 2
    batch_size: Batch = 128
    num_steps: Count = 64_000
    learning_rate: Positive = 0.1
    momentum: Decay = 0.9
    weight_decay: NonNegative = 2e-4  # on convolution and dense kernels
    drops: tuple[Fraction, ...] = (0.5, 0.75)  # fractions of the steps
    crop_padding: Annotated[int, Within(0, 64)] = 4
    flip: bool = True  # off for digits and letters
    seed: Index = 0
    save_every: Count = 1000


class Classifier(NamedTuple):
    """A trained classifier."""

    model: keras.Model  # float32 [B, H, W, C] in 0..255 -> logits [B, num_classes]

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Fraction of uint8 images [N, H, W, C] whose largest logit is at their label [N]."""
        labels = _checked(images, labels, self.model.output_shape[-1], "evaluation")
        predicted = [
            np.asarray(
                self.model(tf.cast(images[first : first + EVALUATION_BATCH], tf.float32), training=False)
            ).argmax(axis=-1)
            for first in range(0, len(images), EVALUATION_BATCH)
        ]
        return float((np.concatenate(predicted) == labels).mean())


@dataclass(frozen=True)
class GanTrainTest:
    """Three accuracies in 0..1 and the counts they rest on."""

    gan_train: float  # trained on samples, tested on real test images: falls when samples lack quality or diversity
    gan_test: float  # trained on real training images, tested on samples: falls when samples lack quality
    real: float  # trained on real training images, tested on real test images: what the two compare with
    samples: int
    train_count: int
    test_count: int
    config: ClassifierConfig

    def standard_error(self, accuracy: float, count: int) -> float:
        """That of an accuracy over `count` images: sqrt(p (1 - p) / n)."""
        return float(np.sqrt(accuracy * (1 - accuracy) / count))


def gan_train_test(
    sample_images: np.ndarray,
    sample_labels: np.ndarray,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    config: ClassifierConfig | None = None,
    *,
    num_classes: int | None = None,
    state_dir: str | os.PathLike | None = None,
    real_state_dir: str | os.PathLike | None = None,
    progress: bool = True,
) -> GanTrainTest:
    """Trains one classifier on the samples and one on real images, with the same recipe and seed.

    Args:
      sample_images, train_images, test_images: uint8 [N, H, W, C].
      sample_labels, train_labels, test_labels: integers [N].
      config: `ClassifierConfig()` by default, so gin's bindings of it hold.
      num_classes: int; by default one more than the largest label.
      progress: show bars.
      state_dir: folder for both trainings' states, which makes them resumable.
      real_state_dir: folder of the real classifier, `state_dir/real` by default; share it between evaluations of
        different samples, and it is trained once.

    Raises:
      UserError: images or labels of a wrong kind, different image shapes, or what `train_classifier` raises.
    """
    config = config or ClassifierConfig()
    labels = [np.asarray(labels) for labels in (sample_labels, train_labels, test_labels)]
    if num_classes is None:
        num_classes = int(max(part.max(initial=0) for part in labels)) + 1
    shapes = [tuple(np.shape(images)[1:]) for images in (sample_images, train_images, test_images)]
    if len(set(shapes)) != 1:
        raise UserError(f"samples, training and test images have shapes {shapes}: make them one size.")
    folder = None if state_dir is None else Path(state_dir)
    on_samples = train_classifier(
        sample_images,
        labels[0],
        num_classes,
        config,
        progress=progress,
        state_dir=folder and folder / "samples",
        description="GAN-train classifier",
    )
    on_real = train_classifier(
        train_images,
        labels[1],
        num_classes,
        config,
        progress=progress,
        state_dir=real_state_dir or (folder and folder / "real"),
        description="real classifier",
    )
    return GanTrainTest(
        on_samples.accuracy(test_images, labels[2]),
        on_real.accuracy(sample_images, labels[0]),
        on_real.accuracy(test_images, labels[2]),
        len(sample_images),
        len(train_images),
        len(test_images),
        config,
    )


def train_classifier(
    images: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    config: ClassifierConfig | None = None,
    *,
    state_dir: str | os.PathLike | None = None,
    progress: bool = True,
    description: str = "classifier",
) -> Classifier:
    """Trains a residual network on uint8 images [N, H, W, C] with labels [N].

    SGD with momentum on the cross-entropy; a step's batch and augmentation depend on (seed, step) only, so that a
    training resumed from `state_dir` sees what it would have seen. The state of a finished training stays there:
    the same call again returns it at once.

    Args:
      images, labels: uint8 [N, H, W, C] and integers [N].
      num_classes: int.
      config: as for `gan_train_test`.
      state_dir: folder of the state, or None.
      progress, description: show a bar, and what it says.

    Raises:
      UserError: images or labels of a wrong kind, a state of other data or another recipe, or a loss that is not
        finite.
    """
    config = config or ClassifierConfig()
    images = np.asarray(images)
    labels = _checked(images, labels, num_classes, "training")
    mean, variance = _pixel_moments(images)
    model = residual_network(images.shape[1:], num_classes, config.depth, mean, variance, config.seed)
    rates = [config.learning_rate * 0.1**drop for drop in range(len(config.drops) + 1)]
    schedule = (
        keras.optimizers.schedules.PiecewiseConstantDecay(
            [int(config.num_steps * fraction) for fraction in config.drops], rates
        )
        if config.drops
        else rates[0]
    )
    optimizer = keras.optimizers.SGD(schedule, momentum=config.momentum)
    optimizer.build(model.trainable_variables)
    kernels = [variable for variable in model.trainable_variables if variable.name == "kernel"]

    signature = [tf.TensorSpec([None, *images.shape[1:]], tf.uint8), tf.TensorSpec([None], tf.int64)]

    @tf.function(input_signature=signature, autograph=False)
    def train_step(batch, targets):
        with tf.GradientTape() as tape:
            logits = model(tf.cast(batch, tf.float32), training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits))
            decay = tf.add_n([tf.nn.l2_loss(kernel.value) for kernel in kernels])
            total = loss + config.weight_decay * decay
        gradients = tape.gradient(total, [variable.value for variable in model.trainable_variables])
        optimizer.apply(gradients, model.trainable_variables)
        return loss

    variables = [*model.variables, *optimizer.variables]
    fingerprint = _fingerprint(images, labels, num_classes, config)
    path = None if state_dir is None else Path(state_dir) / STATE_FILE
    step = 0
    if path is not None and path.exists():
        step = _restore(path, fingerprint, variables)
    with progress_bar(total=config.num_steps, initial=step, desc=description, unit="step", disable=not progress) as bar:
        while step < config.num_steps:
            rows = _batch_rows(len(images), config.batch_size, step, config.seed)
            random = np.random.default_rng([config.seed, 1, step])
            loss = train_step(augmented(images[rows], config.crop_padding, config.flip, random), labels[rows])
            step += 1
            bar.update()
            if step % config.save_every == 0 or step == config.num_steps:
                if not np.isfinite(loss):
                    raise UserError(
                        f"the classifier's loss is {float(loss)} at step {step}: lower ClassifierConfig.learning_rate."
                    )
                bar.set_postfix(loss=f"{float(loss):.3f}")
                if path is not None:
                    save_atomically(
                        path,
                        fingerprint=np.array(fingerprint),
                        step=np.int64(step),
                        **{f"variable_{i}": np.asarray(v) for i, v in enumerate(variables)},
                    )
    return Classifier(model)


def _batch_rows(count: int, batch_size: int, step: int, seed: int) -> np.ndarray:
    """Rows of a step's batch: the step's window of an endless sequence of permutations, one per epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rows = np.empty(batch_size, np.int64)
    for epoch in np.unique(positions // count):
        in_epoch = positions // count == epoch
        rows[in_epoch] = np.random.default_rng([seed, 0, epoch]).permutation(count)[positions[in_epoch] % count]
    return rows


def _pixel_moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each channel [C], from exact integer sums (a constant channel's variance is made 1)."""
    values = images.reshape(-1, images.shape[-1])
    counts = np.stack([np.bincount(values[:, channel], minlength=256) for channel in range(values.shape[1])])
    levels = np.arange(256, dtype=np.float64)
    mean = counts @ levels / len(values)
    variance = counts @ levels**2 / len(values) - mean**2
    return mean, np.where(variance > 0, variance, 1.0)


def _checked(images: np.ndarray, labels: np.ndarray, num_classes: int, purpose: str) -> np.ndarray:
    """Labels as int64. Raises UserError unless images and labels fit each other."""
    labels = np.asarray(labels)
    if np.ndim(images) != 4 or np.asarray(images[:1]).dtype != np.uint8 or not len(images):
        raise UserError(f"the {purpose} images must be uint8 [N, H, W, C]; got shape {np.shape(images)}.")
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{len(images)} {purpose} images need as many integer labels; got {labels.dtype} {labels.shape}."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"the {purpose} labels run from {labels.min()} to {labels.max()}; 0 to {num_classes - 1} is allowed."
        )
    return labels.astype(np.int64)


def _fingerprint(images: np.ndarray, labels: np.ndarray, num_classes: int, config: ClassifierConfig) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(images))
    digest.update(labels)
    recipe = {name: value for name, value in asdict(config).items() if name != "save_every"}
    return json.dumps(
        {"data": digest.hexdigest(), "shape": images.shape, "classes": num_classes, **recipe}, sort_keys=True
    )


def _restore(path: Path, fingerprint: str, variables: list) -> int:
    """Puts a saved state into the variables; returns its step."""
    arrays = restored(path, fingerprint, "classifier")
    try:
        for index, variable in enumerate(variables):
            variable.assign(arrays[f"variable_{index}"])
        return int(arrays["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} lacks an array ({error}): delete it to start again.") from error
