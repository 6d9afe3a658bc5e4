"""The losses of section 4.2 and appendix A.3, as pure functions."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from tf_pivae.configurable import configurable
from tf_pivae.models.pivae import Bound


def coverage_loss(
    bound: Bound,
    free_nats: float = 0.0,
    kl_weights: Sequence[float | tf.Tensor] | None = None,
    reduce: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tf.Tensor:
    """L_C, equation (6): minus the bound, averaged over the batch, nats per image.

    Args:
      bound: `tf_pivae.models.pivae.Bound` of B images.
      free_nats: float; each latent channel's KL, averaged over the batch and summed over space, counts at least this
        much (Kingma et al. 2016, section C.8). 0 leaves the bound as it is.
      kl_weights: the factors on the KL of each latent group, floats or scalar tensors; None, all 1, is the bound.
      reduce: a function that averages a tensor over replicas: a channel's KL is floored over the global batch.

    Returns:
      Scalar.
    """
    loss = -tf.reduce_mean(bound.log_prob)
    for group, kl_weight in zip(bound.kl, kl_weights or [1.0] * len(bound.kl), strict=True):
        per_channel = tf.reduce_mean(group, 0)
        floored = per_channel
        if free_nats > 0.0:
            floored = tf.maximum(reduce(per_channel), free_nats)
        loss += tf.reduce_sum(kl_weight * floored - per_channel)
    return loss


def bound_metrics(bound: Bound, dimensions: int, group_names: Sequence[str]) -> dict[str, tf.Tensor]:
    """What is reported of a bound: a dict of scalars, means over the batch, in nats but for `bits_per_dim`.

    Args:
      bound: `Bound` of B images.
      dimensions: int, D of an image.
      group_names: of the latent groups, in the order of `bound.kl`.
    """
    bits = float(dimensions * 0.6931471805599453)
    metrics = {
        "bits_per_dim": -tf.reduce_mean(bound.log_prob) / bits,
        "reconstruction": tf.reduce_mean(bound.reconstruction),
        "flow_log_det_per_dim": tf.reduce_mean(bound.flow_log_det) / dimensions,
        "preprocessing_log_det_per_dim": tf.reduce_mean(bound.preprocessing_log_det) / dimensions,
        "discretisation_per_dim": tf.reduce_mean(bound.discretisation) / dimensions,
    }
    for name, group in zip(group_names, bound.kl, strict=True):
        metrics[f"kl/{name}"] = tf.reduce_mean(tf.reduce_sum(group, -1))
    return metrics


@configurable
def logistic_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """E softplus(-D(v)) + E softplus(D(v~)): the cross-entropy of equation (1) for logits [B]; the paper's critic."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(tf.nn.softplus(fake_logits))


@configurable
def hinge_loss(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    """E max(0, 1 - D(v)) + E max(0, 1 + D(v~)) for logits [B] (Lim & Ye 2017, Miyato et al. 2018)."""
    return tf.reduce_mean(tf.nn.relu(1.0 - real_logits)) + tf.reduce_mean(tf.nn.relu(1.0 + fake_logits))


def quality_loss(fake_logits: tf.Tensor) -> tf.Tensor:
    """L_Q, equation (7): -E ln D / (1 - D), which is minus the logit."""
    return -tf.reduce_mean(fake_logits)
