"""Which noise moves the bound: python -m benchmarks.bound_noise --run_dir=fashion_mnist

The variance of log w = log P(x, v, z) - log q(v, z|x), nats^2, where one part of its noise is drawn again and again:
that of z, of the edge pixels (the lowest level and the highest), and of the others. A normal log w of variance V makes
the one-sample bound V / 2 nats loose.

And how much of the edge pixels' is linear in the noise of one pixel: a q that knew better where that pixel's tail lies
would not have it. With e standard normal and u = Phi(e) that is the sum of E[d log w / de]^2 over the edge pixels, the
part of degree one in an expansion of log w in Hermite polynomials.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from absl import flags

from tf_pivae import cli, loading
from tf_pivae.models.pivae import PiVAE
from tf_pivae.noise import RowNoise


def main() -> None:
    options = flags.FLAGS
    images = loading.load_dataset(options.run_dir).test.images[: options.images]
    model = loading.load(options.run_dir)
    for part, variance in variances(model, images, options.draws).items():
        print(f"{part}: {variance:.1f} nats^2")
    print(f"edge pixels, linear in one of them: {linear_variance(model, images, options.draws):.1f} nats^2")


class _PixelNoise(RowNoise):
    """Uniform noise of one seed in the pixels of a mask, of another in the rest."""

    def __init__(self, inside: tf.Tensor, outside: tf.Tensor, mask: np.ndarray) -> None:
        super().__init__(inside, len(mask))
        self._other = RowNoise(outside, len(mask))
        self._mask = mask

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        return tf.where(self._mask, super().uniform(tag, shape), self._other.uniform(tag, shape))


class _GivenScores(RowNoise):
    """Noise whose uniform numbers are Phi of given ones."""

    def __init__(self, seed: tf.Tensor, scores: tf.Tensor) -> None:
        super().__init__(seed, scores.shape[0])
        self._scores = scores

    def uniform(self, tag: str, shape: Sequence[int]) -> tf.Tensor:
        return 0.5 * (1.0 + tf.math.erf(self._scores / 2.0**0.5))


def variances(model: PiVAE, images: np.ndarray, draws: int) -> dict[str, float]:
    """By part of the noise ("z", "edge pixels", "other pixels"), the variance of log w, nats^2, mean over images.

    Args:
      model: without classes.
      images: uint8 [B, H, W, C].
      draws: of each part, at least two.
    """
    edges = (images == 0) | (images == model.num_bins - 1)

    @tf.function(autograph=False)
    def log_weight(edge: tf.Tensor, other: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        features = model.features(images, _PixelNoise(edge, other, edges))
        return model.bound_of_features(features, RowNoise(z, len(images))).log_prob

    def variance(place: int) -> float:
        seeds = [[1 + draw if i == place else 0 for i in range(3)] for draw in range(draws)]
        weights = [log_weight(*(tf.constant(seed, tf.int64) for seed in row)) for row in seeds]
        return float(np.var(np.stack(weights), axis=0, ddof=1, dtype=np.float64).mean())

    return {"z": variance(2), "edge pixels": variance(0), "other pixels": variance(1)}


def linear_variance(model: PiVAE, images: np.ndarray, draws: int) -> float:
    """The part of log w's variance that is linear in one edge pixel's normal score e: nats^2, mean over images.

    Args:
      model: without classes.
      images: uint8 [B, H, W, C].
      draws: of all noise, at least two; the estimate is unbiased, and may be negative.
    """
    edges = (images == 0) | (images == model.num_bins - 1)

    @tf.function(autograph=False)
    def slopes(seed: tf.Tensor) -> tf.Tensor:
        scores = RowNoise(seed, len(images)).normal("scores", images.shape[1:])
        with tf.GradientTape() as tape:
            tape.watch(scores)
            features = model.features(images, _GivenScores(seed, scores))
            log_weight = model.bound_of_features(features, RowNoise(seed, len(images))).log_prob
        return tape.gradient(log_weight, scores)

    drawn = np.stack([slopes(tf.constant(draw, tf.int64)) for draw in range(draws)]).astype(np.float64)
    squares = np.square(drawn.mean(0)) - drawn.var(0, ddof=1) / draws
    return float((squares * edges).sum((1, 2, 3)).mean())


if __name__ == "__main__":  # Tests import this beside other commands, whose flags have the same names.
    flags.DEFINE_string("run_dir", None, "A run with edge bins, or a published model.", required=True)
    flags.DEFINE_integer("images", 64, "Test images, the first ones.", lower_bound=1)
    flags.DEFINE_integer("draws", 48, "Draws of each part.", lower_bound=2)
    cli.run(main)
