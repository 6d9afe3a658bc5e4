"""The losses of section 4.2 and appendix A.3, as pure functions."""

import tensorflow as tf


def coverage_loss(bound, free_nats=0.0, kl_weight=1.0, reduce=tf.identity):
    """L_C, equation (6): minus the bound, averaged over the batch, nats per image.

    Args:
      bound: `tf_pivae.models.pivae.Bound` of B images.
      free_nats: float; each latent channel's KL, averaged over the batch and summed over space, counts at least this
        much (Kingma et al. 2016, section C.8). 0 leaves the bound as it is.
      kl_weight: float or scalar tensor, the factor on the KL during a warm-up; 1 is the bound.
      reduce: a function that averages a tensor over replicas: a channel's KL is floored over the global batch.

    Returns:
      Scalar.
    """
    loss = -tf.reduce_mean(bound.log_prob)
    for group in bound.kl:
        per_channel = tf.reduce_mean(group, 0)
        counted = per_channel
        if free_nats > 0.0:
            counted = tf.maximum(reduce(per_channel), free_nats)
        loss += tf.reduce_sum(kl_weight * counted - per_channel)
    return loss


def critic_loss(real_logits, fake_logits):
    """E softplus(-D(v)) + E softplus(D(v~)): the cross-entropy of equation (1) for logits [B]."""
    return tf.reduce_mean(tf.nn.softplus(-real_logits)) + tf.reduce_mean(tf.nn.softplus(fake_logits))


def quality_loss(fake_logits):
    """L_Q, equation (7): -E ln D / (1 - D), which is minus the logit."""
    return -tf.reduce_mean(fake_logits)


def gradient_penalty(critic, real, fake, mix):
    """E (||grad D(v^)||_2 - 1)^2 at v^ = e v + (1 - e) v~ (appendix A.3; Gulrajani et al. 2017).

    Args:
      critic: a function, float32 [B, H, W, C] -> logits [B].
      real, fake: float32 [B, H, W, C].
      mix: e, float32 [B] in [0, 1], one for each image.

    Returns:
      Scalar.
    """
    mix = mix[:, None, None, None]
    interpolated = mix * real + (1.0 - mix) * fake
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(interpolated)
        logits = critic(interpolated)
    gradient = tape.gradient(logits, interpolated)
    # The epsilon keeps the derivative of the root finite where the gradient vanishes.
    norm = tf.sqrt(tf.reduce_sum(tf.square(gradient), [1, 2, 3]) + 1e-12)
    return tf.reduce_mean(tf.square(norm - 1.0))
