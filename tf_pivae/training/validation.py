"""Scores of held-out images in the course of a training, by which its best checkpoint is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np

from tf_pivae.configurable import Count, Index, configurable
from tf_pivae.data.arrays import ImageSplit
from tf_pivae.models.pivae import PiVAE
from tf_pivae.values import Within

if TYPE_CHECKING:
    from tf_pivae.metrics import Extraction, FeatureNetwork

PREFIX = "validation/"  # Of the scores' names in `metrics.jsonl`.
_SEED = 1  # Other noise than the samples that are shown.


@configurable
class Validation:
    """Bits per dimension, and the FID of few samples, of the model that would be loaded.

    Both are for comparing the steps of one run: the images are the first of those that `tf_pivae.evaluate` takes, and
    the FID of few samples is far above that of many.

    Args:
      test: `ImageSplit`, of the run.
      likelihood: whether the model has a likelihood; without one there are no bits per dimension.
      every: int, steps between two of them; the last step has one, too.
      examples: held-out images of the bits per dimension; 0 for none.
      importance_samples: K.
      samples: of the FID; 0 for none, 2 or more.
      reference: held-out images that they are compared with.
      best: the score whose lowest value makes the best checkpoint.
      inception_weights: file with the FID Inception's weights, where `tf_pivae.evaluate` would not find them.

    Raises:
      UserError: the FID Inception's weights are not there.
      ValueError: `best` is not among the scores that are taken.
    """

    def __init__(
        self,
        test: ImageSplit,
        likelihood: bool,
        every: Count = 1000,
        examples: Index = 500,
        importance_samples: Annotated[int, Within(1, 10**6)] = 1,
        samples: Index = 0,
        reference: Annotated[int, Within(2)] = 2000,
        best: Literal["bits_per_dim", "fid"] = "bits_per_dim",
        inception_weights: str | None = None,
    ) -> None:
        if samples == 1:
            raise ValueError("`samples` = 1: a covariance needs at least 2.")
        self.every = every
        self.best = best
        self._importance_samples = importance_samples
        self._examples = test.take(examples) if likelihood and examples else None
        self._reference = test.take(reference)
        self._samples = samples
        if best == "bits_per_dim" and self._examples is None:
            raise ValueError("`best` = 'bits_per_dim' needs `examples` and a model with a likelihood.")
        if best == "fid" and not samples:
            raise ValueError("`best` = 'fid' needs `samples`.")
        self._network: FeatureNetwork | None = None
        self._real: Extraction | None = None
        if samples:
            from tf_pivae.metrics.inception_weights import find_weights

            self._weights = find_weights(inception_weights)  # Fails now, not after a thousand steps.

    def __call__(self, model: PiVAE) -> dict[str, float]:
        """A dict of the scores, "bits_per_dim" and "fid"; the same weights have the same."""
        scores = {}
        if self._examples is not None:
            labels = self._examples.labels if model.num_classes else None
            images = np.asarray(self._examples.images)
            bits = model.bits_per_dim(images, self._importance_samples, _SEED, labels)
            scores["bits_per_dim"] = float(bits.astype(np.float64).mean())
        if self._samples:
            scores["fid"] = self._fid(model)
        return scores

    def _fid(self, model: PiVAE) -> float:
        from tf_pivae import figures, metrics

        def features(images: np.ndarray) -> Extraction:
            return metrics.extract(figures.full_scale(np.asarray(images), model.num_bins), network, progress=False)

        network = self._network or metrics.inception_network(self._weights)
        self._network = network
        self._real = self._real or features(self._reference.images)
        labels = np.arange(self._samples) % model.num_classes if model.num_classes else None
        moments = features(model.sample(self._samples, _SEED, labels=labels)).moments
        return metrics.frechet_distance_from_moments(moments, self._real.moments, allow_rank_deficient=True)
